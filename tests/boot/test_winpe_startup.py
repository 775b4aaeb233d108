"""What starts in a Windows PE, with and without the call of the portal. Pure rules."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from boot.winpe_startup import (
    CALL,
    LAUNCH,
    STARTNET,
    WINPESHL,
    StartUnclearError,
    has_call,
    with_call,
)

PLAIN = b"wpeinit\r\n"


def lines(content: bytes) -> list[str]:
    return content.decode("latin-1").removesuffix("\r\n").split("\r\n")


def test_a_plain_startnet_gets_the_call_at_its_end() -> None:
    start = with_call(None, PLAIN)
    assert (start.path, lines(start.content)) == (STARTNET, ["wpeinit", CALL])


def test_without_any_startnet_there_is_one_that_brings_the_network_up() -> None:
    assert lines(with_call(None, None).content) == ["wpeinit", CALL]


def test_every_other_line_stays_as_it_is() -> None:
    odd = b"@echo off\r\nrem gr\xfc\xdfe\r\nwpeinit\r\n\r\nset X=1"
    start = with_call(None, odd)
    assert start.content == odd + b"\r\n" + CALL.encode() + b"\r\n"


def test_a_call_stays_where_an_operator_has_put_it_with_what_was_added() -> None:
    moved = f"wpeinit\r\nCALL X:\\startup\\menu.bat /t 0\r\nagent.exe\r\n{CALL}\r\n".encode()
    assert lines(with_call(None, moved).content) == ["wpeinit", f"{CALL} /t 0", "agent.exe"]


def test_a_comment_about_it_is_no_call() -> None:
    assert not has_call(None, b"rem call X:\\startup\\menu.bat is gone\r\n")
    assert has_call(None, with_call(None, PLAIN).content)


def test_a_list_of_programs_gets_it_behind_the_one_that_brings_the_network_up() -> None:
    listed = "[LaunchApps]\r\n%SYSTEMROOT%\\System32\\wpeinit.exe\r\nX:\\shell.exe, /a\r\n"
    start = with_call(listed.encode(), PLAIN)
    assert start.path == WINPESHL
    assert lines(start.content) == [
        "[LaunchApps]",
        r"%SYSTEMROOT%\System32\wpeinit.exe",
        LAUNCH,
        r"X:\shell.exe, /a",
    ]
    assert has_call(start.content, PLAIN)


def test_a_list_without_it_gets_both_before_all_others() -> None:
    listed = b"; ours\r\n[LaunchApp]\r\nAppPath = a.exe\r\n[LaunchApps]\r\nX:\\bddrun.exe\r\n"
    text = lines(with_call(listed, PLAIN).content)
    assert text[4:] == [r"%SystemRoot%\System32\wpeinit.exe", LAUNCH, r"X:\bddrun.exe"]


def test_a_list_that_starts_startnet_leaves_it_to_that() -> None:
    listed = b"[LaunchApps]\r\ncmd.exe, /k startnet.cmd\r\n"
    start = with_call(listed, PLAIN)
    assert start.path == STARTNET
    assert has_call(listed, start.content)


def test_a_single_program_is_left_alone_and_told_of() -> None:
    with pytest.raises(StartUnclearError, match="--no-start"):
        with_call(b"[LaunchApp]\r\nAppPath = %SYSTEMDRIVE%\\shell.exe\r\n", PLAIN)


def test_a_file_in_utf_16_stays_one() -> None:
    listed = "[LaunchApps]\r\nX:\\grüße.exe\r\n".encode("utf-16")
    start = with_call(listed, PLAIN)
    assert "grüße.exe" in start.content.decode("utf-16")
    assert has_call(start.content, None)


@given(st.lists(st.sampled_from(["wpeinit", "", "rem x", CALL, f"{CALL} /t 9", "agent"])))
@settings(max_examples=200, deadline=None)
def test_there_is_always_exactly_one_call_and_a_second_run_changes_nothing(
    before: list[str],
) -> None:
    others = [line for line in before if "menu.bat" not in line]
    once = with_call(None, "".join(f"{line}\r\n" for line in before).encode()).content
    calls = [line for line in lines(once) if "menu.bat" in line]
    assert len(calls) == 1
    assert [line for line in lines(once) if line not in calls] == others
    assert with_call(None, once).content == once


@given(st.binary(max_size=300))
@settings(max_examples=200, deadline=None)
def test_no_file_is_too_odd_to_get_the_call(content: bytes) -> None:
    start = with_call(None, content)
    assert has_call(None, start.content)
    assert with_call(None, start.content).content == start.content
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        return  # UTF-16, where a line ends otherwise
    before = content.replace(b"\r\n", b"\n").removesuffix(b"\n")
    assert start.content.replace(b"\r\n", b"\n").startswith(before)
