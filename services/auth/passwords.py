"""Passwords and their hashes: argon2id, and MD5 only to take over an old installation's."""

import asyncio
import hashlib
import hmac
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from argon2 import PasswordHasher
from argon2.exceptions import VerificationError

OLD: Final = "md5$"
"""What marks a hash that was taken over; the rest are 32 hexadecimal digits."""

_THREADS: Final = 2


class Passwords:
    """Hashes and verifies off the event loop, a few at a time: each takes 64 MiB and much work."""

    def __init__(self) -> None:
        self._hasher = PasswordHasher()
        self._threads = ThreadPoolExecutor(_THREADS, "argon2")

    def close(self) -> None:
        """Ends the threads."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def hash(self, password: str) -> str:
        """The argon2id hash of a password."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, self._hasher.hash, password)

    async def verify(self, known: str, password: str) -> bool:
        """Whether ``known`` is a hash of the password."""
        if known.startswith(OLD):
            return hmac.compare_digest(known.encode(), old_hash(password).encode())
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, self._verify, known, password)

    def _verify(self, known: str, password: str) -> bool:
        try:
            return self._hasher.verify(known, password)
        except (VerificationError, ValueError):
            # A ValueError, since what is kept may be no hash.
            return False


def old_hash(password: str) -> str:
    """The hash that old installations kept: MD5, unsalted."""
    digest = hashlib.md5(password.encode(), usedforsecurity=False).hexdigest()
    return OLD + digest
