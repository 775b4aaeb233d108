"""Passwords and their hashes: argon2id, and MD5 only to take over an old installation's."""

import asyncio
import hashlib
import hmac
import secrets
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from argon2 import PasswordHasher
from argon2.exceptions import VerificationError

from bus.messages import Details
from bus.problems import Problem
from bus.waiting import end

OLD: Final = "md5$"
"""What marks a hash that was taken over; the rest are 32 hexadecimal digits."""
REMEMBERED_FOR: Final = 60.0
"""Seconds in which a password that was right is known to be right again without a hash; they begin
anew each time. It stays right for as long as the hash that is kept is the same."""
MOST_WAITING: Final = 64
"""Different passwords that are verified or wait for it at once; more are turned away."""

_THREADS: Final = 2
_MOST_REMEMBERED: Final = 1000
_RETRY_AFTER: Final = 1.0


class Passwords:
    """Hashes and verifies off the event loop, a few at a time: each takes 64 MiB and much work.

    However often one password is asked about, it is verified once, until a minute passes in which
    nobody asks. What is remembered are not passwords but digests of them under a key that is made
    at the start, in memory alone.
    """

    def __init__(self, hashed: Callable[[], None] = lambda: None) -> None:
        """``hashed`` is called for each hash that is made."""
        self._hashed = hashed
        self._hasher = PasswordHasher()
        self._threads = ThreadPoolExecutor(_THREADS, "argon2")
        self._key = secrets.token_bytes(32)
        self._under_way: dict[bytes, asyncio.Task[bool]] = {}
        self._right_until: dict[bytes, float] = {}

    async def close(self) -> None:
        """Ends what is under way."""
        for task in list(self._under_way.values()):
            await end(task)
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def hash(self, password: str) -> str:
        """The argon2id hash of a password."""
        self._hashed()
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, self._hasher.hash, password)

    async def verify(self, known: str, password: str, account: str = "") -> bool:
        """Whether ``known`` is a hash of the password; accounts are never mixed up.

        Raises:
            Problem: ``overloaded``, when too many others wait.
        """
        if known.startswith(OLD):
            return hmac.compare_digest(known.encode(), old_hash(password).encode())
        question = self._digest(known, password, account)
        if time.monotonic() < self._right_until.get(question, 0):
            self._remember(question)
            return True
        task = self._under_way.get(question)
        if task is None:
            if len(self._under_way) >= MOST_WAITING:
                raise Problem("overloaded", details=Details(retry_after=_RETRY_AFTER))
            task = asyncio.create_task(self._ask(question, known, password))
            self._under_way[question] = task
            task.add_done_callback(lambda _: self._under_way.pop(question, None))
        # Others wait for it too: whoever goes away must not end it.
        return await asyncio.shield(task)

    async def _ask(self, question: bytes, known: str, password: str) -> bool:
        self._hashed()
        loop = asyncio.get_running_loop()
        right = await loop.run_in_executor(self._threads, self._verify, known, password)
        if right:
            self._remember(question)
        return right

    def _remember(self, question: bytes) -> None:
        self._right_until.pop(question, None)
        if len(self._right_until) >= _MOST_REMEMBERED:
            self._right_until.pop(next(iter(self._right_until)))
        self._right_until[question] = time.monotonic() + REMEMBERED_FOR

    def _verify(self, known: str, password: str) -> bool:
        try:
            return self._hasher.verify(known, password)
        except (VerificationError, ValueError):
            # A ValueError, since what is kept may be no hash.
            return False

    def _digest(self, *parts: str) -> bytes:
        digest = hashlib.blake2b(key=self._key)
        for part in parts:
            data = part.encode()
            digest.update(len(data).to_bytes(8, "big") + data)
        return digest.digest()


def old_hash(password: str) -> str:
    """The hash that old installations kept: MD5, unsalted."""
    digest = hashlib.md5(password.encode(), usedforsecurity=False).hexdigest()
    return OLD + digest
