"""What of Textual is left out of the image by putting something smaller in its place. Pure."""

import ast
from collections.abc import Iterable
from typing import Final

MODULE: Final = "textual.command"
FILE: Final = "textual/command.py"


def fits(stand_in: str, sources: Iterable[str]) -> bool:
    """Whether a module's source can stand in for `MODULE`, for all who import anything from it.

    A Textual that asks for more than it knew when this was written keeps its own.
    """
    there = {
        node.name for node in ast.parse(stand_in).body if isinstance(node, ast.ClassDef)
    }  # fmt: skip
    return all(_wanted(source) <= there for source in sources if MODULE in source)


def _wanted(source: str) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and node.module == MODULE:
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module == "textual":
            # The module itself: nobody knows what is asked of it.
            names |= {"*" for alias in node.names if alias.name == "command"}
        elif isinstance(node, ast.Import):
            names |= {"*" for alias in node.names if alias.name == MODULE}
    return names
