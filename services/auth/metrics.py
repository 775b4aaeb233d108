"""What Prometheus learns of signing in."""

from typing import Final, Literal, get_args

from prometheus_client import CollectorRegistry, Counter, Histogram

from bus import contract
from bus.messages import Protection
from services.auth.lockout import Scope
from services.measures import SECONDS

Answer = Literal["known", "refused", "unavailable"]
"""What the directory says of who signs in, or that it could not be asked."""


SUCCESS: Final = "success"


class LoginMetrics:
    """Counts sign-ins and locks."""

    def __init__(self, registry: CollectorRegistry, site: str) -> None:
        self._site = site
        self._logins = Counter(
            "imageinvoker_logins",
            "Sign-ins, by what came of them: success, or the code of the problem.",
            ["site", "protection", "outcome"],
            registry=registry,
        )
        self._locks = Counter(
            "imageinvoker_login_locks",
            "Locks after too many failed sign-ins, by what is locked.",
            ["site", "scope"],
            registry=registry,
        )
        self._hashes = Counter(
            "imageinvoker_password_hashes",
            "Password hashes made, to verify or to keep one.",
            ["site"],
            registry=registry,
        )
        directory = Histogram(
            "imageinvoker_directory_seconds",
            "Seconds that the directory takes to say who signs in, by what it says.",
            ["site", "answer"],
            registry=registry,
            buckets=SECONDS,
        )
        # There at 0 from the start: Prometheus does not see a counter rise that begins at 1.
        self._hashes.labels(site)
        self._directory: Final = {each: directory.labels(site, each) for each in get_args(Answer)}
        for scope in get_args(Scope):
            self._locks.labels(site, scope)
        for protection in get_args(Protection):
            for outcome in (SUCCESS, *contract.LOGIN.problems):
                self._logins.labels(site, protection, outcome)

    def directory(self, answer: Answer, seconds: float) -> None:
        """The directory has been asked once."""
        self._directory[answer].observe(seconds)

    def hash(self) -> None:
        """One hash is made."""
        self._hashes.labels(self._site).inc()

    def login(self, protection: Protection, outcome: str) -> None:
        """One sign-in has ended."""
        self._logins.labels(self._site, protection, outcome).inc()

    def lock(self, scope: Scope) -> None:
        """One lock has closed."""
        self._locks.labels(self._site, scope).inc()
