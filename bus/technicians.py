"""Who has signed in, as the services of a site know them.

The auth service, or whoever manages the site's own accounts, writes a technician to the bucket
``imaging_technicians``; the menu service and the scheduler read there what is known of the name in
a session. So groups need not travel in tokens, and a group that is taken away counts at once.
"""

import hashlib
import unicodedata

from msgspec import Struct

from bus.messages import Protection, decoder


class Technician(Struct, frozen=True, kw_only=True):
    """A technician: the name as the directory spells it, and all groups, nested ones included.

    ``generation`` counts the changes of a site's own account's password: sessions that were made
    under an earlier one are void. Directories have 0.
    """

    name: str
    groups: tuple[str, ...] = ()
    display_name: str | None = None
    generation: int = 0


technician_decoder = decoder(Technician)


def folded(name: str) -> str:
    """A name of an account or a group as it is compared: in any case, in any form of Unicode."""
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold()).strip()


def key_of(name: str) -> str:
    """A name as a part of a bucket's key, which holds few characters: a hash of the folded name."""
    return hashlib.sha256(folded(name).encode()).hexdigest()[:32]


def technician_key(protection: Protection, name: str) -> str:
    """The key of a technician in the bucket, without the site."""
    return f"{protection}.{key_of(name)}"
