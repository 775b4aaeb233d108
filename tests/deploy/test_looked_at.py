"""What operators are told to look at is what there is."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_every_loop_of_the_monitor_that_may_be_amiss_is_named_to_operators() -> None:
    code = "".join(each.read_text("utf-8") for each in (ROOT / "services/monitor").glob("*.py"))
    loops = set(re.findall(r'\bLoop\(\s*"([^"]+)"', code))
    page = (ROOT / "docs/deploying.md").read_text(encoding="utf-8")
    (row,) = re.findall(r"^\| `/readyz`.*$", page, re.MULTILINE)
    named = set(re.findall(r"`([^`]+)`", row)) - {"/readyz"}
    assert len(loops) > 1
    assert named == loops
