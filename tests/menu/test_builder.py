"""How menus are presented: flat or in folders, in order, with hints; and against the reference."""

from random import Random

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from menu_cases import Case, cases, items_in, plain, plain_reference
from menu_reference import Reference

from bus.messages import Entry, FolderEntry, ItemEntry, Menu, MenuType
from engine.tree import Folder, Job, JobTree
from services.menu.builder import DEEPEST, MenuBuilder


def job(id_: int, folder_id: int | None, name: str, description: str = "") -> Job:
    return Job(id_, folder_id, name, description)


def build(tree: JobTree, menu_type: MenuType) -> tuple[Entry, ...]:
    return MenuBuilder(tree, menu_type).entries()


def menu(
    *rows: Job | Folder, type_: MenuType = "flat", root_folder: str | None = None
) -> tuple[Entry, ...]:
    jobs = [row for row in rows if isinstance(row, Job)]
    folders = [row for row in rows if isinstance(row, Folder)]
    return build(JobTree(jobs, folders, "(MI)", root_folder), type_)


def item(id_: str, title: str, hint: str = "") -> ItemEntry:
    return ItemEntry(id=id_, title=title, hint=hint)


def folder(title: str, *entries: Entry) -> FolderEntry:
    return FolderEntry(title=title, entries=entries)


@pytest.mark.parametrize("type_", ["flat", "folders"])
def test_a_tagged_job_in_a_tagged_folder_gives_exactly_two_items(type_: MenuType) -> None:
    rows = (
        Folder(1, None, "Deploy school image x (PAUSE) (MI)"),
        job(2, 1, "1. Pause"),
        job(3, 1, "Deploy school image x (MI)"),
    )
    pause = item("folder:1", "Deploy school image x (PAUSE)")
    plain = item("job:3", "Deploy school image x")
    expected: dict[MenuType, tuple[Entry, ...]] = {
        "flat": (plain, pause),
        "folders": (pause, folder("Deploy school image x (PAUSE)", plain)),
    }
    assert menu(*rows, type_=type_) == expected[type_]


@pytest.mark.parametrize("type_", ["flat", "folders"])
def test_without_items_a_menu_is_empty(type_: MenuType) -> None:
    assert menu(type_=type_) == ()
    assert menu(Folder(1, None, "x"), Folder(2, 1, "y (MI)"), job(3, 1, "z"), type_=type_) == ()
    assert menu(job(3, None, "z (MI)"), type_=type_, root_folder="nowhere") == ()


class TestFlat:
    def test_items_come_by_title_in_natural_order_wherever_they_sit(self) -> None:
        assert menu(
            Folder(1, None, "9. b (MI)"),
            job(2, 1, "10. a (MI)"),
            job(3, None, "zzz (MI)", "2. from description"),
            job(4, None, "(MI) OFFICE"),
            job(5, None, "office 1 (MI)"),
        ) == (
            item("job:3", "2. from description"),
            item("folder:1", "9. b"),
            item("job:2", "10. a"),
            item("job:4", "OFFICE"),
            item("job:5", "office 1"),
        )


class TestHints:
    def test_items_of_one_title_get_the_path_of_the_folder_they_sit_in(self) -> None:
        assert menu(
            Folder(1, None, "Deploy (MI)"),
            Folder(2, 1, "Lab"),
            Folder(3, 2, "office (MI)"),
            job(10, 1, "Office (MI)"),
            job(11, None, "x (MI)", "OFFICE"),
            job(12, 3, "Other (MI)"),
        ) == (
            item("folder:1", "Deploy"),
            item("job:11", "OFFICE", "/"),
            item("job:10", "Office", "Deploy"),
            item("folder:3", "office", "Deploy/Lab"),
            item("job:12", "Other"),
        )

    def test_titles_that_differ_in_the_raw_name_only_are_equal(self) -> None:
        assert menu(job(1, None, "Stra\u202eße  (MI)"), job(2, None, "(MI)STRASSE")) == (
            item("job:1", "Straße", "/"),
            item("job:2", "STRASSE", "/"),
        )

    def test_in_one_folder_items_of_one_title_come_by_id(self) -> None:
        found = menu(*(job(id_, None, "x (MI)") for id_ in (10, 9, 100)), Folder(1, None, "x (MI)"),
                     job(5, 1, "a"))  # fmt: skip
        assert found == tuple(
            item(id_, "x", "/") for id_ in ("folder:1", "job:9", "job:10", "job:100")
        )

    def test_below_a_root_folder_the_path_is_still_the_whole_one(self) -> None:
        rows = (
            Folder(1, None, "Deploy"),
            Folder(2, 1, "Lab"),
            job(3, 1, "x (MI)"),
            job(4, 2, "x (MI)"),
            job(5, None, "y (MI)"),
            job(6, 2, "y (MI)"),
        )
        assert menu(*rows, root_folder="Deploy") == (
            item("job:3", "x", "Deploy"),
            item("job:4", "x", "Deploy/Lab"),
            item("job:6", "y"),
        )


class TestFolders:
    def test_only_branches_that_lead_to_an_item_are_shown(self) -> None:
        assert menu(
            Folder(1, None, "used"),
            Folder(2, 1, "in between"),
            Folder(3, 1, "unused"),
            Folder(4, None, "empty"),
            job(5, 2, "x (MI)"),
            job(6, 3, "not tagged"),
            type_="folders",
        ) == (folder("used", folder("in between", item("job:5", "x"))),)

    def test_a_tagged_folder_is_a_folder_to_enter_only_if_it_holds_items(self) -> None:
        assert menu(
            Folder(1, None, "alone (MI)"),
            job(2, 1, "a"),
            Folder(3, None, "both (MI)"),
            job(4, 3, "b (MI)"),
            job(5, 3, "(MI)", "Both, described"),
            type_="folders",
        ) == (
            item("folder:1", "alone"),
            item("folder:3", "Both, described"),
            folder("Both, described", item("job:4", "b")),
        )

    def test_entries_come_by_title_and_an_item_before_a_folder_of_its_title(self) -> None:
        assert menu(
            Folder(1, None, "10. x"),
            job(2, 1, "a (MI)"),
            Folder(3, None, "2. X"),
            job(4, 3, "b (MI)"),
            job(5, None, "2. x (MI)"),
            Folder(6, None, "1."),
            job(7, 6, "c (MI)"),
            type_="folders",
        ) == (
            folder("1.", item("job:7", "c")),
            item("job:5", "2. x"),
            folder("2. X", item("job:4", "b")),
            folder("10. x", item("job:2", "a")),
        )

    def test_with_a_root_folder_the_menu_begins_with_what_is_in_it(self) -> None:
        assert menu(
            Folder(1, None, "Deploy (MI)"),
            Folder(2, 1, "Staff"),
            job(3, 2, "x (MI)"),
            job(4, 1, "y (MI)"),
            job(5, None, "z (MI)"),
            type_="folders",
            root_folder="deploy",
        ) == (folder("Staff", item("job:3", "x")), item("job:4", "y"))

    def test_a_folder_without_a_name_is_called_by_its_id(self) -> None:
        assert menu(Folder(7, None, " "), job(1, 7, "x (MI)"), type_="folders") == (
            folder("#7", item("job:1", "x")),
        )

    @pytest.mark.parametrize("depth", [DEEPEST, DEEPEST + 1, 900, 5000])
    def test_deep_trees_fit_into_a_message_with_every_item_once(self, depth: int) -> None:
        entries = menu(
            *(Folder(i, i - 1 or None, f"level {i}") for i in range(1, depth + 1)),
            *(job(i, i, f"job {i} (MI)") for i in range(1, depth + 1)),
            type_="folders",
        )
        message = Menu(version="1", type="folders", stale=False, entries=entries)
        assert msgspec.json.decode(msgspec.json.encode(message), type=Menu) == message

        for level in range(1, DEEPEST + 1):
            found = [entry for entry in entries if isinstance(entry, FolderEntry)]
            here = [entry.id for entry in entries if isinstance(entry, ItemEntry)]
            assert [entry.title for entry in found] == [f"level {level}"]
            assert here == ([f"job:{level - 1}"] if level > 1 else [])
            entries = found[0].entries
        assert entries == tuple(item(f"job:{i}", f"job {i}") for i in range(DEEPEST, depth + 1))


@given(cases())
@settings(max_examples=200, deadline=None)
def test_menus_are_those_of_the_reference(case: Case) -> None:
    tree, reference = case.tree(), Reference(*case)
    assert plain(build(tree, "flat")) == plain_reference(reference.flat())
    assert plain(build(tree, "folders")) == plain_reference(reference.nested(reference.root))


@given(cases())
@settings(max_examples=200, deadline=None)
def test_items_stand_for_the_jobs_of_the_reference(case: Case) -> None:
    tree, expected = case.tree(), Reference(*case).jobs_of()
    ids = [f"{kind}:{number}" for kind in ("job", "folder") for number in range(14)]
    assert {id_: tree.jobs_of(id_) for id_ in ids} == {id_: expected.get(id_) for id_ in ids}


@given(cases())
@settings(max_examples=100, deadline=None)
def test_the_jobs_that_are_needed_are_enough_to_know_an_item(case: Case) -> None:
    whole, bare = case.tree(), case._replace(jobs=[]).tree()
    for id_ in (f"{kind}:{number}" for kind in ("job", "folder") for number in range(14)):
        needed = bare.needed(id_)
        if needed is None:
            assert whole.jobs_of(id_) is None
            continue
        read = [j for j in case.jobs if j.id in needed.job_ids or j.folder_id in needed.folder_ids]
        assert case._replace(jobs=read).tree().jobs_of(id_) == whole.jobs_of(id_)


@given(cases(), st.randoms(use_true_random=False), st.sampled_from(["flat", "folders"]))
@settings(max_examples=100, deadline=None)
def test_a_menu_does_not_depend_on_the_order_of_the_rows(
    case: Case, random: Random, type_: MenuType
) -> None:
    expected = build(case.tree(), type_)
    random.shuffle(case.jobs)
    random.shuffle(case.folders)
    assert build(case.tree(), type_) == expected


@given(cases())
@settings(max_examples=100, deadline=None)
def test_both_menus_hold_each_item_once_on_one_printable_line_and_can_be_sent(case: Case) -> None:
    flat, nested = (build(case.tree(), type_) for type_ in ("flat", "folders"))
    items = items_in(flat)
    assert len({entry.id for entry in items}) == len(items)
    assert sorted(items_in(nested), key=lambda entry: entry.id) == sorted(
        items, key=lambda entry: entry.id
    )
    for entry in items:
        for text in (entry.title, entry.hint):
            # The joiner that holds an emoji together is no printable character by itself.
            assert text.replace("\u200d", "").isprintable()
            assert text == text.strip()
        assert entry.title
    msgspec.json.encode(Menu(version="1", type="folders", stale=False, entries=nested))
