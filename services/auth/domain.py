"""Protection ``domain``: accounts of an Active Directory domain."""

import time
from collections.abc import Callable

import nats.js.errors
from nats.js.kv import KeyValue

from bus import subjects
from bus.messages import encode
from bus.option_store import LiveOptions
from bus.options import Options
from bus.technicians import Technician, folded, technician_key
from services.auth.directory import Directory, DirectorySettings, account_name
from services.auth.metrics import Answer
from services.auth.ways import DirectoryUnavailable, SignInRefused


class Domain:
    """Lets in whom the directory knows, and tells the other services in which groups they are."""

    def __init__(
        self,
        options: LiveOptions,
        technicians: KeyValue,
        site: str,
        observe: Callable[[Answer, float], None],
    ) -> None:
        """Takes the bucket of the technicians; ``observe`` is told how long each answer took."""
        self._options = options
        self._technicians = technicians
        self._site = site
        self._observe = observe
        self._directory: Directory | None = None
        self._settings: DirectorySettings | None = None

    def close(self) -> None:
        """Ends what is under way."""
        if self._directory:
            self._directory.close()

    def account(self, username: str | None) -> str:
        """The name of the account in the domain, whichever way it is written."""
        settings = settings_of(self._options.current)
        return account_name(username or "", settings) if settings else folded(username or "")

    async def sign_in(self, username: str | None, password: str) -> Technician:
        """Asks the directory, and keeps what it says of the technician, but not the password.

        Raises:
            SignInRefused: the directory does not accept it.
            DirectoryUnavailable: it cannot be asked, or no domain is set.
        """
        technician = await self._ask(username or "", password)
        key = subjects.site_key(self._site, technician_key("domain", technician.name))
        value = encode(technician)
        if await self._kept(key) != value:
            await self._technicians.put(key, value)
        return technician

    async def _ask(self, username: str, password: str) -> Technician:
        answer: Answer = "unavailable"
        began = time.perf_counter()
        try:
            technician = await self._asked().sign_in(username, password)
            answer = "known"
        except SignInRefused:
            answer = "refused"
            raise
        finally:
            self._observe(answer, time.perf_counter() - began)
        return technician

    def _asked(self) -> Directory:
        settings = settings_of(self._options.current)
        if settings is None:
            raise DirectoryUnavailable("no domain is set: imageinvoker options set domain NAME")
        if self._directory is None or self._settings != settings:
            self.close()
            self._directory, self._settings = Directory(settings), settings
        return self._directory

    async def _kept(self, key: str) -> bytes | None:
        try:
            return (await self._technicians.get(key)).value
        except nats.js.errors.KeyNotFoundError:
            return None


def settings_of(options: Options) -> DirectorySettings | None:
    """What the options say of the directory; None where they name no domain."""
    if options.domain is None:
        return None
    return DirectorySettings(
        domain=options.domain,
        controllers=options.domain_controllers,
        ca_file=options.domain_ca,
        clear_text=options.send_domain_passwords_in_clear_text,
    )
