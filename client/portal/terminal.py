"""Fitting texts into the columns of a terminal. Pure functions."""

from rich.cells import cell_len, set_cell_size

ELLIPSIS = "..."


def cut(text: str, width: int) -> str:
    """The text in at most ``width`` columns; an ellipsis shows that some of it is missing."""
    if cell_len(text) <= width:
        return text
    if width <= len(ELLIPSIS):
        return set_cell_size(text, max(width, 0))
    return set_cell_size(text, width - len(ELLIPSIS)).rstrip() + ELLIPSIS


def spread(left: str, right: str, width: int) -> str:
    """One text at the left end of the line and one at the right, exactly ``width`` columns."""
    right = cut(right, max(width // 2, 0))
    room = width - cell_len(right) - (2 if right else 0)
    return set_cell_size(cut(left, room), width - cell_len(right)) + right
