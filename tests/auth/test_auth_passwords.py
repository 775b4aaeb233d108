"""Passwords and their hashes."""

import asyncio
import time
from collections.abc import Iterator

import pytest

from services.auth.passwords import OLD, Passwords, old_hash


@pytest.fixture
def passwords() -> Iterator[Passwords]:
    passwords = Passwords()
    yield passwords
    passwords.close()


async def test_a_password_is_kept_as_argon2id_and_never_the_same_twice(
    passwords: Passwords,
) -> None:
    first, second = await asyncio.gather(passwords.hash("geheim"), passwords.hash("geheim"))
    assert first.startswith("$argon2id$")
    assert first != second
    assert "geheim" not in first
    assert await passwords.verify(first, "geheim")
    assert await passwords.verify(second, "geheim")
    assert not await passwords.verify(first, "Geheim")
    assert not await passwords.verify(first, "")


async def test_the_hash_of_an_old_installation_is_known(passwords: Passwords) -> None:
    # RFC 1321, A.5: the MD5 of "abc".
    assert old_hash("abc") == OLD + "900150983cd24fb0d6963f7d28e17f72"
    assert await passwords.verify(old_hash("pässword ☃"), "pässword ☃")
    assert not await passwords.verify(old_hash("abc"), "abd")


@pytest.mark.parametrize(
    "known", ["", "geheim", "$argon2id$", "$argon2id$v=19$junk", "md5$", "md5$geheim", "\ufffd"]
)
async def test_what_is_no_hash_lets_nobody_in(passwords: Passwords, known: str) -> None:
    assert not await passwords.verify(known, "geheim")
    assert not await passwords.verify(known, "")
    assert not await passwords.verify(known, known)


async def test_hashing_does_not_hold_up_the_loop(passwords: Passwords) -> None:
    known = await passwords.hash("geheim")
    working = asyncio.gather(*(passwords.verify(known, "geheim") for _ in range(6)))
    turns = 0
    began = time.perf_counter()
    while not working.done():
        await asyncio.sleep(0.001)
        turns += 1
    assert await working == [True] * 6
    # Were the loop held up, there would be hardly a turn for each of them.
    assert turns > min(30, (time.perf_counter() - began) * 100)
