"""All that is measured, in the order in which it is."""

from pathlib import Path

from bench import (
    callout,
    client_memory,
    cold_visit,
    event_backlog,
    first_screen,
    history_stats,
    hub_monitor,
    login_burst,
    menu_build,
    menu_change,
    monitor_rate,
    schedule_events,
    schedule_folder,
    service_memory,
    show_rate,
    show_rights,
    show_secured,
    storm,
    welcome_computers,
)
from bench.harness import Run


def runs(machines: int = storm.MACHINES, report: Path | None = None) -> tuple[Run, ...]:
    """Every run; the storm has so many machines, and its report goes to this file."""
    return (
        show_rate.RUN,
        show_rights.RUN,
        show_secured.RUN,
        cold_visit.RUN,
        welcome_computers.ON_POSTGRES,
        welcome_computers.ON_SQLITE,
        login_burst.RUN,
        callout.RUN,
        menu_build.RUN,
        menu_change.RUN,
        schedule_folder.ON_SQLITE,
        schedule_folder.ON_POSTGRES,
        schedule_events.RUN,
        storm.run(machines, report),
        service_memory.RUN,
        monitor_rate.ON_SQLITE,
        monitor_rate.ON_POSTGRES,
        hub_monitor.RUN,
        event_backlog.RUN,
        history_stats.OF_ONE_SITE,
        history_stats.OF_ALL_SITES,
        first_screen.RUN,
        client_memory.RUN,
    )
