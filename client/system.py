"""The operating system that the client runs on: the one module that asks which it is."""

import sys

if sys.platform == "win32":
    from client import windows as system
else:
    from client import linux as system

__all__ = ("system",)
