"""The version of every part."""

__version__ = "0.1.0"
