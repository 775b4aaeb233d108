"""What has been done for the menus of a site."""

from msgspec import Struct


class Tally(Struct):
    """What has been done for the menus so far, and how old the one was that was shown last."""

    ready: int = 0
    """Answers for which nothing had to be read or built."""
    waited: int = 0
    """Answers that waited, also in vain."""
    stale: int = 0
    """Answers that may be out of date, and those that could not be given."""
    builds: int = 0
    checks: int = 0
    """Questions to the database whether the job tree has changed."""
    readings: int = 0
    shared: int = 0
    """Trees that another copy had read."""
    failed_readings: int = 0
    """Times that the database could not be asked or read."""
    age: float = 0.0
    """Seconds since the menu that was shown last was known to be up to date."""
