"""Access rules: what operators may write, whom a rule is for, and which one decides."""

import msgspec
import pytest

from bus.access import (
    ALL_RIGHTS,
    Decision,
    Effect,
    Judge,
    Rights,
    Rule,
    jobs_in,
    make_rule,
    rights_of,
    rule_decoder,
    rule_key,
)
from bus.technicians import Technician

ANNA = Technician(name="Anna", groups=("Staff", "Straße"))


def rule(who: str, what: str = "all", effect: Effect = "allow") -> Rule:
    return Rule(who=who, what=what, effect=effect)


class TestWriting:
    @pytest.mark.parametrize("what", ["all", "job:0", "job:2000112", "folder:17", "folder:-3"])
    def test_a_rule_is_made_of_what_an_operator_types_and_can_be_read_again(
        self, what: str
    ) -> None:
        made = make_rule(" group: Domain Users ", what, "deny")
        assert made == rule("group:Domain Users", what, "deny")
        assert rule_decoder.decode(msgspec.json.encode(made)) == made

    @pytest.mark.parametrize(
        "who", ["", "Anna", "user:", "group:  ", "users:Anna", "user:a\nb", "user:" + "a" * 300]
    )
    def test_nobody_is_refused(self, who: str) -> None:
        with pytest.raises(ValueError, match="nobody"):
            make_rule(who, "all", "allow")

    @pytest.mark.parametrize(
        "what", ["", "All", "all\n", "job:", "job:x", "job:01", "folder:1 ", "folder:١", "item:1"]
    )
    def test_nothing_to_deploy_is_refused(self, what: str) -> None:
        with pytest.raises(ValueError, match="nothing to deploy"):
            make_rule("user:Anna", what, "allow")
        written = msgspec.json.encode({"who": "user:Anna", "what": what, "effect": "deny"})
        with pytest.raises(ValueError, match="what"):
            rule_decoder.decode(written)

    @pytest.mark.parametrize(
        "written",
        [
            {"who": "Anna", "what": "all", "effect": "deny"},
            {"who": "group: ", "what": "all", "effect": "deny"},
            {"who": "user:Anna", "what": "all", "effect": "Deny"},
            {"who": "user:Anna", "effect": "deny"},
        ],
    )
    def test_a_rule_that_was_written_by_hand_and_makes_no_sense_is_refused(
        self, written: dict[str, str]
    ) -> None:
        with pytest.raises(ValueError, match=r"who|effect|what"):
            rule_decoder.decode(msgspec.json.encode(written))

    def test_there_is_one_rule_for_each_pair_of_who_and_what(self) -> None:
        key = rule_key(rule("user:Anna"))
        assert rule_key(rule("user:ANNA", effect="deny")) == key
        assert rule_key(rule("group:Anna")) != key
        assert rule_key(rule("user:Anna", "job:1")) != key


class TestWhomARuleIsFor:
    @pytest.mark.parametrize("who", ["user:anna", "user: ANNA ", "group:staff", "group:STRASSE"])
    def test_names_are_compared_in_any_case_and_form(self, who: str) -> None:
        assert rights_of([rule(who)], ANNA, None) == Rights(whole=True)

    @pytest.mark.parametrize("who", ["user:Staff", "group:Anna", "user:Ann", "group:Staff2"])
    def test_a_rule_for_somebody_else_says_nothing(self, who: str) -> None:
        assert rights_of([rule(who)], ANNA, None) == Rights()

    def test_who_is_not_known_has_no_rights(self) -> None:
        assert rights_of([rule("user:Anna")], None, "Staff") == Rights()
        assert Judge([rule("user:Anna")], None, "Staff").decision(["all"]) == Decision(False)

    def test_administrators_may_do_everything_whatever_rules_say(self) -> None:
        denied = [rule("user:Anna", effect="deny")]
        assert rights_of(denied, ANNA, "STAFF") == ALL_RIGHTS
        assert Judge(denied, ANNA, "staff").decision(["job:1", "all"]) == Decision(
            permitted=True, administrator=True
        )

    @pytest.mark.parametrize("administrators", [None, "", " ", "Anna", "Boss"])
    def test_who_is_not_in_their_group_is_no_administrator(
        self, administrators: str | None
    ) -> None:
        nameless = Technician(name="Anna", groups=("", "Staff"))
        assert rights_of([], nameless, administrators) == Rights()


class TestWhatRightsAre:
    def test_deny_wins_on_a_level_whichever_name_it_is_for(self) -> None:
        rules = [
            rule("user:Anna", "folder:1"),
            rule("group:Staff", "folder:1", "deny"),
            rule("group:Staff", "job:7"),
            rule("group:Straße", "all"),
        ]
        expected = Rights(whole=True, folders=frozenset({(1, False)}), jobs=frozenset({(7, True)}))
        assert rights_of(rules, ANNA, None) == expected
        assert rights_of(reversed(rules), ANNA, None) == expected

    def test_those_to_whom_the_same_rules_apply_have_equal_rights(self) -> None:
        rules = [rule("group:Staff", f"job:{number}") for number in range(100)]
        rules.append(rule("user:Bob", "job:5"))
        bob = Technician(name="Bob", groups=("staff",))
        both = [rights_of(rules, each, None) for each in (ANNA, bob)]
        assert both[0] == both[1]
        assert hash(both[0]) == hash(both[1])
        assert both[0] != rights_of(rules[1:50], ANNA, None)

    def test_the_jobs_that_rules_name_are_told(self) -> None:
        rules = [rule("user:x", what) for what in ("job:7", "job:-1", "folder:3", "all")]
        assert jobs_in([*rules, rule("user:y", "job:7", "deny")]) == {7, -1}
        assert jobs_in([]) == frozenset()


class TestWhichRuleDecides:
    LEVELS = ("job:7", "folder:3", "folder:1", "all")

    def test_those_of_the_nearest_level_that_win_there(self) -> None:
        folder = [
            rule("user:Anna", "folder:3"),
            rule("group:Staff", "folder:3", "deny"),
            rule("group:STRASSE", "folder:3", "deny"),
        ]
        rules = [rule("group:Staff"), *folder, rule("user:Bob", "job:7")]
        judge = Judge(rules, ANNA, None)
        assert judge.decision(self.LEVELS) == Decision(False, (folder[1], folder[2]))
        assert judge.decision(("job:7", "all")) == Decision(True, (rules[0],))
        assert [judge.speaks_of(level) for level in self.LEVELS] == [False, True, False, True]

    def test_where_nothing_is_said_none_does(self) -> None:
        assert Judge([rule("user:Anna", "job:8")], ANNA, None).decision(self.LEVELS) == Decision(
            permitted=False
        )
