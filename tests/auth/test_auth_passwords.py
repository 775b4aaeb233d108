"""Passwords and their hashes."""

import asyncio
import time
from collections.abc import AsyncIterator

import pytest

from bus.problems import Problem
from services.auth.passwords import OLD, Passwords, old_hash


@pytest.fixture
async def passwords() -> AsyncIterator[Passwords]:
    passwords = Passwords()
    yield passwords
    await passwords.close()


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
    working = asyncio.gather(*(passwords.verify(known, "geheim", str(n)) for n in range(6)))
    turns = 0
    began = time.perf_counter()
    while not working.done():
        await asyncio.sleep(0.001)
        turns += 1
    assert await working == [True] * 6
    # Were the loop held up, there would be hardly a turn for each of them.
    assert turns > min(30, (time.perf_counter() - began) * 100)


class Counted(Passwords):
    """Counts the hashes that are really made."""

    def __init__(self) -> None:
        super().__init__()
        self.made = 0

    def _verify(self, known: str, password: str) -> bool:
        self.made += 1
        return super()._verify(known, password)


@pytest.fixture
async def counted() -> AsyncIterator[Counted]:
    passwords = Counted()
    yield passwords
    await passwords.close()


async def test_a_thousand_who_ask_about_one_password_at_once_cost_one_hash(
    counted: Counted,
) -> None:
    known = await counted.hash("geheim")
    assert all(await asyncio.gather(*(counted.verify(known, "geheim") for _ in range(1000))))
    assert all(await asyncio.gather(*(counted.verify(known, "geheim") for _ in range(1000))))
    assert counted.made == 1


async def test_a_wrong_password_is_verified_anew_each_time(counted: Counted) -> None:
    known = await counted.hash("geheim")
    assert await asyncio.gather(*(counted.verify(known, "falsch") for _ in range(5))) == [False] * 5
    assert not await counted.verify(known, "falsch")
    assert counted.made == 2


async def test_what_was_right_once_says_nothing_of_another_hash_password_or_account(
    counted: Counted,
) -> None:
    one, two = await asyncio.gather(counted.hash("geheim"), counted.hash("anders"))
    assert await counted.verify(one, "geheim", "ann")
    assert not await counted.verify(two, "geheim", "ann")
    assert not await counted.verify(one, "anders", "ann")
    assert await counted.verify(one, "geheim", "bob")
    assert counted.made == 4


async def test_what_was_right_is_forgotten_after_a_while(
    counted: Counted, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.auth.passwords.REMEMBERED_FOR", 0.0)
    known = await counted.hash("geheim")
    for _ in range(2):
        assert await counted.verify(known, "geheim")
    assert counted.made == 2


async def test_what_is_asked_about_each_minute_is_not_forgotten(
    counted: Counted, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [1000.0]
    monkeypatch.setattr("services.auth.passwords.time.monotonic", lambda: now[0])
    known = await counted.hash("geheim")
    for passes, made in ((0, 1), (59, 1), (59, 1), (61, 2)):
        now[0] += passes
        assert await counted.verify(known, "geheim")
        assert counted.made == made


async def test_who_goes_away_does_not_take_the_answer_from_the_others(counted: Counted) -> None:
    known = await counted.hash("geheim")
    first, second = (asyncio.create_task(counted.verify(known, "geheim")) for _ in range(2))
    await asyncio.sleep(0)
    first.cancel()
    assert await second
    assert first.cancelled()
    assert counted.made == 1


async def test_beyond_a_bound_different_passwords_are_turned_away(
    counted: Counted, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.auth.passwords.MOST_WAITING", 2)
    known = await counted.hash("geheim")
    found = await asyncio.gather(
        *(counted.verify(known, f"guess {n}") for n in range(4)), return_exceptions=True
    )
    assert found[:2] == [False, False]
    assert [each.code for each in found[2:] if isinstance(each, Problem)] == ["overloaded"] * 2
    assert await counted.verify(known, "geheim")


async def test_no_password_stays_in_memory(counted: Counted) -> None:
    known = await counted.hash("geheim-4711")
    await counted.verify(known, "geheim-4711")
    assert "geheim-4711" not in repr(vars(counted))
