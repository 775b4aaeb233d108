"""The page of figures, from what the measuring prints."""

from datetime import date

import pytest

from bench.harness import Figure, Reach
from bench.performance import BEGIN, END, PageError, Told, results, this_machine, written

FIGURES = [
    Figure("rate", "how fast", Reach(">=", 0.9)),
    Figure("lost", "how many", Reach("<=", 0)),
]
PAGE = f"# Figures\n\nBy hand.\n\n{BEGIN}\n{END}\n\nBy hand, too.\n"
MACHINE = "Machine: 2 cores."
BOTH = {"rate": Told(0.863, ">= 0.9", ok=False), "lost": Told(0.0, "<= 0", ok=True)}
MONDAY, TUESDAY = date(2026, 3, 2), date(2026, 3, 3)


def test_the_table_stands_between_the_marks_and_the_rest_is_as_it_was() -> None:
    page = written(PAGE, BOTH, FIGURES, MACHINE, MONDAY, 1260.0)
    assert page.startswith(f"# Figures\n\nBy hand.\n\n{BEGIN}\n")
    assert page.endswith(f"{END}\n\nBy hand, too.\n")
    assert (
        "| `rate` | how fast | 0.863 | >= 0.9 | **no** | `make bench FIGURE=rate` | 2026-03-02 |\n"
        "| `lost` | how many | 0 | <= 0 | yes | `make bench FIGURE=lost` | 2026-03-02 |\n"
    ) in page
    assert MACHINE in page


def test_writing_the_same_figures_again_changes_nothing() -> None:
    page = written(PAGE, BOTH, FIGURES, MACHINE, MONDAY, 1260.0)
    assert written(page, BOTH, FIGURES, MACHINE, MONDAY, 1260.0) == page


def test_a_figure_that_was_not_made_now_stays_as_it_was() -> None:
    page = written(PAGE, BOTH, FIGURES, MACHINE, MONDAY, 1260.0)
    again = written(page, {"rate": Told(1.0, ">= 0.9", ok=True)}, FIGURES, MACHINE, TUESDAY, 1260.0)
    assert "| 1 | >= 0.9 | yes | `make bench FIGURE=rate` | 2026-03-03 |" in again
    assert "| `lost` | how many | 0 | <= 0 | yes | `make bench FIGURE=lost` | 2026-03-02 |" in again


def test_how_long_all_figures_took_is_told_until_all_are_made_again() -> None:
    page = written(PAGE, BOTH, FIGURES, MACHINE, MONDAY, 1260.0)
    assert "\nAll figures together took 21 minutes, 2026-03-02.\n" in page
    some = written(page, {"rate": BOTH["rate"]}, FIGURES, MACHINE, TUESDAY, 60.0)
    assert "\nAll figures together took 21 minutes, 2026-03-02.\n" in some
    again = written(some, BOTH, FIGURES, MACHINE, TUESDAY, 1320.0)
    assert "\nAll figures together took 22 minutes, 2026-03-03.\n" in again
    assert again.count("together took") == 1
    alone = written(PAGE, {"rate": BOTH["rate"]}, FIGURES, MACHINE, MONDAY, 60.0)
    assert "together took" not in alone


def test_a_figure_that_could_not_be_made_is_told_as_one_that_falls_short() -> None:
    page = written(PAGE, {"rate": Told(None, ">= 0.9", ok=False)}, FIGURES, MACHINE, MONDAY, 1260.0)
    assert "| `rate` | how fast | none | >= 0.9 | **no** |" in page


def test_a_figure_that_there_is_no_more_leaves_the_page() -> None:
    page = written(PAGE, BOTH, FIGURES, MACHINE, MONDAY, 1260.0)
    assert "`lost`" not in written(page, {}, FIGURES[:1], MACHINE, MONDAY, 1260.0)


def test_figures_of_two_machines_do_not_stand_side_by_side() -> None:
    page = written(PAGE, BOTH, FIGURES, MACHINE, MONDAY, 1260.0)
    with pytest.raises(PageError, match="another machine"):
        written(page, {"rate": BOTH["rate"]}, FIGURES, "Machine: 64 cores.", TUESDAY, 1260.0)
    assert "64 cores" in written(page, BOTH, FIGURES, "Machine: 64 cores.", TUESDAY, 1260.0)


def test_a_trial_does_not_get_into_the_page() -> None:
    trial = {"rate": Told(2.0, ">= 0.9", ok=False, trial="5 machines")}
    with pytest.raises(PageError, match="rate: a trial"):
        written(PAGE, trial, FIGURES, MACHINE, MONDAY, 1260.0)


def test_a_page_without_a_place_for_figures_is_left_alone() -> None:
    with pytest.raises(PageError, match="lacks the line"):
        written("# Another page\n", BOTH, FIGURES, MACHINE, MONDAY, 1260.0)


def test_the_figures_are_the_last_line_that_is_printed() -> None:
    line = '{"lost": {"value": 0, "reach": "<= 0", "ok": true}}'
    assert results(f"2 cores, load 0.1\nlost: how many\n{line}\n") == {"lost": BOTH["lost"]}
    with pytest.raises(PageError, match="does not end with the figures"):
        results("There is no figure 'lots'.\n")
    with pytest.raises(PageError):
        results("")


def test_the_machine_is_told_in_one_line() -> None:
    told = this_machine()
    assert told.startswith("Machine: ")
    assert "\n" not in told
    assert "GB of memory" in told
