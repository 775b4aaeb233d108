"""What servers of an estate are told, with words in the place of keys and tokens: an example.

``python -m estate.example deploy/nats/estate`` writes it; a test holds that it is so.
"""

import sys
from pathlib import Path

import msgspec

from estate import nats_conf, permissions
from estate.accounts import BOOT, LEAF, Trust
from estate.nats_conf import LEAF_PORT, ROUTE_PORT, HubServer, Place, Site
from estate.permissions import HOLDERS, HUB, HUB_HOLDERS

_SITE = "campus"
_HUBS = ("hub1.example", "hub2.example", "hub3.example")


def example() -> dict[str, str]:
    """The files of the example, by name."""
    site = Site(
        name=_SITE,
        trust=_trust("CAMPUS", "AUTH"),
        account="PUBLIC-KEY-OF-CAMPUS",
        sentinel="TOKEN-OF-NOBODY",
        hub=tuple(f"{host}:{LEAF_PORT}" for host in _HUBS),
        place=Place(),
    )
    hub = HubServer(
        name=f"{HUB}-1",
        trust=_trust("HUB"),
        routes=tuple(f"{host}:{ROUTE_PORT}" for host in _HUBS[1:]),
    )
    allowed = {
        **{f"{_SITE} {who}": permissions.of(_SITE, who) for who in HOLDERS},
        f"{_SITE} callout": permissions.callout(_SITE),
        f"{_SITE} system": permissions.system(_SITE, "PUBLIC-KEY-OF-CAMPUS"),
        f"{_SITE} {BOOT} clients": permissions.boot(_SITE),
        "nobody": permissions.sentinel(),
        **{f"{HUB} {who}": permissions.of_hub(who) for who in HUB_HOLDERS},
        f"{HUB} {LEAF} nodes": permissions.leaf(),
    }
    told = msgspec.json.format(msgspec.json.encode(allowed), indent=2).decode()
    return {
        "site.conf": nats_conf.site_server(site),
        "hub.conf": nats_conf.hub_server(hub),
        "permissions.json": told + "\n",
    }


def write(folder: Path) -> None:
    """Writes the files of the example."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in example().items():
        (folder / name).write_text(text, encoding="utf-8")


def _trust(*accounts: str) -> Trust:
    return Trust(
        operator="TOKEN-OF-THE-OPERATOR",
        system_account="PUBLIC-KEY-OF-SYS",
        accounts={f"PUBLIC-KEY-OF-{name}": f"TOKEN-OF-{name}" for name in ("SYS", *accounts)},
    )


if __name__ == "__main__":
    write(Path(sys.argv[1]))
