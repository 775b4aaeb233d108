"""Remembers how a database is laid out, so that not every transaction reads its catalogue."""

import time
from typing import Final

from express.database import Transaction
from express.schema import Layout, read_layout

_KEPT: Final = 60.0
"""Seconds after which the catalogue is read again: somebody may have upgraded the database."""


class LayoutCache:
    """The layout of one database."""

    def __init__(self) -> None:
        self._layout: Layout | None = None
        self._read_at = 0.0

    def layout(self, transaction: Transaction) -> Layout:
        """The layout, read in this transaction if it is not known.

        Raises:
            DatabaseUnavailable: a table or column that is needed is not there.
        """
        if self._layout is None or time.monotonic() - self._read_at > _KEPT:
            self._layout = read_layout(transaction)
            self._read_at = time.monotonic()
        return self._layout
