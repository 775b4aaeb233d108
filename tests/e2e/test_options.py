"""An operator changes options: each change is told of, and none locks everybody out unsaid."""

from pathlib import Path

import pytest

from bus import subjects
from bus.access import make_rule
from bus.access_store import AccessStore
from bus.buckets import prepare
from bus.connection import Connection
from tests.buses import BusServer
from tests.e2e.e2e_desk import SITE, Desk


@pytest.fixture
async def desk(bus: BusServer, connection: Connection, tmp_path: Path) -> Desk:
    await prepare(connection.jetstream())
    return Desk(bus.url, connection, tmp_path / "home")


def changes(desk: Desk) -> list[dict[str, object]]:
    return [dict(event.details) for event in desk.audit("--kind", "option_changed")]


def test_each_change_is_an_event_with_what_it_was(desk: Desk) -> None:
    desk.done("options", "set", "timeout", "7")
    desk.done("options", "set", "domain_controllers", "DC1, ldap://dc2")
    desk.done("options", "set", "text.title", "Hello")
    desk.done("options", "reset", "timeout")
    desk.done("options", "reset", "timeout")
    assert changes(desk) == [
        {"option": "timeout", "value": "7", "was": "5"},
        {"option": "domain_controllers", "value": "dc1, ldap://dc2", "was": "none"},
        {"option": "text.title", "value": "Hello", "was": "ImageInvoker"},
        {"option": "timeout", "value": "5", "was": "7"},
    ]
    (event, *_) = desk.audit()
    assert "@" in (event.operator or "")


async def test_a_password_is_in_no_event_and_on_no_screen(desk: Desk) -> None:
    said = desk.done("options", "password", typed="correct horse\n")
    assert changes(desk) == [{"option": "password"}]
    assert "horse" not in said + str(desk.audit()) + desk.done("audit")
    assert "argon2" not in str(desk.audit()) + desk.done("options", "show", "--json")


def test_what_is_taken_over_is_told_of_without_the_hash(desk: Desk, tmp_path: Path) -> None:
    old = tmp_path / "menu_options.ini"
    old.write_text("Timeout=12\nHash=5F4DCC3B5AA765D61D8327DEB882CF99\nPasswordProtection=1\n")
    desk.done("options", "import", str(old))
    assert changes(desk) == [
        {"option": "password"},
        {"option": "timeout", "value": "12", "was": "5"},
        {"option": "protection", "value": "hash", "was": "none"},
    ]


def test_an_old_file_does_not_lock_everybody_out(desk: Desk, tmp_path: Path) -> None:
    old = tmp_path / "menu_options.ini"
    old.write_text("Timeout=12\nPasswordProtection=Domain\n")
    taken = desk.run("options", "import", str(old))
    assert taken.returncode == 1
    assert "not taken over: protection = domain: There is no domain yet" in taken.stderr
    assert desk.json("options", "show", "protection") == {"protection": "none"}
    assert desk.json("options", "show", "timeout") == {"timeout": 12}


@pytest.mark.parametrize("protection", ["hash", "domain"])
def test_a_protection_under_which_nobody_could_sign_in_is_refused_with_the_cure(
    desk: Desk, protection: str
) -> None:
    cures = {"hash": "options password", "domain": "options set domain"}
    assert cures[protection] in desk.refused("options", "set", "protection", protection)
    assert desk.json("options", "show", "protection") == {"protection": "none"}
    assert changes(desk) == []


def test_the_domain_stays_as_long_as_it_is_needed(desk: Desk) -> None:
    desk.done("options", "set", "domain", "lab.example")
    desk.done("options", "set", "protection", "domain")
    assert "set another protection first" in desk.refused("options", "set", "domain", "none")
    assert "set another protection first" in desk.refused("options", "reset", "domain")
    desk.done("options", "set", "domain", "lab2.example")
    desk.done("options", "reset", "protection")
    desk.done("options", "reset", "domain")


async def test_protection_by_accounts_is_warned_of_while_nobody_could_do_anything(
    desk: Desk,
) -> None:
    alone = desk.run("options", "set", "protection", "server")
    assert alone.returncode == 0
    assert "imageinvoker account add" in alone.stderr
    assert "only administrators see anything" in alone.stderr
    accounts = await desk.connection.jetstream().key_value(subjects.ACCOUNTS)
    await accounts.put(subjects.site_key(SITE, "0"), b"{}")
    assert "account add" not in desk.run("options", "set", "protection", "server").stderr
    access = await AccessStore.open(desk.connection, SITE)
    await access.write(make_rule("user:alice", "all", "allow"))
    assert desk.run("options", "set", "protection", "server").stderr == ""


def test_protection_by_a_domain_is_warned_of_while_there_are_no_rules(desk: Desk) -> None:
    desk.done("options", "set", "domain", "lab.example")
    done = desk.run("options", "set", "protection", "domain")
    assert done.returncode == 0
    assert "imageinvoker access allow" in done.stderr
    assert "account" not in done.stderr


def test_passwords_in_clear_text_are_warned_of(desk: Desk) -> None:
    option = "send_domain_passwords_in_clear_text"
    done = desk.run("options", "set", option, "yes")
    assert done.returncode == 0
    assert "reads the passwords" in done.stderr
    assert f"imageinvoker options reset {option}" in done.stderr
    assert desk.run("options", "set", option, "no").stderr == ""


async def test_a_change_whose_event_is_not_kept_says_that_it_is_made(desk: Desk) -> None:
    await desk.connection.jetstream().delete_stream(subjects.EVENTS)
    done = desk.run("options", "set", "timeout", "7")
    assert (done.returncode, done.stdout) == (1, "")
    assert "The change is made, but" in done.stderr
    assert '\\"option\\":\\"timeout\\"' in done.stderr
    assert desk.json("options", "show", "timeout") == {"timeout": 7}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("set", "domain", "LAB"), "'LAB' is no DNS name of a domain"),
        (("set", "domain_controllers", "http://dc1"), "'http://dc1' is no domain controller"),
        (("set", "session_lifetime", "5"), "session_lifetime"),
        (("set", "protection", "ldap"), "protection"),
        (("reset", "no_such"), "no_such"),
        (("import", "no-such-file.ini"), "no-such-file.ini"),
    ],
)
def test_wrong_use_ends_with_status_2_and_a_sentence(
    desk: Desk, arguments: tuple[str, ...], words: str
) -> None:
    assert words in desk.refused("options", *arguments)


# Options of the whole estate.


def test_an_option_of_the_estate_holds_until_a_site_has_its_own_and_an_enforced_one_always(
    desk: Desk,
) -> None:
    def timeout() -> tuple[str, str]:
        (line,) = desk.done("options", "show", "timeout").splitlines()[:1]
        _, *mark, value = line.split("  seconds")[0].split()
        return "".join(mark), value

    assert timeout() == ("", "5")
    desk.done("options", "set", "timeout", "9", "--estate")
    assert timeout() == ("e", "9")
    desk.done("options", "set", "timeout", "7")
    assert timeout() == ("*", "7")
    desk.done("options", "set", "timeout", "0", "--enforced")
    assert timeout() == ("!", "0")
    desk.done("options", "reset", "timeout", "--enforced")
    desk.done("options", "reset", "timeout")
    assert timeout() == ("e", "9")
    assert '"timeout":9' in desk.done("options", "show", "timeout", "--json")
    assert '"timeout":5' in desk.done("options", "show", "timeout", "--json", "--enforced")


def test_a_change_of_the_estates_options_is_told_of_the_estate(desk: Desk) -> None:
    assert desk.done("options", "set", "timeout", "9", "--estate") == "estate: timeout = 9\n"
    assert changes(desk) == []


def test_who_sets_what_the_estate_enforces_is_told_that_it_does_not_count(desk: Desk) -> None:
    desk.done("options", "set", "timeout", "0", "--enforced")
    ended = desk.run("options", "set", "timeout", "7")
    assert ended.returncode == 0
    assert "enforced by the estate" in ended.stderr


def test_a_protection_is_judged_with_what_the_estate_has_set(desk: Desk) -> None:
    cure = "options set domain"
    assert cure in desk.refused("options", "set", "protection", "domain", "--enforced")
    desk.done("options", "set", "domain", "lab.example", "--estate")
    desk.done("options", "set", "protection", "domain")
    desk.done("options", "set", "protection", "domain", "--enforced")


def test_a_change_is_told_with_what_was_in_force_before_it_and_is_after_it(desk: Desk) -> None:
    desk.done("options", "set", "timeout", "9", "--estate")
    desk.done("options", "set", "timeout", "7")
    assert desk.done("options", "reset", "timeout") == "lab: timeout is what the estate says\n"
    desk.done("options", "reset", "timeout", "--estate")
    assert desk.done("options", "reset", "timeout") == "lab: timeout is at its default\n"
    assert changes(desk) == [
        {"option": "timeout", "value": "7", "was": "9"},
        {"option": "timeout", "value": "9", "was": "7"},
    ]


def test_the_options_of_the_estate_are_not_shown_as_those_of_a_site(desk: Desk) -> None:
    desk.done("options", "set", "timeout", "9", "--estate")
    for layer in ("--estate", "--enforced"):
        legend = desk.done("options", "show", layer).splitlines()[-1]
        assert legend.startswith("* set for all sites")
        assert "defaults" not in legend
