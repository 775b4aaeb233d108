"""What Prometheus learns of signing in."""

from collections.abc import Callable
from typing import Final, Literal, get_args

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from bus import contract
from bus.boot_credential import Refusal
from bus.messages import Protection
from services.auth.lockout import Scope
from services.measures import SECONDS

Answer = Literal["known", "refused", "unavailable"]
"""What the directory says of who signs in, or that it could not be asked."""
Reason = Literal[Refusal, "bad_machine", "too_many", "locked_out", "overloaded"]
"""Why one is not let on the bus."""
Result = Literal["ok", Reason]

SUCCESS: Final = "success"


class CalloutMetrics:
    """Counts who wants to come on the bus as a boot client, and what was decided."""

    def __init__(self, registry: CollectorRegistry, site: str, present: Callable[[], int]) -> None:
        """``present`` tells how many boot clients are on the bus."""
        decided = Counter(
            "imageinvoker_callout",
            "Boot clients that wanted to come on the bus, by what was decided: ok, or why not.",
            ["site", "result"],
            registry=registry,
        )
        self._seconds: Final = Histogram(
            "imageinvoker_callout_seconds",
            "Seconds from the server's question to the answer.",
            ["site"],
            registry=registry,
            buckets=SECONDS,
        ).labels(site)
        Gauge(
            "imageinvoker_boot_clients",
            "Boot clients that are on the bus, as this copy knows.",
            ["site"],
            registry=registry,
        ).labels(site).set_function(present)
        results: tuple[Result, ...] = get_args(Result)
        self._decided: Final = {each: decided.labels(site, each) for each in results}

    def decided(self, result: Result, seconds: float) -> None:
        """One was decided on."""
        self._decided[result].inc()
        self._seconds.observe(seconds)


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
