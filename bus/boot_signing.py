"""Signs boot credentials, and tells those that the estate's boot key has signed from all others."""

from bus.boot_credential import (
    BootCredential,
    CredentialRefused,
    check_time,
    encoded,
    parts,
    to_sign,
)
from bus.nkeys import KeyPair, verified


def issue(key: KeyPair, credential: BootCredential) -> str:
    """The boot credential of an image, signed by the estate's boot key.

    Raises:
        ValueError: it says what none may say, such as an id of no image.
    """
    text = to_sign(credential)
    return f"{text}.{encoded(key.sign(text.encode()))}"


class BootVerifier:
    """Looks at boot credentials for one estate."""

    def __init__(self, estate: str, boot_key: str) -> None:
        """Takes the estate's name and the public text of its boot key."""
        self._estate = estate
        self._key = boot_key

    def verify(self, token: str, now: float) -> BootCredential:
        """What a good credential says, at this moment in seconds since 1970.

        Whether its image is revoked is for the caller to see.

        Raises:
            CredentialRefused: it is not good; all its reasons but ``revoked``.
        """
        text, credential, signature = parts(token)
        if credential.estate != self._estate:
            raise CredentialRefused("other_estate")
        if not verified(self._key, signature, text.encode()):
            raise CredentialRefused("forged")
        check_time(credential, now)
        return credential
