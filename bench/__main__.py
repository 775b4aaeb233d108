"""`python -m bench [FIGURE ...]`: makes all figures, or those named."""

import sys
from typing import Final

from bench import (
    client_memory,
    event_backlog,
    first_screen,
    history_stats,
    login_burst,
    menu_build,
    menu_change,
    monitor_rate,
    schedule_events,
    schedule_folder,
    show_rate,
    show_rights,
)
from bench.harness import as_json, choose, here, make

FIGURES: Final = (
    show_rate.FIGURE,
    show_rights.FIGURE,
    login_burst.FIGURE,
    menu_build.FIGURE,
    menu_change.FIGURE,
    schedule_folder.ON_SQLITE,
    schedule_folder.ON_POSTGRES,
    schedule_events.FIGURE,
    monitor_rate.ON_SQLITE,
    monitor_rate.ON_POSTGRES,
    event_backlog.FIGURE,
    history_stats.OF_ONE_SITE,
    history_stats.OF_ALL_SITES,
    first_screen.FIGURE,
    client_memory.FIGURE,
)
_UNKNOWN: Final = 2


def main(names: list[str]) -> int:
    """The exit status: 0 whatever the figures are, 2 for a name that no figure has."""
    try:
        figures = choose(FIGURES, names)
    except KeyError as error:
        known = "".join(f"\n  {figure.name:26}{figure.about}" for figure in FIGURES)
        sys.stderr.write(f"There is no figure {error}. These there are:{known}\n")
        return _UNKNOWN
    print(here(), flush=True)
    made = make(figures, lambda line: print(line, flush=True))
    print(as_json(made), flush=True)
    return 0


sys.exit(main(sys.argv[1:]))
