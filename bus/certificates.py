"""Why a server's certificate is not believed, told apart by what mends it."""

import ssl
from typing import Final, Literal

CertificateTrouble = Literal["expired", "not_yet_valid", "other_authority", "wrong_name", "unfit"]

_TROUBLES: Final[dict[int, CertificateTrouble]] = {
    2: "other_authority",  # its issuer is not known
    7: "other_authority",  # an authority of that name, but not the one that has signed it
    9: "not_yet_valid",
    10: "expired",
    18: "other_authority",  # it has signed itself
    19: "other_authority",  # its chain ends at an authority that is not believed
    20: "other_authority",
    21: "other_authority",
    62: "wrong_name",
    64: "wrong_name",  # of an address
}
"""By the numbers of OpenSSL, ``openssl/x509_vfy.h``."""


def why(error: ssl.SSLCertVerificationError) -> CertificateTrouble:
    """What is wrong with the certificate; ``unfit`` where it is something else than the usual."""
    code = getattr(error, "verify_code", None)  # an error that Python itself raises has none
    return _TROUBLES.get(code, "unfit") if code else "unfit"
