"""Rights over the job tree: what menus show, what the scheduler permits, what `explain` says."""

from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st
from menu_cases import Case, cases, items_in, plain, plain_reference
from menu_reference import Access, Reference

from bus.access import ALL_RIGHTS, Effect, Judge, Rights, Rule, jobs_in, rights_of
from bus.messages import FolderEntry, ItemEntry, MenuType
from bus.technicians import Technician
from engine.rights import Permissions, explain, forbidden_jobs
from engine.tree import Folder, Job, JobTree
from services.menu.builder import MenuBuilder

ANNA = Technician(name="Anna", groups=("Staff", "Lab"))
TREE = (
    Folder(1, None, "Deploy"),
    Folder(2, 1, "Office (MI)"),
    Folder(3, 2, "Drivers"),
    Folder(4, 1, "Lab (MI)"),
    Job(10, 1, "Wipe (MI)", ""),
    Job(20, 2, "1. Image", ""),
    Job(21, 2, "(MI)", "Office PC"),
    Job(30, 3, "2. Drivers (MI)", ""),
    Job(31, 3, "3. Reboot", ""),
    Job(40, 4, "Image", ""),
    Job(50, None, "Inventory (MI)", ""),
)
EVERY_ITEM = {"folder:2", "folder:4", "job:10", "job:30", "job:50"}


def rule(what: str, effect: Effect = "allow", who: str = "group:Staff") -> Rule:
    return Rule(who=who, what=what, effect=effect)


def rights(*rules: Rule) -> Rights:
    return rights_of(rules, ANNA, None)


def whole(*rows: Job | Folder, root_folder: str | None = None) -> JobTree:
    jobs = [row for row in rows if isinstance(row, Job)]
    folders = [row for row in rows if isinstance(row, Folder)]
    return JobTree(jobs, folders, "(MI)", root_folder)


def shown(*rules: Rule, root_folder: str | None = None) -> set[str]:
    """The items of the example that are shown, the same with all jobs read and with few."""
    tree = whole(*TREE, root_folder=root_folder)
    some = as_menus_read(
        Case(
            [row for row in TREE if isinstance(row, Job)],
            [row for row in TREE if isinstance(row, Folder)],
            "(MI)",
            root_folder,
        ),
        list(rules),
        knows_case=True,
    )
    found = [
        {entry.id for entry in items_in(MenuBuilder(each, "flat").entries(rights(*rules)))}
        for each in (tree, some)
    ]
    assert found[0] == found[1]
    return found[0]


def as_menus_read(case: Case, rules: list[Rule], *, knows_case: bool) -> JobTree:
    """The tree as the menu service reads it: tagged and ruled jobs, the others counted."""

    def tagged(job: Job) -> bool:
        tag = case.tag.strip()
        return tag in job.name if knows_case else tag.lower() in job.name.lower()

    ruled = jobs_in(rules)
    read = [job for job in case.jobs if tagged(job) or job.id in ruled]
    counted = Counter(job.folder_id for job in case.jobs if job not in read)
    return JobTree(read, case.folders, case.tag, case.root_folder, counted)


class TestTheNearestRuleWins:
    def test_nothing_said_means_no(self) -> None:
        assert shown() == set()

    def test_a_rule_for_everything_reaches_everywhere(self) -> None:
        assert shown(rule("all")) == EVERY_ITEM

    def test_a_rule_for_a_folder_reaches_all_below_it_and_nothing_else(self) -> None:
        assert shown(rule("folder:2")) == {"folder:2", "job:30"}
        assert shown(rule("folder:1")) == EVERY_ITEM - {"job:50"}

    def test_a_nearer_rule_takes_back_and_gives_again(self) -> None:
        rules = [rule("all"), rule("folder:1", "deny"), rule("folder:3"), rule("job:10")]
        assert shown(*rules) == {"job:10", "job:30", "job:50"}

    def test_one_denied_job_in_a_folder_or_below_hides_the_folder(self) -> None:
        assert shown(rule("all"), rule("job:40", "deny")) == EVERY_ITEM - {"folder:4"}
        assert shown(rule("all"), rule("job:31", "deny")) == EVERY_ITEM - {"folder:2"}
        assert shown(rule("all"), rule("folder:3", "deny")) == EVERY_ITEM - {"folder:2", "job:30"}

    def test_a_folder_is_shown_if_each_of_its_jobs_is_allowed_by_itself(self) -> None:
        assert shown(rule("job:40")) == {"folder:4"}
        assert shown(rule("job:20"), rule("job:30")) == {"job:30"}
        assert shown(rule("job:20"), rule("job:30"), rule("job:31")) == {"folder:2", "job:30"}

    def test_the_job_that_is_a_folders_title_counts_for_nothing(self) -> None:
        assert shown(rule("folder:2"), rule("job:21", "deny")) == {"folder:2", "job:30"}

    def test_rules_for_folders_above_the_root_folder_count(self) -> None:
        assert shown(rule("folder:1"), root_folder="Deploy/Office") == {"job:30"}
        assert shown(rule("all"), rule("folder:1", "deny"), root_folder="2") == set()

    def test_a_job_whose_folder_does_not_exist_is_nobodys(self) -> None:
        lost = Job(60, 99, "Lost (MI)", "")
        for allowing in (rule("all"), rule("job:60"), rule("folder:99")):
            assert forbidden_jobs(whole(*TREE, lost), rights(allowing), [lost]) == [lost]

    def test_all_rights_are_rights_to_everything(self) -> None:
        tree = whole(*TREE)
        assert len(MenuBuilder(tree, "flat").entries(ALL_RIGHTS)) == len(EVERY_ITEM)
        assert forbidden_jobs(tree, ALL_RIGHTS, [row for row in TREE if isinstance(row, Job)]) == []


class TestMenus:
    ROWS = (
        Folder(1, None, "A"), Folder(2, None, "B"), Folder(3, 2, "C"),
        Job(10, 1, "Office (MI)", ""), Job(20, 3, "Office (MI)", ""),
    )  # fmt: skip

    def test_folders_left_empty_vanish(self) -> None:
        builder = MenuBuilder(whole(*self.ROWS), "folders")
        assert builder.entries(rights(rule("folder:1"))) == (
            FolderEntry(title="A", entries=(ItemEntry(id="job:10", title="Office"),)),
        )
        assert builder.entries(rights()) == ()

    def test_a_hint_does_not_tell_of_a_hidden_twin(self) -> None:
        builder = MenuBuilder(whole(*self.ROWS), "flat")
        assert builder.entries(rights(rule("job:20"))) == (ItemEntry(id="job:20", title="Office"),)
        assert {entry.hint for entry in items_in(builder.entries())} == {"A", "B/C"}


class TestExplain:
    def explained(self, *rules: Rule) -> dict[str, tuple[bool, tuple[Rule, ...], int | None]]:
        judge = Judge(rules, ANNA, None)
        return {
            each.item.id: (
                each.decision.permitted, each.decision.rules, each.job.id if each.job else None,
            )
            for each in explain(whole(*TREE), judge)
        }  # fmt: skip

    def test_an_item_that_is_permitted_is_explained_by_the_rule_for_it(self) -> None:
        rules = [rule("all"), rule("folder:2"), rule("job:30")]
        assert self.explained(*rules) == {
            "folder:2": (True, (rules[1],), None),
            "folder:4": (True, (rules[0],), None),
            "job:10": (True, (rules[0],), None),
            "job:30": (True, (rules[2],), None),
            "job:50": (True, (rules[0],), None),
        }

    def test_one_that_is_not_is_explained_by_the_first_job_that_is_forbidden(self) -> None:
        rules = [rule("folder:2"), rule("job:31", "deny"), rule("folder:3", "deny")]
        assert self.explained(*rules) == {
            "folder:2": (False, (rules[2],), 30),
            "folder:4": (False, (), 40),
            "job:10": (False, (), 10),
            "job:30": (False, (rules[2],), 30),
            "job:50": (False, (), 50),
        }

    def test_the_first_is_so_in_the_order_in_which_they_would_be_scheduled(self) -> None:
        tree = whole(
            Folder(1, None, "x (MI)"), Folder(2, 1, "10."), Folder(3, 1, "9."), Folder(4, 3, "a"),
            Job(20, 2, "a", ""), Job(40, 4, "2.", ""), Job(41, 4, "1.", ""),
        )  # fmt: skip
        (found,) = explain(tree, Judge([], ANNA, None))
        assert found.job == Job(41, 4, "1.", "")

    def test_a_folder_whose_jobs_are_allowed_one_by_one_is_explained_by_the_first(self) -> None:
        assert self.explained(rule("job:40"))["folder:4"] == (True, (rule("job:40"),), None)

    def test_an_administrator_needs_no_rule(self) -> None:
        found = list(explain(whole(*TREE), Judge([rule("all", "deny")], ANNA, "lab")))
        assert {each.item.id for each in found} == EVERY_ITEM
        assert all(each.decision.permitted and each.decision.administrator for each in found)


def test_thousands_of_nested_folders_and_jobs_are_no_burden() -> None:
    count = 2000
    folders = [Folder(i, i - 1 or None, f"{i} (MI)") for i in range(1, count + 1)]
    jobs = [Job(i, i, f"{i} (MI)", "") for i in range(1, count + 1)]
    tree = JobTree(jobs, folders, "(MI)", None)
    rules = [rule("folder:1"), rule(f"job:{count // 2}", "deny")]
    entries = MenuBuilder(tree, "flat").entries(rights(*rules))
    assert len(entries) == (count - 1) + count // 2
    assert len(list(explain(tree, Judge(rules, ANNA, None)))) == 2 * count


WHO = ["user:anna", "user:Bob", "group:STAFF", "group:lab", "group:Staff", "group:other"]
WHAT = ["all", *(f"folder:{i}" for i in range(1, 8)), *(f"job:{i}" for i in range(1, 13))]
RULES = st.lists(
    st.builds(
        Rule,
        who=st.sampled_from(WHO),
        what=st.sampled_from(WHAT),
        effect=st.sampled_from(["allow", "allow", "deny"]),
    ),
    max_size=12,
)
ACCESSES = st.builds(
    Access,
    RULES,
    st.sampled_from([ANNA, ANNA, ANNA, Technician(name="anna"), None]),
    st.sampled_from([None, None, "Boss", "Boss", "LAB"]),
)
MENU_TYPES: tuple[MenuType, ...] = ("flat", "folders")
ITEM_IDS = [f"{kind}:{number}" for kind in ("job", "folder") for number in range(14)]


@given(cases(), ACCESSES)
@settings(max_examples=200, deadline=None)
def test_menus_are_those_of_the_reference(case: Case, access: Access) -> None:
    reference, given_rights = Reference(*case, access), rights_of(*access)
    flat, nested = (MenuBuilder(case.tree(), type_) for type_ in MENU_TYPES)
    assert plain(flat.entries(given_rights)) == plain_reference(reference.flat())
    expected = plain_reference(reference.nested(reference.root))
    assert plain(nested.entries(given_rights)) == expected


@given(cases(), RULES, st.lists(st.sampled_from([ANNA, Technician(name="Bob"), None])))
@settings(max_examples=50, deadline=None)
def test_a_builder_builds_each_menu_as_if_it_were_the_only_one(
    case: Case, rules: list[Rule], people: list[Technician | None]
) -> None:
    one = MenuBuilder(case.tree(), "folders")
    for person in people:
        given_rights = rights_of(rules, person, None)
        alone = MenuBuilder(case.tree(), "folders").entries(given_rights)
        assert one.entries(given_rights) == alone
    assert one.entries() == MenuBuilder(case.tree(), "folders").entries()


@given(cases(), ACCESSES, st.booleans(), st.sampled_from(["flat", "folders"]))
@settings(max_examples=200, deadline=None)
def test_tagged_and_ruled_jobs_and_the_number_of_the_others_are_enough_for_a_menu(
    case: Case, access: Access, knows_case: bool, type_: MenuType
) -> None:
    some = MenuBuilder(as_menus_read(case, access.rules, knows_case=knows_case), type_)
    every = MenuBuilder(case.tree(), type_)
    assert some.entries(rights_of(*access)) == every.entries(rights_of(*access))
    assert some.entries() == every.entries()


@given(cases(), ACCESSES, st.booleans())
@settings(max_examples=200, deadline=None)
def test_a_menu_shows_an_item_exactly_if_the_scheduler_permits_all_its_jobs(
    case: Case, access: Access, knows_case: bool
) -> None:
    given_rights = rights_of(*access)
    read = as_menus_read(case, access.rules, knows_case=knows_case)
    shown_ids = {entry.id for entry in items_in(MenuBuilder(read, "flat").entries(given_rights))}
    bare = case._replace(jobs=[]).tree()
    for id_ in ITEM_IDS:
        needed = bare.needed(id_)
        rows = [
            job for job in case.jobs
            if needed and (job.id in needed.job_ids or job.folder_id in needed.folder_ids)
        ]  # fmt: skip
        tree = case._replace(jobs=rows).tree()
        jobs = tree.jobs_of(id_)
        assert (id_ in shown_ids) == bool(jobs and not forbidden_jobs(tree, given_rights, jobs))


@given(cases(), ACCESSES)
@settings(max_examples=200, deadline=None)
def test_each_job_is_judged_as_by_the_reference(case: Case, access: Access) -> None:
    reference, judge = Reference(*case, access), Judge(*access)
    permissions = Permissions(case.tree(), rights_of(*access))
    for job in reference.jobs:
        decision = judge.decision(reference.levels(job))
        assert permissions.permits(job) == decision.permitted == reference.permitted(job)
        assert decision.administrator == access.administrator()
        deciding = [] if access.administrator() else reference.deciding(job)
        assert list(decision.rules) == deciding


@given(cases(), ACCESSES)
@settings(max_examples=200, deadline=None)
def test_explanations_are_those_of_the_reference(case: Case, access: Access) -> None:
    reference = Reference(*case, access)
    found = {each.item.id: each for each in explain(case.tree(), Judge(*access))}
    assert found.keys() == reference.jobs_of().keys()
    for id_, jobs in reference.jobs_of().items():
        forbidden = [job for job in jobs if not reference.permitted(job)]
        decision = found[id_].decision
        assert decision.permitted == (not forbidden)
        assert found[id_].job == (forbidden[0] if forbidden else None)
        assert decision.administrator == access.administrator()
        if forbidden:
            assert list(decision.rules) == reference.deciding(forbidden[0])
        elif not access.administrator():
            # Jobs of the folder itself have its nearest rule, if none names them.
            assert {rule.effect for rule in decision.rules} == {"allow"}
            levels = {f"{id_}", *(level for job in jobs for level in reference.levels(job))}
            assert {rule.what for rule in decision.rules} <= levels
