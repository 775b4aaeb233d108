"""The pure rules of the boot client: words, columns, finding, naming."""

import socket
import ssl
import unicodedata
from pathlib import Path

import nats.errors
import pytest
from client_site import items
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.cells import cell_len

from bus.door import CertificateError, RefusedError, UnprotectedError, UnusableError
from bus.messages import Entry, FolderEntry, ItemEntry, NameRules
from bus.names import check_name, name_rules
from bus.problems import Problem
from bus.texts import TEXTS
from client.items import Found, every_item, item_called, matching
from client.naming import complaint
from client.portal.terminal import cut, spread
from client.troubles import trouble
from client.words import Words, plain


def test_a_changed_text_is_said_with_its_fields() -> None:
    words = Words({"scheduled": "{name} ist eingeplant"})
    assert words("scheduled", name="PC-1") == "PC-1 ist eingeplant"


@pytest.mark.parametrize("changed", ["{nobody} knows", "{name} {x}"])
def test_a_changed_text_that_asks_for_too_much_gives_way(changed: str) -> None:
    assert Words({"scheduled": changed})("scheduled", name="PC-1") == "Scheduled for PC-1"


@pytest.mark.parametrize("changed", ["{", "}", "{}", "{0}", "{name.__class__}", "{name!r:>9}"])
def test_no_changed_text_can_break_the_portal(changed: str) -> None:
    assert Words({"scheduled": changed})("scheduled", name="PC-1")


def test_every_text_is_of_printable_ascii() -> None:
    assert all(text.isascii() and text.isprintable() for text in TEXTS.values())


@given(st.text())
@settings(max_examples=200, deadline=None)
def test_nothing_that_steers_a_terminal_gets_through(text: str) -> None:
    cleaned = plain(text)
    assert cleaned.isprintable()
    assert not any(unicodedata.category(char).startswith("C") for char in cleaned)
    assert len(cleaned) == len(text)


def test_printable_text_gets_through_unchanged() -> None:
    assert plain("Größe 東京 [bold]x[/]") == "Größe 東京 [bold]x[/]"


@given(st.text(st.characters(exclude_categories=("C", "M"))), st.integers(0, 40))
@settings(max_examples=200, deadline=None)
def test_a_text_is_cut_to_its_columns(text: str, width: int) -> None:
    shown = cut(text, width)
    assert cell_len(shown) <= width
    if cell_len(text) <= width:
        assert shown == text
    elif width > 3:
        assert shown.endswith("...")


@given(st.text(max_size=60), st.text(max_size=60), st.integers(4, 90))
@settings(max_examples=200, deadline=None)
def test_two_texts_fill_exactly_one_line(left: str, right: str, width: int) -> None:
    assert cell_len(spread(plain(left), plain(right), width)) == width


TREE: tuple[Entry, ...] = (
    *items("Windows 11 Staff", "windows 10"),
    FolderEntry(
        title="Labs",
        entries=(
            ItemEntry(id="job:7", title="Strasse"),
            FolderEntry(title="Old", entries=(ItemEntry(id="folder:9", title="WINDOWS 7"),)),
        ),
    ),
)


def test_items_are_found_across_folders_in_the_order_of_the_menu() -> None:
    found = list(every_item(TREE))
    assert [each.item.id for each in found] == ["job:1", "job:2", "job:7", "folder:9"]
    assert found[-1].folders == ("Labs", "Old")


@given(st.lists(st.text("aAbBß S", max_size=8), max_size=12), st.text("aAbBßsS ", max_size=3))
@settings(max_examples=200, deadline=None)
def test_finding_is_what_a_slow_search_finds(titles: list[str], wanted: str) -> None:
    found = [Found(item, ()) for item in items(*titles) if isinstance(item, ItemEntry)]
    slow = []
    for each in found:
        title, text = each.item.title.casefold(), wanted.casefold()
        if any(title[at : at + len(text)] == text for at in range(len(title) + 1)):
            slow.append(each)
    folded = [each.item.title.casefold() for each in found]
    assert matching(found, folded, wanted) == slow


@pytest.mark.parametrize(
    ("wanted", "ids"),
    [
        ("job:2", ["job:2"]),
        ("folder:9", ["folder:9"]),
        ("WINDOWS 10", ["job:2"]),
        (" windows 11 staff ", ["job:1"]),
        ("windows", []),
        ("job:99", []),
    ],
)
def test_an_item_is_called_by_id_or_whole_title(wanted: str, ids: list[str]) -> None:
    assert [item.id for item in item_called(TREE, wanted)] == ids


def test_an_ambiguous_title_calls_every_item_of_that_title() -> None:
    assert len(item_called(items("Same", "SAME", "other"), "same")) == 2


@given(st.text("aZ09-_ ä.", max_size=18))
@settings(max_examples=200, deadline=None)
def test_the_check_while_typing_agrees_with_the_servers(name: str) -> None:
    try:
        check_name(name, 15)
        refused = False
    except Problem:
        refused = True
    assert bool(complaint(Words(), name, name_rules(15))) == refused


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (ConnectionRefusedError(), "trouble_refused"),
        (socket.gaierror(-2, "unknown"), "trouble_host"),
        (TimeoutError(), "trouble_timeout"),
        (nats.errors.TimeoutError(), "trouble_timeout"),
        (ssl.SSLCertVerificationError(), "trouble_certificate"),
        (OSError(101, "unreachable"), "trouble_network"),
        (RefusedError("refused"), "trouble_boot_none"),
        (RefusedError("revoked"), "trouble_door"),
        (RefusedError("crowded"), "trouble_door_crowded"),
        (RefusedError("slow"), "trouble_door_slow"),
        (RefusedError("expired"), None),
        (CertificateError("expired"), "trouble_certificate_expired"),
        (CertificateError("not_yet_valid"), "trouble_certificate_not_yet_valid"),
        (CertificateError("other_authority"), "trouble_certificate_other_authority"),
        (CertificateError("wrong_name"), "trouble_certificate_wrong_name"),
        (CertificateError("unfit"), "trouble_certificate"),
        (UnprotectedError("It goes in the clear.", "Encrypt."), "trouble_unprotected"),
        (UnusableError("It is gone.", "Bring it.", Path("ca.pem")), "trouble_file"),
        (nats.errors.StaleConnectionError(), "trouble_other"),
        (nats.errors.NoServersError(), None),
    ],
)
def test_every_failure_to_connect_has_plain_words(error: Exception, text: str | None) -> None:
    notice = trouble(error, "nats://ann:hush@bus:4222")
    assert (notice and notice.text) == text
    if notice:
        assert "hush" not in Words()(notice.text, message=notice.message)


def test_a_name_that_begins_with_a_digit_is_one() -> None:
    assert complaint(Words(), "0815-LAB", name_rules(15)) == ""


def test_rules_that_cannot_be_read_are_left_to_the_server() -> None:
    assert complaint(Words(), "PC", NameRules(max_length=15, pattern="(", hint="")) == ""
