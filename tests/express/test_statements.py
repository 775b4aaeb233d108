"""Every statement is one that every kind of server can read.

The statements are found in the source, not listed: each string and each formatted string in
`express` that begins like SQL. What is formatted in stands for a name or a value.
"""

import ast
import re
from itertools import product
from pathlib import Path

import pytest
import sqlglot
from sqlglot.errors import ParseError

import express
from bus.machines import Identity
from express.computers import candidates_query, details_query
from express.dialects import DDL, Dialect
from express.schedules import locking
from express.schema import Layout, Owner, statements

pytestmark = pytest.mark.express

DIALECTS: dict[Dialect, str] = {"sqlite": "sqlite", "postgres": "postgres", "mssql": "tsql"}
PACKAGE = Path(express.__file__).parent
_VERB = re.compile(r"\s*(SELECT|INSERT|UPDATE|DELETE|MERGE|WITH|CREATE|ALTER|DROP|SET|EXEC)\b")
# PostgreSQL's own time-out is set on PostgreSQL alone.
_ONE_DIALECT = {"SET statement_timeout": "postgres"}


def text_of(node: ast.AST) -> str | None:
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(text_of(part) or "x" for part in node.values)
    return None


def found_in(source: str) -> list[str]:
    tree = ast.parse(source)
    inner = {
        id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr)
        for part in node.values
    }  # fmt: skip
    texts = [text_of(node) for node in ast.walk(tree) if id(node) not in inner]
    return [text for text in texts if text and _VERB.match(text)]


def cases() -> list[object]:
    return [
        pytest.param(text, id=f"{path.stem}-{number}")
        for path in sorted(PACKAGE.glob("*.py"))
        for number, text in enumerate(found_in(path.read_text(encoding="utf-8")))
    ]


def parses(text: str, dialect: str) -> bool:
    try:
        (statement,) = sqlglot.parse(text, read=dialect)
    except (ParseError, ValueError):
        return False
    # What sqlglot does not understand it hands through as a command.
    return statement is not None and not isinstance(statement, sqlglot.exp.Command)


@pytest.mark.parametrize("text", cases())
def test_a_statement_reads_in_every_dialect(text: str) -> None:
    only = next((name for start, name in _ONE_DIALECT.items() if text.startswith(start)), None)
    for dialect in [only] if only else DIALECTS.values():
        assert parses(text, dialect), f"{dialect}: {text}"


@pytest.mark.parametrize("text", cases())
def test_a_statement_uses_no_words_of_one_server_alone(text: str) -> None:
    assert not re.search(r"\b(LIMIT|TOP|RETURNING|OUTPUT|TRUE|FALSE|ILIKE|NOW|GETDATE)\b", text)


def test_the_statements_are_found() -> None:
    source = 'A = "SELECT 1"\nB = f"DELETE FROM {t} " f"WHERE a IN ({m})"\nC = "no SQL"\n'
    assert found_in(source) == ["SELECT 1", "DELETE FROM x WHERE a IN (x)"]
    assert not parses("SELECT FROM WHERE", "tsql")
    assert len(cases()) > 20


@pytest.mark.parametrize("file", sorted(path.name for path in (PACKAGE / "sql").glob("*.sql")))
@pytest.mark.parametrize("dialect", DDL)
def test_a_file_of_sql_reads_in_its_dialect(file: str, dialect: Dialect) -> None:
    found = statements(file, dialect)
    assert found
    for text in found:
        assert parses(text, DIALECTS[dialect]), text
        assert not re.search(r"\{\w+\}", text)


@pytest.mark.parametrize("dialect", DIALECTS)
def test_what_is_made_for_a_layout_reads_in_every_dialect(dialect: Dialect) -> None:
    full = Identity(uuid="1" * 31 + "2", serial="s1", asset_tag="a1", macs=("001122334455",) * 2)
    owner: tuple[Owner | None, ...] = ("hardware", "computer", None)
    for uuid, serial, asset_tag, nics in product(owner, owner, owner, (True, False)):
        owners = {"uuid": uuid, "serial_num": serial, "asset_tag": asset_tag}
        present = {name: table for name, table in owners.items() if table}
        layout = Layout(
            dialect=dialect, owners=present, sizes={}, nics=nics,
            hardware="hardware" in present.values(),
        )  # fmt: skip
        query, values = candidates_query(layout, [full] * 3)
        assert query.count("?") == len(values)
        assert not query or parses(query, DIALECTS[dialect]), query
        assert parses(details_query(layout, 3), DIALECTS[dialect])


@pytest.mark.parametrize("dialect", DIALECTS)
def test_what_takes_locks_reads_in_its_dialect(dialect: Dialect) -> None:
    for count in (1, 2, 16):
        statement = locking(dialect, count)
        assert statement.count("?") == count
        assert parses(statement, DIALECTS[dialect]), statement
