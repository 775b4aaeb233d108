"""The options of a site: what operators type, what the bucket holds, what is in force."""

import contextlib

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bus.options import (
    DEFAULTS,
    TEXT_PREFIX,
    OptionError,
    Options,
    assemble,
    meaning,
    names,
    parse,
)
from bus.texts import TEXTS
from services.auth.controllers import parse_controller

GOOD: list[tuple[str, str, object]] = [
    ("timeout", "10", 10),
    ("timeout", " 0 ", 0),
    ("idle_timeout", "300", 300),
    ("menu_type", "folders", "folders"),
    ("root_folder", "Deploy/Staff", "Deploy/Staff"),
    ("root_folder", "17", "17"),
    ("root_folder", "none", None),
    ("tag", "[MI]", "[MI]"),
    ("tag", "on", "on"),
    ("may_rename", "off", False),
    ("may_rename", "Yes", True),
    ("may_rename", "false", False),
    ("naming", "PC-%SERIAL%", "PC-%SERIAL%"),
    ("name_max_length", "63", 63),
    ("new_computer_group", "Off", "Off"),
    ("shared_macs", "00:1B:21:AA:BB:CC, 001b21aabbdd", ("001b21aabbcc", "001b21aabbdd")),
    ("shared_macs", "none", ()),
    ("protection", "hash", "hash"),
    ("protection", "server", "server"),
    ("protection", "domain", "domain"),
    ("administrators", "LAB Deployers", "LAB Deployers"),
    ("administrators", "none", None),
    ("administrators", "", None),
    ("session_lifetime", "60", 60),
    ("tries_per_machine", "5", 5),
    ("tries_per_account", "1", 1),
    ("tries_per_address", "1000", 1000),
    ("tries_window", "86400", 86400),
    ("lock_time", "1", 1),
    ("trust_request_info", "yes", True),
    ("domain", "Lab.Example.", "lab.example"),
    ("domain", "none", None),
    ("domain_controllers", "dc1.lab.example", ("dc1.lab.example",)),
    (
        "domain_controllers",
        "DC1, dc2:3269; LDAPS://dc3 ldap://10.0.0.4:389/",
        ("dc1", "dc2:3269", "ldaps://dc3", "ldap://10.0.0.4:389"),
    ),
    ("domain_controllers", "ldaps://[FD00::1]:636", ("ldaps://[fd00::1]:636",)),
    ("domain_controllers", "None", ()),
    ("mail_to", "desk@lab.example, ops@lab.example", ("desk@lab.example", "ops@lab.example")),
    ("mail_to", "none", ()),
    ("mail_from", "imaging@lab.example", "imaging@lab.example"),
    ("mail_from", "none", None),
    ("mail_server", "Mail.lab.example:587", "mail.lab.example:587"),
    ("mail_server", "smtps://mail.lab.example", "smtps://mail.lab.example"),
    ("mail_server", "none", None),
    ("retention_days", "30", 30),
    ("domain_ca", "/etc/imageinvoker/ca.pem", "/etc/imageinvoker/ca.pem"),
    ("domain_ca", "none", None),
    ("send_domain_passwords_in_clear_text", "on", True),
    ("detailed_logging", "on", True),
]
BAD: list[tuple[str, str]] = [
    ("timeout", "-1"),
    ("timeout", "86401"),
    ("timeout", "soon"),
    ("timeout", ""),
    ("idle_timeout", "1.5"),
    ("menu_type", "tree"),
    ("tag", "   "),
    ("tag", "x" * 33),
    ("may_rename", "perhaps"),
    ("naming", "%NOSUCH%"),
    ("naming", "x" * 129),
    ("name_max_length", "0"),
    ("name_max_length", "64"),
    ("new_computer_group", ""),
    ("new_computer_group", "\udc80"),
    ("shared_macs", "00:1b:21"),
    ("protection", "password"),
    ("protection", "none, hash"),
    ("administrators", "x" * 257),
    ("administrators", "two\nlines"),
    ("session_lifetime", "59"),
    ("session_lifetime", "86401"),
    ("tries_per_machine", "0"),
    ("tries_per_account", "101"),
    ("tries_per_address", "1001"),
    ("tries_window", "0"),
    ("lock_time", "0"),
    ("trust_request_info", "perhaps"),
    ("domain", "LAB"),
    ("domain", "lab..example"),
    ("domain", "-lab.example"),
    ("domain", "lab example"),
    ("domain", "ldap://lab.example"),
    ("domain", "a." * 127 + "aa"),
    ("domain", "x" * 64 + ".example"),
    ("domain_controllers", "http://dc1"),
    ("domain_controllers", "dc1:0"),
    ("mail_to", "desk"),
    ("mail_to", "desk@lab.example\r\nBcc:x@y"),
    ("mail_from", "A <a@b>"),
    ("mail_server", "http://mail"),
    ("mail_server", "mail:99999"),
    ("retention_days", "0"),
    ("domain_controllers", "dc1:0636"),
    ("domain_controllers", "[fd00::1::2]"),
    ("domain_controllers", "fd00::1"),
    ("domain_controllers", "[dc1]"),
    ("domain_controllers", "dc1:65536"),
    ("domain_controllers", "dc1:ldaps"),
    ("domain_controllers", "ldaps://"),
    ("domain_controllers", "ldap://user@dc1"),
    ("domain_controllers", "ldap://dc1/dc=lab"),
    ("domain_controllers", "dc1,-dc2"),
    ("domain_controllers", ",".join(f"dc{number}" for number in range(33))),
    ("domain_ca", "two\nlines"),
    ("send_domain_passwords_in_clear_text", "maybe"),
    ("detailed_logging", "2"),
    ("text", "{}"),
    ("nosuch", "1"),
    ("password_hash", "x"),
    ("text.nosuch", "x"),
    ("text.title", "two\nlines"),
    ("text.title", "{server}"),
    ("text.connecting", "{server"),
    ("text.connecting", "{0.__class__}"),
]


@pytest.mark.parametrize(("name", "typed", "value"), GOOD)
def test_what_an_operator_types_is_in_force_after_the_bucket(
    name: str, typed: str, value: object
) -> None:
    options, complaints = assemble({name: parse(name, typed)})
    assert getattr(options, name) == value
    assert complaints == []


@pytest.mark.parametrize(("name", "typed"), BAD)
def test_a_value_that_does_not_fit_is_refused(name: str, typed: str) -> None:
    with pytest.raises(OptionError):
        parse(name, typed)


@given(st.sampled_from([*names(), "nosuch"]), st.text(alphabet=st.characters(), max_size=40))
@settings(max_examples=200)
def test_whatever_is_typed_is_taken_or_refused_with_a_reason(name: str, typed: str) -> None:
    with contextlib.suppress(OptionError):
        assert assemble({name: parse(name, typed)})[1] == []


@given(st.dictionaries(st.sampled_from([*names(), "text", "nosuch"]), st.binary(max_size=12)))
@settings(max_examples=200)
def test_whatever_the_bucket_holds_there_are_options_in_force(values: dict[str, bytes]) -> None:
    options, complaints = assemble(values)
    assert msgspec.convert(msgspec.to_builtins(options), Options) == options
    for complaint in complaints:
        name = complaint.partition(":")[0]
        if name == "protection":
            assert options.protection == "domain"
        elif not name.startswith(TEXT_PREFIX):
            assert getattr(options, name) == getattr(DEFAULTS, name)


def test_every_option_that_can_be_shown_can_be_set_as_it_is() -> None:
    for field in msgspec.structs.fields(Options):
        if field.name == "text":
            continue
        value = getattr(DEFAULTS, field.name)
        typed = "none" if value in {None, ()} else str(value)
        assert assemble({field.name: parse(field.name, typed)}) == (DEFAULTS, [])


@pytest.mark.parametrize("name", names())
def test_every_option_says_what_it_does(name: str) -> None:
    assert meaning(name)


def test_every_option_has_a_description_and_a_default_within_its_bounds() -> None:
    for field in msgspec.structs.fields(Options):
        info = msgspec.inspect.type_info(field.type)
        assert isinstance(info, msgspec.inspect.Metadata), field.name
        assert (info.extra_json_schema or {}).get("description"), field.name
        value = msgspec.to_builtins(getattr(DEFAULTS, field.name))
        assert msgspec.convert(value, field.type) == getattr(DEFAULTS, field.name)


def test_a_naming_rule_that_cannot_be_followed_leaves_the_default_with_a_complaint() -> None:
    options, complaints = assemble({"naming": b'"%NOSUCH%"'})
    assert options.naming == DEFAULTS.naming
    assert "NOSUCH" in complaints[0]


@pytest.mark.parametrize(
    ("name", "raw"),
    [
        ("domain", b'"LAB"'),
        ("domain_controllers", b'["dc1", "http://dc2"]'),
        ("domain_controllers", b'"dc1"'),
        ("administrators", b'"two\\nlines"'),
    ],
)
def test_what_cannot_be_a_directory_leaves_the_default_with_a_complaint(
    name: str, raw: bytes
) -> None:
    options, complaints = assemble({name: raw, "protection": b'"domain"'})
    assert options == Options(protection="domain")
    assert [complaint.partition(":")[0] for complaint in complaints] == [name]


@given(st.text(alphabet="lLdDaApPsS:/[]0123456789._-cf,", min_size=1, max_size=24))
@settings(max_examples=200)
def test_whatever_is_taken_for_domain_controllers_the_auth_service_understands(typed: str) -> None:
    with contextlib.suppress(OptionError):
        options, _ = assemble({"domain_controllers": parse("domain_controllers", typed)})
        for controller in options.domain_controllers:
            assert parse_controller(controller)


def test_a_directory_that_is_none_is_refused_with_an_example() -> None:
    with pytest.raises(OptionError, match=r"'LAB' is no DNS name of a domain \(lab\.example\)"):
        parse("domain", "LAB")
    with pytest.raises(OptionError, match="'http://dc' is no domain controller"):
        parse("domain_controllers", "dc1, http://dc")


@pytest.mark.parametrize("raw", [b"", b"hash", b'"HASH"', b"1", b'"\xff"'])
def test_a_protection_that_cannot_be_read_stays_closed(raw: bytes) -> None:
    options, complaints = assemble({"protection": raw, "timeout": b"9"})
    assert options.protection == "domain"
    assert options.timeout == 9
    assert len(complaints) == 1


@pytest.mark.parametrize("name", TEXTS)
def test_every_text_of_the_portal_is_one_line_that_an_operator_may_change(name: str) -> None:
    usual = TEXTS[name]
    assert usual == usual.strip()
    assert usual.isprintable()
    options, complaints = assemble({TEXT_PREFIX + name: parse(TEXT_PREFIX + name, usual)})
    assert options.text == {name: usual}
    assert complaints == []


def test_a_changed_text_may_drop_its_fields() -> None:
    assert parse("text.connecting", "Moment!") == b'"Moment!"'


def test_shared_addresses_are_at_hand_as_a_set() -> None:
    assert Options(shared_macs=("001b21aabbcc",)).shared == frozenset({"001b21aabbcc"})
