"""How the portal looks: in the sixteen colours of every console, and as well in none of them.

What is light on dark is written as dark on light in reverse video, so that a terminal without
colours shows it in reverse video as well.
"""

from typing import Final

from rich.style import Style

BAR: Final = Style(color="blue", bgcolor="white", reverse=True)
"""The title."""
BAR_STRONG: Final = BAR + Style(bold=True)
KEYS: Final = Style(reverse=True)
"""The line of help."""
KEYS_STRONG: Final = KEYS + Style(bold=True)
SELECTED: Final = Style(color="cyan", reverse=True)
HINT: Final = Style(color="cyan")
PLAIN: Final = Style()
FIELD: Final = Style(color="blue", bgcolor="white", reverse=True)
FIELD_AT_REST: Final = Style(underline=True)
CURSOR: Final = Style(color="black", bgcolor="white")
FULL: Final = Style(color="cyan", bgcolor="cyan")
"""A letter that is seen only where colours are not."""
EMPTY: Final = Style(color="blue")

STYLE: Final = """
* { background: ansi_default; color: ansi_default; scrollbar-size: 0 0; }
PortalScreen { layout: vertical; overflow: hidden; }
Bar, Line, Field, Progress { height: 1; width: 1fr; }
#body { height: 1fr; overflow: hidden; padding: 1 3 0 3; }
#notice { padding: 0 3 1 3; min-height: 2; max-height: 5; }
Static { height: auto; width: 1fr; }
Help { height: auto; width: 1fr; }
Rows { height: 1fr; width: 1fr; }
.gap { height: 1; }
.strong { text-style: bold; }
.hint { color: ansi_cyan; }
.good { color: ansi_bright_green; text-style: bold; }
.warn, #notice { color: ansi_bright_yellow; }
.bad { color: ansi_bright_red; text-style: bold; }
.-low .gap { display: none; }
.-low #body, .-narrow #body { padding: 0 1; }
.-low #notice, .-narrow #notice { padding: 0 1; min-height: 1; }
"""
