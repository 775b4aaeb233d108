"""Stands in the place of Textual's command palette in the image.

The portal shows none (`ENABLE_COMMAND_PALETTE`), and to load it, with the widgets that nothing else
needs, is a quarter of the portal's start. Textual only asks for these names when it is loaded; what
is in them is used by the palette alone.
"""


class CommandListItem:
    """A command."""


class Provider:
    """Has commands."""


class SimpleProvider(Provider):
    """Has some."""


class Hit:
    """A command that was found."""


class DiscoveryHit:
    """A command that may be found."""


class Hits:
    """Those that were found."""


class CommandPalette:
    """Finds commands; there are none."""
