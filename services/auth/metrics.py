"""What Prometheus learns of signing in."""

from prometheus_client import CollectorRegistry, Counter

from bus.messages import Protection
from services.auth.lockout import Scope


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

    def hash(self) -> None:
        """One hash is made."""
        self._hashes.labels(self._site).inc()

    def login(self, protection: Protection, outcome: str) -> None:
        """One sign-in has ended."""
        self._logins.labels(self._site, protection, outcome).inc()

    def lock(self, scope: Scope) -> None:
        """One lock has closed."""
        self._locks.labels(self._site, scope).inc()
