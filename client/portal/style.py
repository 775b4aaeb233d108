"""How the portal looks: the terminal's own colours, and reverse video for what is selected."""

from typing import Final

STYLE: Final = """
* { background: ansi_default; color: ansi_default; scrollbar-size: 0 0; }
PortalScreen { layout: vertical; overflow: hidden; }
Bar, Line, Rule, Field { height: 1; width: 1fr; }
.title, #notice, #help, #body { padding: 0 1; }
#body { height: 1fr; overflow: hidden; }
Static { height: auto; width: 1fr; }
#notice { min-height: 1; max-height: 3; }
Rows { height: 1fr; width: 1fr; }
.gap { height: 1; }
.-low .gap { display: none; }
.middle { height: 1fr; align: left middle; }
"""
