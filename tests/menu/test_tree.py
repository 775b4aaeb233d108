"""What the job tree means: items, their titles, their jobs, and what does not exist."""

import pytest

from engine.tree import Folder, Item, Job, JobTree, Needed, natural_key, one_line

TAG = "(MI)"


def job(id_: int, folder_id: int | None, name: str, description: str = "") -> Job:
    return Job(id_, folder_id, name, description)


def tree(*rows: Job | Folder, root_folder: str | None = None, tag: str = TAG) -> JobTree:
    jobs = [row for row in rows if isinstance(row, Job)]
    folders = [row for row in rows if isinstance(row, Folder)]
    return JobTree(jobs, folders, tag, root_folder)


def titles(tree_: JobTree) -> dict[str, str]:
    return {item.id: item.title for item in tree_.items()}


def ids(tree_: JobTree) -> set[str]:
    found = [item.id for item in tree_.items()]
    assert len(found) == len(set(found))
    return set(found)


def ids_of_jobs(tree_: JobTree, item_id: str) -> list[int]:
    jobs = tree_.jobs_of(item_id)
    assert jobs is not None
    return [job.id for job in jobs]


class TestTag:
    def test_a_name_with_the_tag_anywhere_makes_an_item(self) -> None:
        found = tree(
            job(1, None, "Office (MI)"),
            job(2, None, "(MI) Lab"),
            job(3, None, "Lib(MI)rary"),
            job(4, None, "Hidden"),
        )
        assert titles(found) == {"job:1": "Office", "job:2": "Lab", "job:3": "Library"}

    def test_upper_and_lower_case_of_the_tag_matter(self) -> None:
        assert ids(tree(job(1, None, "Office (mi)"), job(2, None, "Office (Mi)"))) == set()

    def test_another_tag_can_be_set_and_is_no_pattern(self) -> None:
        found = tree(job(1, None, "Office [.*]"), job(2, None, "Lab (MI)"), tag=" [.*] ")
        assert titles(found) == {"job:1": "Office"}

    @pytest.mark.parametrize("tag", ["", "  ", "\u200f", "\x00"])
    def test_a_tag_that_nobody_can_see_is_refused(self, tag: str) -> None:
        with pytest.raises(ValueError, match="visible"):
            tree(tag=tag)


class TestTitles:
    @pytest.mark.parametrize(
        ("name", "title"),
        [
            ("  Deploy   (MI)\t image ", "Deploy image"),
            ("(MI) a (MI) b (MI)", "a b"),
            (" (MI)(MI) ", "(MI)(MI)"),
            ("Win\x1b[2J\x00dows (MI)", "Win [2J dows"),
            ("one\u2028two\x85three (MI)", "one two three"),
            ("\u202eoffice\u202c \u2067(MI)\u200f", "office"),
            ("\u200f(MI)", "(MI)"),
            ("👩‍🔬 Lab (MI)", "👩‍🔬 Lab"),
            ("half \ud83d (MI)", "half \ufffd"),
        ],
    )
    def test_a_title_is_the_name_without_tags_on_one_clean_line(
        self, name: str, title: str
    ) -> None:
        assert titles(tree(job(1, None, name), Folder(2, None, name), job(3, 2, "x"))) == {
            "job:1": title,
            "folder:2": title,
        }

    def test_a_description_replaces_the_title_of_a_tagged_job(self) -> None:
        found = tree(job(1, None, "x (MI)", " Windows 11\r\n\tfor (MI) staff\u202e "))
        assert titles(found) == {"job:1": "Windows 11 for (MI) staff"}

    @pytest.mark.parametrize("description", ["", " \r\n", "\x00\x1b", "\u200e\u200f"])
    def test_a_description_that_shows_nothing_replaces_no_title(self, description: str) -> None:
        found = tree(
            job(1, None, "x (MI)", description),
            Folder(2, None, "y (MI)"),
            job(3, 2, "(MI)", description),
            job(4, 2, "z"),
        )
        assert titles(found) == {"job:1": "x", "folder:2": "y"}

    def test_a_title_job_gives_its_folder_a_title_and_is_no_item(self) -> None:
        found = tree(Folder(1, None, "x (MI)"), job(2, 1, " (MI) ", "Staff\nPC"), job(3, 1, "a"))
        assert titles(found) == {"folder:1": "Staff PC"}
        assert ids_of_jobs(found, "folder:1") == [3]

    def test_of_several_title_jobs_the_lowest_id_with_a_description_counts(self) -> None:
        found = tree(
            Folder(1, None, "x (MI)"),
            job(9, 1, "(MI)", "nine"),
            job(5, 1, "(MI)", " "),
            job(7, 1, "(MI)", "seven"),
            job(2, 1, "a"),
        )
        assert titles(found) == {"folder:1": "seven"}

    def test_a_title_job_speaks_for_its_own_tagged_folder_only(self) -> None:
        found = tree(
            Folder(1, None, "outer (MI)"),
            Folder(2, 1, "plain"),
            job(3, 2, "(MI)", "not shown"),
            job(4, None, "(MI)", "not shown"),
            job(5, 2, "a"),
        )
        assert titles(found) == {"folder:1": "outer"}
        assert found.title(2) == "plain"


class TestJobsOfItems:
    def test_a_tagged_job_stands_for_itself(self) -> None:
        found = tree(job(1, None, "a (MI)"), job(2, None, "b"))
        assert found.jobs_of("job:1") == [job(1, None, "a (MI)")]
        assert found.jobs_of("job:2") is None

    def test_a_tagged_folder_stands_for_all_jobs_below_depth_first_in_natural_order(self) -> None:
        found = tree(
            Folder(1, None, "x (MI)"),
            Folder(2, 1, "10. late"),
            Folder(3, 1, "2. EARLY"),
            Folder(4, 3, "deep (MI)"),
            job(10, 1, "10. x"),
            job(11, 1, "2. X (MI)"),
            job(12, 2, "1. last"),
            job(13, 3, "b"),
            job(14, 4, "c"),
            job(15, 3, "A"),
            job(16, None, "elsewhere"),
        )
        assert ids_of_jobs(found, "folder:1") == [11, 10, 15, 13, 14, 12]
        assert ids_of_jobs(found, "folder:4") == [14]
        assert found.subtree(1) == [1, 3, 4, 2]

    def test_equal_names_come_by_raw_name_and_then_by_id(self) -> None:
        found = tree(
            Folder(1, None, "(MI)"), job(5, 1, "a1"), job(3, 1, "a01"), job(4, 1, "A1"),
            job(2, 1, "a1"),
        )  # fmt: skip
        assert ids_of_jobs(found, "folder:1") == [4, 3, 2, 5]

    def test_a_tagged_folder_without_any_job_is_no_item(self) -> None:
        found = tree(Folder(1, None, "x (MI)"), Folder(2, 1, "y (MI)"), job(3, 2, "(MI)", "title"))
        assert ids(found) == set()
        assert found.jobs_of("folder:1") is None

    def test_a_tagged_job_in_a_tagged_folder_is_an_item_of_its_own_too(self) -> None:
        found = tree(Folder(1, None, "x (MI)"), Folder(2, 1, "y (MI)"), job(3, 2, "z (MI)"))
        assert ids(found) == {"folder:1", "folder:2", "job:3"}
        assert [ids_of_jobs(found, item) for item in sorted(ids(found))] == [[3], [3], [3]]

    @pytest.mark.parametrize(
        "item_id",
        [
            "", "job", "job:", "job:007", "job:+7", "job:-7", "job: 7", "job:7 ", "job:7\n",
            "job:٧", "job:7.0", "job:1_0", "Job:7", "folder:7", "job:-0", "job:folder:7",
            "job:" + "7" * 5000, "folder:" + "1" * 5000, "folder:01",
        ],
    )  # fmt: skip
    def test_an_id_in_another_spelling_is_no_item(self, item_id: str) -> None:
        found = tree(job(7, None, "x (MI)"), Folder(1, None, "y (MI)"), job(2, 1, "z"))
        assert found.jobs_of("job:7") is not None
        assert found.jobs_of("folder:1") is not None
        assert found.jobs_of(item_id) is None

    def test_every_id_of_a_database_can_be_asked_for(self) -> None:
        numbers = [0, -5, 2**31 - 1, -(2**63), 2**63 - 1]
        found = tree(*(job(number, None, "x (MI)") for number in numbers))
        assert all(ids_of_jobs(found, f"job:{number}") == [number] for number in numbers)


class TestNeeded:
    FOLDERS = (Folder(1, None, "x (MI)"), Folder(2, 1, "10."), Folder(3, 1, "9."), Folder(4, 3, ""))

    def test_a_job_needs_itself_and_a_folder_all_folders_below_it(self) -> None:
        bare = tree(*self.FOLDERS)
        assert bare.needed("job:5") == Needed((5,), ())
        assert bare.needed("folder:1") == Needed((), (1, 3, 4, 2))

    @pytest.mark.parametrize("item_id", ["folder:2", "folder:9", "folder:01", "x"])
    def test_nothing_needs_to_be_read_for_what_can_be_no_item(self, item_id: str) -> None:
        assert tree(*self.FOLDERS).needed(item_id) is None

    def test_without_its_root_folder_a_tree_needs_no_jobs(self) -> None:
        bare = tree(*self.FOLDERS, root_folder="nowhere")
        assert bare.needed("job:5") is None
        assert bare.needed("folder:1") is None

    def test_a_job_that_was_read_but_is_no_item_has_no_jobs(self) -> None:
        folders = (Folder(1, None, "top"), Folder(2, 1, "x"), Folder(3, 3, "cycle"))
        for row in (
            job(5, 2, "not tagged"),
            job(5, 2, "(MI)"),
            job(5, None, "above the root folder (MI)"),
            job(5, 3, "in a cycle (MI)"),
            job(5, 8, "in a missing folder (MI)"),
        ):
            assert tree(row, *folders, root_folder="top").jobs_of("job:5") is None
        assert ids_of_jobs(tree(job(5, 2, "x (MI)"), *folders, root_folder="top"), "job:5") == [5]


class TestWhatDoesNotExist:
    def test_cycles_and_orphans_and_their_jobs_do_not_exist(self) -> None:
        found = tree(
            Folder(1, 2, "a (MI)"),
            Folder(2, 1, "b (MI)"),
            Folder(3, 3, "itself (MI)"),
            Folder(4, 1, "hangs on a cycle (MI)"),
            Folder(5, 99, "orphan (MI)"),
            Folder(6, None, "sound (MI)"),
            *(job(100 + place, place, "x (MI)") for place in (1, 2, 3, 4, 5, 6, 98)),
        )
        assert ids(found) == {"folder:6", "job:106"}
        assert [folder.id for folder in found.folders()] == [6]
        with pytest.raises(KeyError):
            found.subtree(1)

    def test_an_id_that_two_folder_rows_claim_does_not_hang_the_tree(self) -> None:
        found = tree(Folder(1, None, "a (MI)"), Folder(1, 1, "a (MI)"), job(2, 1, "x"))
        assert ids(found) == set()


class TestWhatIsToldOfTheTree:
    FOLDERS = (Folder(1, None, "top"), Folder(2, 1, "x (MI)"), Folder(3, 3, "itself"))
    JOBS = (job(10, 2, "10. a"), job(11, 2, "9. b (MI)"), job(12, 2, "(MI)"), job(13, None, "c"),
            job(14, 3, "lost"))  # fmt: skip

    def test_jobs_that_exist_are_found_by_their_ids_but_titles_are_none(self) -> None:
        found = tree(*self.FOLDERS, *self.JOBS)
        assert [found.job(id_) for id_ in (10, 13)] == [self.JOBS[0], self.JOBS[3]]
        assert [found.job(id_) for id_ in (12, 14, 99)] == [None, None, None]
        assert tree(*self.FOLDERS, *self.JOBS, root_folder="top").job(13) is None

    def test_the_jobs_in_a_folder_come_in_the_order_to_schedule_them(self) -> None:
        assert tree(*self.FOLDERS, *self.JOBS).jobs_in(2) == [self.JOBS[1], self.JOBS[0]]

    def test_jobs_are_counted_whether_they_were_read_or_not(self) -> None:
        found = JobTree(self.JOBS, self.FOLDERS, TAG, None, {2: 5, None: 1})
        assert [found.job_count(place) for place in (2, None, 1)] == [7, 2, 0]

    def test_folders_above_the_root_folder_are_told_parents_first(self) -> None:
        found = tree(*self.FOLDERS, root_folder="2")
        assert [folder.id for folder in found.folders()] == []
        assert [folder.id for folder in found.all_folders()] == [1, 2]


class TestRootFolder:
    ROWS = (
        Folder(1, None, "Deploy (MI)"),
        Folder(2, 1, " Staff  PCs (MI) "),
        Folder(3, 2, "Office (MI)"),
        Folder(4, None, "Other (MI)"),
        Folder(5, 1, "twin"),
        Folder(6, 1, "TWIN (MI)"),
        Folder(7, 6, "only here"),
        job(10, None, "root (MI)"),
        job(11, 1, "deploy (MI)"),
        job(12, 2, "staff (MI)"),
        job(13, 3, "office (MI)"),
        job(14, 4, "other (MI)"),
        job(15, 7, "inner (MI)"),
    )

    @pytest.mark.parametrize(
        "root_folder",
        ["2", " 002 ", "Deploy/Staff PCs", "dePLOY (mi)/staff  pcs (mi)", "/deploy / staff pcs/"],
    )
    def test_only_what_lies_below_it_exists(self, root_folder: str) -> None:
        found = tree(*self.ROWS, root_folder=root_folder)
        assert found.root_found
        assert found.top == 2
        assert ids(found) == {"folder:3", "job:12", "job:13"}
        assert found.jobs_of("job:11") is None
        assert found.jobs_of("folder:2") is None

    @pytest.mark.parametrize(
        "root_folder",
        [
            "", " ", "/", "99", "Staff PCs", "Deploy/Staff", "Deploy//Staff PCs", "Deploy/twin",
            "Deploy/Staff PCs/Office/x", "²", "٢", "-2", "9" * 5000,
        ],
    )  # fmt: skip
    def test_one_that_is_missing_or_ambiguous_leaves_nothing(self, root_folder: str) -> None:
        found = tree(*self.ROWS, root_folder=root_folder)
        assert not found.root_found
        assert found.items() == []
        assert found.folders() == []
        assert found.jobs_of("job:10") is None

    def test_a_path_through_namesakes_is_found_if_one_folder_has_it(self) -> None:
        assert ids(tree(*self.ROWS, root_folder="deploy/twin/only here")) == {"job:15"}

    def test_one_in_a_cycle_is_not_found(self) -> None:
        found = tree(Folder(1, 2, "a"), Folder(2, 1, "b"), job(3, 2, "x (MI)"), root_folder="1")
        assert not found.root_found
        assert found.items() == []

    def test_without_one_the_whole_tree_exists(self) -> None:
        found = tree(*self.ROWS)
        assert found.root_found
        assert found.top is None
        assert len(found.items()) == 11


class TestPaths:
    def test_a_path_is_made_of_names_without_the_tag_from_the_root_on(self) -> None:
        rows = (
            Folder(1, None, "Deploy (MI)"),
            Folder(2, 1, " St\u202eaff\t(MI)"),
            Folder(3, 2, " "),
            Folder(4, 3, "(MI)"),
            job(5, 1, "(MI)", "A description"),
            job(6, 4, "x (MI)"),
        )
        found = tree(*rows)
        assert [found.path(place) for place in (4, None, 2)] == [
            "Deploy/Staff/#3/(MI)", "/", "Deploy/Staff",
        ]  # fmt: skip
        assert tree(*rows, root_folder="Deploy/Staff/#3/(MI)").items() == [
            Item("job:6", "x", folder_id=4)
        ]
        assert tree(*rows, root_folder="1").path(2) == "Deploy/Staff"


class TestNaturalOrder:
    @pytest.mark.parametrize(
        "names",
        [
            ["2. x", "10. x"],
            ["Office", "office 2", "OFFICE 11", "Office11"],
            ["a1b2", "a1b10", "a2"],
            ["x²", "x³"],
            ["9" * 4999, "1" + "0" * 4999, "1" + "0" * 4998 + "1"],
        ],
    )
    def test_digits_are_numbers_and_case_does_not_count(self, names: list[str]) -> None:
        keys = [natural_key(name) for name in names]
        assert keys == sorted(set(keys))

    @pytest.mark.parametrize(
        ("one", "other"), [("A007", "a7"), ("0", "000"), ("STRASSE", "straße")]
    )
    def test_spellings_of_one_name_are_equal(self, one: str, other: str) -> None:
        assert natural_key(one) == natural_key(other)


def test_one_line_leaves_plain_text_alone() -> None:
    assert one_line("Windows 11, größer (24H2)") == "Windows 11, größer (24H2)"


def test_thousands_of_nested_folders_are_no_burden() -> None:
    count = 5000
    folders = [Folder(i, i - 1 or None, f"{i} (MI)") for i in range(1, count + 1)]
    found = tree(*folders, job(1, count, "x"))
    assert len(found.items()) == count
    assert ids_of_jobs(found, "folder:1") == [1]
    assert found.path(count).count("/") == count - 1
