"""The table of permissions itself, without a server: what nobody at all may do."""

import pytest

from bus import subjects
from bus.claims import Permissions
from estate import permissions
from estate.permissions import HOLDERS, HUB_HOLDERS

EVERYBODY: dict[str, Permissions] = {
    **{who: permissions.of("campus", who) for who in HOLDERS},
    **{f"hub {who}": permissions.of_hub(who) for who in HUB_HOLDERS},
    "callout": permissions.callout("campus"),
    "system": permissions.system("campus", "ACAMPUS"),
    "leaf": permissions.leaf(),
    "boot": permissions.boot("campus"),
    "sentinel": permissions.sentinel(),
}
ENDS_ALL = ("$JS.API.STREAM.DELETE.", "$JS.API.STREAM.RESTORE.", "$JS.API.STREAM.SNAPSHOT.",
    "$JS.API.STREAM.MSG.DELETE.", "$JS.API.ACCOUNT.", "$JS.API.SERVER.")  # fmt: skip


@pytest.mark.parametrize("who", EVERYBODY)
def test_nobody_is_allowed_everything_for_want_of_a_list(who: str) -> None:
    for side in (EVERYBODY[who].pub, EVERYBODY[who].sub):
        # Where nothing is allowed by name, NATS allows all but what is denied.
        assert side.allow or side.deny == (">",)


@pytest.mark.parametrize("who", EVERYBODY)
def test_nobody_may_do_what_no_program_does(who: str) -> None:
    for subject in EVERYBODY[who].pub.allow:
        assert subject.split(".")[0] not in {">", "*"}
        assert not subject.startswith(ENDS_ALL)
        assert not subject.startswith(("$JS.API.>", "$KV.>", "$KV.*", "$JS.API.STREAM.*"))
        assert who == "system" or not subject.startswith("$SYS")
    for subject in EVERYBODY[who].sub.allow:
        assert subject.split(".")[0] not in {">", "*"}


@pytest.mark.parametrize("who", EVERYBODY)
def test_everybody_hears_answers_to_themselves_and_to_nobody_else(who: str) -> None:
    own = {
        **{name: {f"_INBOX_{name}-campus.>"} for name in (*permissions.SERVICES, "callout")},
        "system": {"_INBOX_system-campus.>"},
        "operator": {"_INBOX_command.>", "_INBOX_doctor.>", "_INBOX_replay.>"},
        "hub operator": {"_INBOX_command.>", "_INBOX_doctor.>"},
        "hub monitor": {"_INBOX_monitor-estate.>"},
        "boot": {"_INBOX_{{name()}}.>"},
        "leaf": set[str](),
        "sentinel": set[str](),
    }
    heard = {each for each in EVERYBODY[who].sub.allow if each.startswith("_INBOX")}
    assert heard == own[who]


@pytest.mark.parametrize("who", HOLDERS)
def test_a_credential_of_a_site_names_no_other_site(who: str) -> None:
    allowed = permissions.of("campus", who)  # type: ignore[arg-type]
    for subject in (*allowed.pub.allow, *allowed.sub.allow):
        tokens = subject.split(".")
        if tokens[0] == "imaging" and tokens[1] != subjects.ESTATE:
            assert tokens[1] == "campus", subject
        if tokens[0] == "$KV":
            assert tokens[2] in {"campus", subjects.ESTATE}, subject


def test_only_who_makes_them_writes_what_others_believe() -> None:
    def who(subject: str) -> set[str]:
        return {name for name, each in EVERYBODY.items() if subject in each.pub.allow}

    assert who(f"$KV.{subjects.KEYS}.campus.>") == {"auth"}
    assert who(f"$KV.{subjects.OPTIONS}.campus.>") == {"auth", "operator"}
    assert who(f"$KV.{subjects.ACCESS}.campus.>") == {"operator"}
    assert who(f"$KV.{subjects.TECHNICIANS}.campus.>") == {"auth", "operator"}
    assert who(f"$KV.{subjects.REVOKED}.estate.>") == {"operator", "hub operator"}
    assert who(subjects.request("campus")) == {"scheduler", "operator"}
    # What becomes of a request; every other answer is one, and needs no right of its own.
    assert {
        (name, subject)
        for name, each in EVERYBODY.items()
        for subject in each.pub.allow
        if subject.startswith("_INBOX")
    } == {("scheduler", "_INBOX_scheduler-campus.>"), ("scheduler", "_INBOX_replay.>")}
