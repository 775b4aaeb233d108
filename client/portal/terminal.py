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
    right = cut(right, max(width - cell_len(left) - 2, width // 2))
    room = width - cell_len(right) - (2 if right else 0)
    return set_cell_size(cut(left, room), width - cell_len(right)) + right


def help_lines(text: str, width: int) -> list[list[str]]:
    """The parts of a help text, which three spaces part, on as many lines as they need."""
    lines: list[list[str]] = [[]]
    used = 0
    for part in filter(None, map(str.strip, text.split("   "))):
        length = cell_len(part)
        if lines[-1] and used + 3 + length > width:
            lines.append([])
            used = 0
        used += length + (3 if lines[-1] else 0)
        lines[-1].append(part)
    return lines
