"""What stands in for a part of Textual in the image does so only where it can."""

from pathlib import Path

import textual

from boot import standing_in
from boot.linux import no_palette

SMALLER = Path(no_palette.__file__).read_text()


def test_it_fits_the_textual_that_is_installed_here() -> None:
    sources = [path.read_text() for path in Path(textual.__file__).parent.rglob("*.py")]
    assert standing_in.fits(SMALLER, sources)


def test_it_fits_none_that_asks_for_more() -> None:
    assert standing_in.fits(SMALLER, ["from textual.command import Hit, Provider"])
    for source in (
        "from textual.command import Hit, Novelty",
        "import textual.command",
        "from textual import command  # textual.command",
        "def f():\n    from textual.command import Novelty",
    ):
        assert not standing_in.fits(SMALLER, [source])
