"""Tells a machine at which site of the estate it is, by the network address that it comes from."""

from collections.abc import Callable, Mapping

from bus.caller import Caller
from bus.messages import Here, Where
from bus.problems import Problem
from bus.sites import SiteEntry, SiteMap, entries


class Whereabouts:
    """Answers for one site's bus, by the registry of all sites.

    ``address_of`` gives the network address of a caller if the bus tells it.
    """

    def __init__(self, site: str, address_of: Callable[[Caller], str | None]) -> None:
        self._site = site
        self._address_of = address_of
        self._sites: list[SiteEntry] = []
        self._map = SiteMap(())

    def changed(self, values: Mapping[str, bytes]) -> None:
        """Takes what the bucket of the registry holds."""
        self._sites = entries(values)
        self._map = SiteMap(self._sites)

    async def where(self, asked: Where, caller: Caller) -> Here:
        """The site of the machine.

        Raises:
            Problem: ``unknown_site``.
        """
        address = self._address_of(caller)
        found = self._map.site_of(address) if address else None
        if found:
            return Here(site=found.name, servers=found.servers)
        if not self._is_alone(address):
            raise _unknown(address)
        own = next((each for each in self._sites if each.name == self._site), None)
        return Here(site=self._site, servers=own.servers if own else ())

    def _is_alone(self, address: str | None) -> bool:
        """Whether there is no other site, nor a subnet in which the machine would have to be."""
        others = any(each.name != self._site for each in self._sites)
        return not others and not (address and any(each.subnets for each in self._sites))


def _unknown(address: str | None) -> Problem:
    if address is None:
        return Problem(
            "unknown_site",
            "There are several sites, and the bus does not tell at which of them this machine is. "
            "Name the site when you start the client: --site NAME, or imageinvoker.site=NAME on "
            "the kernel command line.",
        )
    return Problem(
        "unknown_site",
        f"This machine is at no known site: its network address {address} is in no site's "
        "subnets. Ask an operator to add its subnet to a site, or name the site: --site NAME.",
    )
