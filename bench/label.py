"""`python bench/label.py`: the least a Textual program can be, a label."""

from textual.app import App, ComposeResult
from textual.widgets import Label


class LabelApp(App[None]):
    """Shows one label."""

    def compose(self) -> ComposeResult:
        """Told by Textual."""
        yield Label("Nothing but this label")


if __name__ == "__main__":
    LabelApp().run()
