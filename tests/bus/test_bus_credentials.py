"""Files of credentials: nsc's own form, for nobody else to read, and never shown."""

import base64
import os
import stat
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from bus import credentials
from bus.claims import NO_LIMIT, VERSION, Account, ClaimsError, Limits, User, UserOfRole, sign
from bus.credentials import Credentials
from bus.door import UnusableError
from bus.nkeys import KeyPair, verified

ACCOUNT = KeyPair.generate("account")
KEY = KeyPair.generate("user")
BODY = User(version=VERSION, subs=NO_LIMIT, payload=NO_LIMIT, data=NO_LIMIT)
TOKEN = sign(ACCOUNT, KEY.public, BODY, name="menu", expires_at=int(time.time()) + 3600)
OURS = Credentials.of(TOKEN, KEY)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    file = tmp_path / "menu.creds"
    credentials.write(file, OURS)
    return file


def test_what_was_written_is_read_back(file: Path) -> None:
    read = credentials.read(file)
    assert (read.token, read.key.seed, read.name) == (TOKEN, KEY.seed, "menu")
    assert read.expires_at == OURS.expires_at > time.time()


def test_it_is_written_as_nsc_does(file: Path) -> None:
    lines = file.read_text().splitlines()
    assert lines[0] == "-----BEGIN NATS USER JWT-----"
    assert lines[1:3] == [TOKEN, "------END NATS USER JWT------"]
    assert lines[8:11] == [
        "-----BEGIN USER NKEY SEED-----",
        KEY.seed,
        "------END USER NKEY SEED------",
    ]


def test_line_ends_of_another_system_do_no_harm(file: Path) -> None:
    text = file.read_text()
    file.write_bytes(text.replace("\n", "\r\n").encode())
    assert credentials.read(file).token == TOKEN


def test_nobody_else_may_read_it(file: Path) -> None:
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert [each.name for each in file.parent.iterdir()] == ["menu.creds"]


def test_new_ones_take_the_place_of_old_ones_at_once(file: Path) -> None:
    key = KeyPair.generate("user")
    with file.open() as opened:
        credentials.write(file, Credentials.of(sign(ACCOUNT, key.public, BODY), key))
        assert KEY.seed in opened.read()
    assert credentials.read(file).key.public == key.public


def test_what_cannot_be_written_leaves_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / "taken").mkdir()
    with pytest.raises(OSError, match="taken"):
        credentials.write(tmp_path / "taken", OURS)
    assert [each.name for each in tmp_path.iterdir()] == ["taken"]


@pytest.mark.parametrize("mode", [0o644, 0o604, 0o606, 0o660, 0o601, 0o777])
def test_a_file_that_others_may_read_is_refused(file: Path, mode: int) -> None:
    file.chmod(mode)
    with pytest.raises(UnusableError, match=r"menu\.creds are open to others.*chmod 600") as caught:
        credentials.read(file)
    assert KEY.seed not in str(caught.value)


@pytest.mark.parametrize("mode", [0o400, 0o600, 0o640, 0o440])
def test_its_owner_and_a_group_may_read_it(file: Path, mode: int) -> None:
    file.chmod(mode)
    assert credentials.read(file).token == TOKEN


def test_a_file_that_is_not_there_is_named_with_the_cure(tmp_path: Path) -> None:
    with pytest.raises(UnusableError) as caught:
        credentials.read(tmp_path / "gone.creds")
    assert str(tmp_path / "gone.creds") in caught.value.cause
    assert caught.value.cure
    assert caught.value.file == tmp_path / "gone.creds"


def _other_token() -> str:
    return sign(ACCOUNT, KeyPair.generate("user").public, BODY)


def _other(letter: str) -> str:
    return "B" if letter == "A" else "A"


BROKEN: dict[str, Callable[[str], str]] = {
    "empty": lambda text: "",
    "half": lambda text: text[: len(text) // 2],
    "without a seed": lambda text: text.replace(KEY.seed, ""),
    "a broken seed": lambda text: text.replace(KEY.seed, KEY.seed[:-1] + _other(KEY.seed[-1])),
    "a seed of an account": lambda text: text.replace(KEY.seed, ACCOUNT.seed),
    "a token of another user": lambda text: text.replace(TOKEN, _other_token()),
    "a forged token": lambda text: text.replace(TOKEN, TOKEN[:-5] + "AAAAA"),
    "no text": lambda text: "\0\N{SNOWMAN}" * 50,
    "endless": lambda text: text + "x" * 100_000,
}


@pytest.mark.parametrize("how", BROKEN)
def test_a_file_with_something_else_is_refused_and_not_repeated(file: Path, how: str) -> None:
    text = BROKEN[how](file.read_text())
    file.write_text(text)
    with pytest.raises(UnusableError, match="holds no credentials") as caught:
        credentials.read(file)
    assert KEY.seed not in str(caught.value)
    assert TOKEN not in str(caught.value)
    assert caught.value.__cause__ is None


def test_the_token_of_a_role_will_do(tmp_path: Path) -> None:
    token = sign(ACCOUNT, KEY.public, UserOfRole(version=VERSION, issuer_account="A"), name="boot")
    credentials.write(tmp_path / "x", Credentials.of(token, KEY))
    assert credentials.read(tmp_path / "x").name == "boot"


def test_a_token_of_an_account_is_none_of_a_user() -> None:
    account = Account(version=VERSION, limits=Limits(), default_permissions={})
    with pytest.raises(ClaimsError):
        Credentials.of(sign(ACCOUNT, ACCOUNT.public, account), ACCOUNT)
    with pytest.raises(ClaimsError):
        Credentials.of(sign(ACCOUNT, ACCOUNT.public, BODY), ACCOUNT)


def test_they_are_never_shown() -> None:
    shown = repr(OURS) + str(OURS)
    assert KEY.seed not in shown
    assert TOKEN not in shown
    assert "menu" in shown


def test_the_proof_is_a_signature_of_the_nonce() -> None:
    proof = base64.b64decode(OURS.sign("nonce"))
    assert verified(KEY.public, proof, b"nonce")


def test_root_may_not_pass_over_the_mode_either(file: Path) -> None:
    """The mode is looked at, not tried: a service that runs as root would read anything."""
    os.chmod(file, 0o644)  # noqa: PTH101
    with pytest.raises(UnusableError):
        credentials.read(file)
