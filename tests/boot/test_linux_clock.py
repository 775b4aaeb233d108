"""How the clock of a PC comes right before any certificate is checked."""

import datetime
import ipaddress
import socket
import ssl
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from hypothesis import given, settings
from hypothesis import strategies as st

from boot.linux import clock

SENT = bytes(range(8))


def an_answer(moment: float, *, first: int = 0x24, stratum: int = 2, sent: bytes = SENT) -> bytes:
    """What a time server says, as RFC 4330 has it."""
    ntp = moment + 2_208_988_800
    seconds, fraction = int(ntp), int((ntp % 1) * (1 << 32))
    head = bytes((first, stratum)) + bytes(22) + sent + bytes(8)
    return head + struct.pack(">II", seconds % (1 << 32), fraction)


@given(st.floats(0, 4_000_000_000))
@settings(max_examples=100, deadline=None)
def test_the_time_of_an_answer_is_read_beyond_2036_as_well(moment: float) -> None:
    assert clock.answered(an_answer(moment), SENT) == pytest.approx(moment, abs=1e-3)


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        an_answer(1e9)[:47],
        an_answer(1e9, sent=bytes(8)),
        an_answer(1e9, first=0x23),
        an_answer(1e9, first=0xE4),
        an_answer(1e9, stratum=0),
        an_answer(1e9, stratum=16),
    ],
)
def test_what_is_no_good_answer_sets_no_clock(answer: bytes) -> None:
    with pytest.raises(ValueError, match=r"no answer|without the time"):
        clock.answered(answer, SENT)


def test_the_question_is_one_of_a_client_and_holds_what_is_to_be_repeated() -> None:
    question = clock.question(SENT)
    assert len(question) == 48
    assert question[0] == 0x23
    assert question[40:] == SENT


@contextmanager
def tls_server(folder: Path, begins: datetime.datetime, *, speaks: bool) -> Iterator[int]:
    """A server with a certificate that begins then, good for a day; its port."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(begins)
        .not_valid_after(begins + datetime.timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), False
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), True)
        .sign(key, hashes.SHA256())
    )
    pem = certificate.public_bytes(serialization.Encoding.PEM)
    (folder / "ca.pem").write_bytes(pem)
    (folder / "both.pem").write_bytes(
        pem
        + key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "both.pem")
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        line, _ = listener.accept()
        line.settimeout(10)
        if speaks:
            line.sendall(b'INFO {"tls_required":true}\r\n')
        try:
            context.wrap_socket(line, server_side=True).close()
        except OSError:
            line.close()

    serving = threading.Thread(target=serve)
    serving.start()
    try:
        yield listener.getsockname()[1]
    finally:
        serving.join(20)
        listener.close()


def test_a_certificate_that_is_not_valid_yet_tells_a_time_that_has_passed(tmp_path: Path) -> None:
    begins = datetime.datetime(2041, 5, 6, 7, 8, 9, tzinfo=datetime.UTC)
    with tls_server(tmp_path, begins, speaks=True) as port:
        found = clock.certificate_begins(f"tls://127.0.0.1:{port}", str(tmp_path / "ca.pem"))
    assert found == begins.timestamp()


def test_a_certificate_of_another_authority_tells_nothing(tmp_path: Path) -> None:
    begins = datetime.datetime(2041, 5, 6, tzinfo=datetime.UTC)
    other = tmp_path / "other"
    other.mkdir()
    with tls_server(other, begins, speaks=True) as port:
        pass_by = socket.create_connection(("127.0.0.1", port))
        pass_by.close()
    with (
        tls_server(tmp_path, begins, speaks=True) as port,
        pytest.raises(ssl.SSLCertVerificationError),
    ):
        clock.certificate_begins(f"tls://127.0.0.1:{port}", str(other / "ca.pem"))


def test_a_server_without_encryption_has_no_certificate_and_is_not_asked() -> None:
    assert clock.certificate_begins("nats://127.0.0.1:1", None) is None


def test_a_clock_that_stands_after_the_image_was_made_is_left_alone() -> None:
    assert not clock.not_before(int(time.time()) - 10)
