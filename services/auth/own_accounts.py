"""Protection ``server``: accounts of the site."""

from bus.technicians import Technician, folded
from services.auth.accounts import Accounts
from services.auth.passwords import Passwords
from services.auth.ways import SignInRefused


class OwnAccounts:
    """Lets in who has an account of the site."""

    def __init__(self, accounts: Accounts, passwords: Passwords, nobody: str) -> None:
        """``nobody`` is the hash of a password that nobody knows."""
        self._accounts = accounts
        self._passwords = passwords
        self._nobody = nobody

    def account(self, username: str | None) -> str:
        """The folded name."""
        return folded(username or "")

    async def sign_in(self, username: str | None, password: str) -> Technician:
        """Verifies the password of an account, with as much work where there is none.

        Raises:
            SignInRefused: no such account, or another password.
            Problem: ``overloaded``.
        """
        name = self.account(username)
        account = await self._accounts.find(name)
        known = account.password_hash if account else self._nobody
        right = await self._passwords.verify(known, password, name)
        if account is None:
            raise SignInRefused("unknown account")
        if not right:
            raise SignInRefused("wrong password")
        return Technician(
            name=account.name, display_name=account.display_name, generation=account.generation
        )
