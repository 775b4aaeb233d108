"""The domain controller, for the tests of signing in with it."""

from tests.samba import controller

__all__ = ["controller"]
