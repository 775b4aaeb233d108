"""What is told of the history, as a service asks for it and as a person reads it."""

import json
import os
import re
import statistics as exact
import subprocess
import sys
from collections.abc import AsyncIterator
from datetime import date, timedelta
from pathlib import Path
from random import Random
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

import services.monitor
from bus.events import Event
from express.connection import sqlite_dsn
from express.database import Database, Transaction
from express.dialects import DDL, Dialect
from services.monitor import tables
from services.monitor.durations import ERROR, bucket_of, seconds_of
from services.monitor.history import History
from services.monitor.statistics import (
    By,
    Statistic,
    _counting,
    _waiting,
    _within,
    statistics,
)
from tests.express.test_statements import DIALECTS, found_in, parses
from tests.monitor.history_cases import NOON, SITE, deployed, event, numbered

SINCE, UNTIL = date(2026, 11, 1), date(2026, 12, 1)
_WEEK = 7 * 86_400_000


@pytest.fixture
async def database(empty_dsn: str) -> AsyncIterator[Database]:
    made = Database(empty_dsn, create=True)
    yield made
    await made.close()


async def fill(database: Database, events: list[Event], site: str = SITE) -> None:
    history = History(database, site)
    await history.prepare()
    place = await history.claim()
    assert place is not None
    await history.apply(place, numbered(events), len(events))


async def asked(
    database: Database, by: By, since: date = SINCE, until: date = UNTIL, site: str | None = SITE
) -> dict[str, Statistic]:
    found = await database.transact(lambda tx: statistics(tx, by, since, until, site))
    assert [each.name for each in found] == sorted(each.name for each in found)
    return {each.name: each for each in found}


def rejected(number: int) -> list[Event]:
    opened, accepted = deployed(number)[:2]
    request = str(accepted.details["request"])
    return [opened, accepted, event("request_rejected", request=request, problem="name_taken")]


def right_to(found: float | None, seconds: float) -> bool:
    return found is not None and abs(found - seconds) <= ERROR * seconds * 1.000_001


@given(st.integers(101, _WEEK))
def test_a_bucket_stands_for_each_of_its_durations_to_five_percent(milliseconds: int) -> None:
    assert right_to(seconds_of(bucket_of(milliseconds)), milliseconds / 1000)


def test_durations_beyond_all_buckets_do_no_harm() -> None:
    assert seconds_of(bucket_of(10 * _WEEK)) >= _WEEK / 1000
    assert 0 < seconds_of(bucket_of(0)) <= 0.1


async def test_medians_and_percentiles_are_right_to_five_percent(database: Database) -> None:
    random = Random(7)
    waits = {
        f"job:{size}": [round(random.lognormvariate(4, 1.5), 3) + 0.2 for _ in range(size)]
        for size in (1, 2, 3, 19, 20, 21, 100)
    }
    every = [(item, waited) for item, many in waits.items() for waited in many]
    # Of some the portal is not known: they count, and have no duration.
    nameless = [each for each in deployed(9_000, item="job:1") if each.kind != "portal_opened"]
    await fill(
        database,
        [
            each
            for number, (item, waited) in enumerate(every)
            for each in deployed(number, item=item, waited=waited)
        ]
        + nameless,
    )
    found = await asked(database, "item")
    for item, many in waits.items():
        for told, share in ((found[item].median, 0.5), (found[item].p95, 0.95)):
            least = min(w for w in many if sum(each <= w for each in many) >= share * len(many))
            assert right_to(told, least), (item, share)
    assert found["job:1"].scheduled == 2


async def test_no_duration_is_told_where_none_is_known(database: Database) -> None:
    await fill(database, rejected(1))
    whole = (await asked(database, "site"))[SITE]
    assert (whole.median, whole.p95, whole.success_rate) == (None, None, 0)


async def test_deployments_are_told_by_day_item_technician_and_site(database: Database) -> None:
    waits = [5.0, 8.0, 12.0, 30.0, 600.0]
    await fill(
        database,
        [
            each
            for number, waited in enumerate(waits)
            for each in deployed(
                number,
                NOON + timedelta(days=number % 2),
                item=f"job:{number % 2}",
                technician="ann" if number < 4 else "bob",
                waited=waited,
                outcome="failed" if number == 4 else "succeeded",
            )
        ]
        + rejected(7),
    )
    whole = (await asked(database, "site"))[SITE]
    assert (whole.accepted, whole.scheduled, whole.rejected) == (6, 5, 1)
    assert (whole.finished, whole.failed, whole.withdrawn) == (4, 1, 0)
    assert whole.success_rate == pytest.approx(4 / 6)
    assert right_to(whole.median, exact.median(waits))
    assert right_to(whole.p95, 600)
    days = await asked(database, "day")
    assert {name: day.accepted for name, day in days.items()} == {"2026-11-23": 4, "2026-11-24": 2}
    items = await asked(database, "item")
    assert {name: item.scheduled for name, item in items.items()} == {"job:0": 3, "job:1": 2}
    technicians = await asked(database, "technician")
    assert (technicians["ann"].success_rate, technicians["bob"].success_rate) == (1, 0)
    assert right_to(technicians["bob"].median, 600)


async def test_only_the_days_and_the_site_asked_for_count(database: Database) -> None:
    events = [
        each
        for number in range(5)
        for each in deployed(number, NOON + timedelta(days=number))
    ]  # fmt: skip
    await fill(database, events)
    london = [
        Event(id=f"l{n}", site="london", kind=each.kind, at=each.at, details=each.details)
        for n, each in enumerate(deployed(9))
    ]
    await fill(database, london, "london")
    day = date(2026, 11, 24)
    assert set(await asked(database, "day", day, day + timedelta(days=2))) == {
        "2026-11-24",
        "2026-11-25",
    }
    everywhere = await asked(database, "site", site=None)
    assert {name: site.accepted for name, site in everywhere.items()} == {"london": 1, "main": 5}
    assert set(await asked(database, "site", site="london")) == {"london"}
    with pytest.raises(ValueError, match="one site"):
        await asked(database, "day", site=None)


@pytest.mark.parametrize("kind", ["postgres"])
async def test_a_week_of_all_sites_is_found_without_reading_the_years_before_it(
    database: Database,
) -> None:
    await fill(database, [])

    def many_days(tx: Transaction) -> None:
        tx.execute(
            "INSERT INTO ii_monitor SELECT 'site' || s, '', 0, 0, '', 0"
            " FROM generate_series(1, 20) s"
        )
        tx.execute(
            "INSERT INTO ii_rollup SELECT row_number() OVER (), 'site' || s,"
            " to_char(date '2026-12-01' - d, 'YYYY-MM-DD'), 'job:1', 'alice', k, 1, 1, 0, 1, 0, 0"
            " FROM generate_series(1, 20) s, generate_series(1, 1500) d, generate_series(1, 5) k"
        )
        tx.execute("ANALYZE ii_rollup")

    def scans(tx: Transaction) -> tuple[int, int]:
        query = "SELECT seq_scan, idx_scan FROM pg_stat_xact_user_tables WHERE relname = ?"
        ((whole, by_index),) = tx.fetch(query, "ii_rollup")
        return int(whole), int(by_index)

    def week(tx: Transaction) -> None:
        whole, by_index = scans(tx)
        found = statistics(tx, "site", date(2026, 11, 24), date(2026, 12, 1))
        assert [each.accepted for each in found] == [35] * 20
        now_whole, now_by_index = scans(tx)
        assert now_whole == whole
        assert now_by_index > by_index

    await database.transact(many_days)
    await database.transact(week)


async def test_items_have_the_title_that_they_had_when_they_were_picked_last(
    database: Database,
) -> None:
    def picked(number: int, item: str, title: str | None) -> list[Event]:
        return [
            replace(each, details=each.details | {"title": title})
            if "item" in each.details
            else each
            for each in deployed(number, item=item)
        ]

    events = picked(1, "job:1", "Old title") + picked(2, "job:1", "New\n title")
    events += picked(3, "job:2", None) + picked(4, "JOB:1", "No item")
    events += picked(5, "folder:-3", "x" * 300)
    history = History(database, SITE)
    await history.prepare()
    place = await history.claim()
    assert place is not None
    applied = await history.apply(place, numbered(events), len(events))
    london = [
        Event(id=f"l{n}", site="london", kind=each.kind, at=each.at, details=each.details)
        for n, each in enumerate(picked(6, "job:1", "Elsewhere"))
    ]
    await fill(database, london, "london")
    titles = {name: each.title for name, each in (await asked(database, "item")).items()}
    assert titles == {"job:1": "New  title", "job:2": None, "JOB:1": None, "folder:-3": "x" * 128}
    newest = numbered(picked(7, "job:1", "Newest"), len(events) + 1)
    await history.apply(applied.place, newest, newest[-1][0])
    assert (await asked(database, "item"))["job:1"].title == "Newest"
    assert (await asked(database, "item", site="london"))["job:1"].title == "Elsewhere"
    assert (await asked(database, "site"))[SITE].title is None


async def test_a_table_shows_titles_and_tells_twins_apart(tmp_path: Path) -> None:
    dsn = sqlite_dsn(tmp_path / "history.db")
    database = Database(dsn, create=True)
    titles = {"job:1": "Memory test", "job:2": "Desktop", "job:3": "Desktop", "job:4": None}
    await fill(
        database,
        [
            replace(each, details=each.details | {"title": title})
            if "item" in each.details
            else each
            for number, (item, title) in enumerate(titles.items())
            for each in deployed(number, item=item)
        ],
    )
    await database.close()
    span = ("--by", "item", "--since", "2026-11-01", "--until", "2026-12-01")
    lines = run_stats(dsn, *span, home=tmp_path).stdout.splitlines()[1:]
    shown = [re.split(" {2,}", line)[0] for line in lines]
    assert shown == ["Memory test", "Desktop (job:2)", "Desktop (job:3)", "job:4"]
    told = map(json.loads, run_stats(dsn, *span, "--json", home=tmp_path).stdout.splitlines())
    assert {line["name"]: line.get("title") for line in told} == titles


async def test_jobs_that_somebody_removed_are_neither_a_success_nor_a_failure(
    database: Database,
) -> None:
    events = deployed(1, outcome="replaced") + deployed(2) + deployed(3, outcome="failed")
    await fill(database, events)
    whole = (await asked(database, "site"))[SITE]
    assert (whole.finished, whole.failed, whole.withdrawn) == (1, 1, 1)
    assert whole.success_rate == 0.5


def run_stats(dsn: str, *arguments: str, home: Path) -> subprocess.CompletedProcess[str]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith("IMAGEINVOKER_")}
    return subprocess.run(
        [sys.executable, "-c", "import sys\nfrom cli.stats import stats\nfrom cyclopts import App\n"
         "app = App(name='stats', result_action='return_value')\napp.default(stats)\n"
         "from cli.fail import CommandError\n"
         "try:\n    sys.exit(app(sys.argv[1:]))\n"
         "except CommandError as error:\n    sys.stderr.write(str(error))\n"
         "    sys.exit(error.status)\n", *arguments],
        env=kept | {"IMAGEINVOKER_HISTORY": dsn, "XDG_DATA_HOME": str(home)},
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


async def test_people_get_a_table_and_programs_json(tmp_path: Path) -> None:
    dsn = sqlite_dsn(tmp_path / "history.db")
    database = Database(dsn, create=True)
    await fill(database, deployed(1, waited=12.0) + deployed(2, item="job:2", waited=400.0))
    await database.close()
    span = ("--since", "2026-11-01", "--until", "2026-12-01")
    table = run_stats(dsn, "--by", "item", *span, home=tmp_path)
    assert table.returncode == 0, table.stderr
    header, first, second = (line.split() for line in table.stdout.splitlines())
    assert header == [
        "ITEM", "ACCEPTED", "SCHEDULED", "REJECTED", "FINISHED", "FAILED", "WITHDRAWN", "SUCCESS",
        "MEDIAN", "P95",
    ]  # fmt: skip
    assert first[:8] == ["job:1", "1", "1", "0", "1", "0", "0", "100.0%"]
    assert second[0] == "job:2"
    for by, names in (("day", ["2026-11-23"]), ("technician", ["alice"]), ("site", ["main"])):
        told = run_stats(dsn, "--by", by, *span, "--json", home=tmp_path)
        lines = [json.loads(line) for line in told.stdout.splitlines()]
        assert [line["name"] for line in lines] == names
        assert lines[0]["accepted"] == 2
        assert lines[0]["success_rate"] == 1
        assert right_to(lines[0]["p95"], 400)


def test_what_cannot_be_told_is_a_sentence(tmp_path: Path) -> None:
    nowhere = run_stats(sqlite_dsn(tmp_path / "none.db"), home=tmp_path)
    assert (nowhere.returncode, "does not answer" in nowhere.stderr) == (4, True)
    (tmp_path / "empty.db").touch()
    empty = run_stats(sqlite_dsn(tmp_path / "empty.db"), home=tmp_path)
    assert (empty.returncode, "Has a monitor been started" in empty.stderr) == (1, True)
    unknown = run_stats("", home=tmp_path)
    assert (unknown.returncode, "Which history?" in unknown.stderr) == (2, True)
    backwards = run_stats("x", "--since", "2026-11-02", "--until", "2026-11-01", home=tmp_path)
    assert (backwards.returncode, "later" in backwards.stderr) == (2, True)
    for each in (nowhere, empty, unknown, backwards):
        assert "Traceback" not in each.stderr


def _statements() -> list[str]:
    modules = sorted(Path(services.monitor.__path__[0]).glob("*.py"))
    return [
        text
        for path in modules
        if path.name != "tables.py"
        for text in found_in(path.read_text(encoding="utf-8"))
    ]


@pytest.mark.parametrize("text", _statements())
def test_a_statement_of_the_history_reads_in_every_dialect(text: str) -> None:
    for dialect in DIALECTS.values():
        assert parses(text, dialect), f"{dialect}: {text}"
    assert not re.search(r"\b(LIMIT|TOP|RETURNING|OUTPUT|TRUE|FALSE|ILIKE|NOW|GETDATE)\b", text)


@pytest.mark.parametrize("by", get_args(By))
def test_each_statistic_reads_in_every_dialect(by: By) -> None:
    for within in (_within(1), _within(3)):
        for text in (_counting(by, within), _waiting(by, within)):
            for dialect in DIALECTS.values():
                assert parses(text, dialect), f"{dialect}: {text}"


def test_the_statements_of_the_history_are_found() -> None:
    assert len(_statements()) > 15


@pytest.mark.parametrize("dialect", DDL)
def test_the_tables_of_the_history_read_in_every_dialect(dialect: Dialect) -> None:
    for making in tables.TABLES.values():
        for statement in making:
            assert parses(statement.format_map(DDL[dialect]), DIALECTS[dialect]), statement
