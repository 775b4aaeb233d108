"""Lines of a list on screens that are too narrow for them. Pure but for the widget."""

from textual.app import App, ComposeResult

from client.portal.rows import Row, Rows


class Shown(App[None]):
    """A list, and nothing else."""

    CSS = "Rows { height: 1fr; width: 1fr; }"

    def __init__(self, rows: list[Row]) -> None:
        super().__init__()
        self.rows = Rows(rows)

    def compose(self) -> ComposeResult:
        yield self.rows


async def shown(rows: list[Row], width: int) -> list[str]:
    app = Shown(rows)
    async with app.run_test(size=(width, len(rows))):
        return [app.rows.render_line(y).text for y in range(len(rows))]


async def test_a_title_comes_before_its_hint() -> None:
    rows = [("Windows 11 for staff desktops", "Deploy / Staff"), ("Ubuntu", "Deploy / Staff")]
    assert await shown(rows, 40) == [
        "> Windows 11 for staff desktops".ljust(40),
        "  Ubuntu                 Deploy / Staff ",
    ]
    wide = await shown(rows, 80)
    assert all(line.endswith("Deploy / Staff ") for line in wide)


async def test_titles_that_look_the_same_keep_the_hints_that_tell_them_apart() -> None:
    long = "Windows 11 with everything on it that one needs"
    lines = await shown([(long, "Staff"), (long, "Public")], 40)
    assert [line.split()[-1] for line in lines] == ["Staff", "Public"]
    assert all(len(line) == 40 for line in lines)
    short = "Windows 11 for every laptop"
    lines = await shown([(short, "Deploy / Staff"), (short, "Deploy / Labs")], 40)
    assert lines[0] != lines[1]
