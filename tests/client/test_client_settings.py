"""What the boot client goes by, and who may say so."""

from pathlib import Path

import pytest

from boot.linux.told import told
from client.settings import (
    KERNEL_NAMES,
    Settings,
    WrongUseError,
    kernel_parameters,
    read_kernel_command_line,
    resolve,
    shown,
)

KERNEL = (
    "BOOT_IMAGE=vmlinuz quiet BOOTIF=01-52-54-00-ab-cd-ef "
    "imageinvoker.server=tls://kernel:4222 imageinvoker.site=kernel-site "
    'imageinvoker.item="Windows 11 Staff" imageinvoker.name=PC-KERNEL imageinvoker.timeout=0 '
    "imageinvoker.machine=/etc/machine.json imageinvoker.username=ann imageinvoker.ca=/ca.pem "
    "imageinvoker.boot-credential=/credential imageinvoker.json imageinvoker.password-stdin=yes "
    "imageinvoker.clock=server"
)


def test_nothing_said_anywhere_leaves_the_defaults() -> None:
    assert resolve(environment={}) == Settings(server=None, site=None, timeout=None)


def test_the_kernel_command_line_says_everything() -> None:
    assert resolve(environment={}, kernel=KERNEL) == Settings(
        server="tls://kernel:4222",
        site="kernel-site",
        item="Windows 11 Staff",
        name="PC-KERNEL",
        timeout=0,
        machine=Path("/etc/machine.json"),
        username="ann",
        ca=Path("/ca.pem"),
        boot_credential=Path("/credential"),
        json=True,
        password_stdin=True,
        boot_card="52:54:00:ab:cd:ef",
        sets_clock=True,
    )


def test_the_kernel_command_line_holds_all_that_the_client_takes_but_what_is_secret() -> None:
    resolved = resolve(environment={}, kernel=KERNEL)
    usual = Settings()
    left = {name for name in Settings.__slots__ if getattr(resolved, name) == getattr(usual, name)}
    assert left == {"password", "unknown"}


@pytest.mark.parametrize("where", ["imageinvoker.password=hush", "imageinvoker.password"])
def test_a_password_on_the_kernel_command_line_is_refused_and_not_repeated(where: str) -> None:
    with pytest.raises(WrongUseError, match="change that password") as caught:
        resolve(environment={}, kernel=where)
    assert "hush" not in str(caught.value)


@pytest.mark.parametrize(
    "server", ["nats://ann:hush@deploy", "tls://hush@deploy", "tls://a,tls://:hush@b"]
)
def test_a_secret_in_an_address_on_the_kernel_command_line_is_refused_as_well(
    server: str,
) -> None:
    with pytest.raises(WrongUseError, match="everybody can read there") as caught:
        resolve(environment={}, kernel=f"imageinvoker.server={server}")
    assert "hush" not in str(caught.value)
    with pytest.raises(WrongUseError):
        resolve(server="tls://other", environment={}, kernel=f"imageinvoker.server={server}")
    assert resolve(environment={"IMAGEINVOKER_SERVER": "tls://hush@deploy"}).server


def test_names_that_mean_nothing_are_kept_to_be_told_without_their_values() -> None:
    kernel = "quiet imageinvoker.tiemout=0 imageinvoker.pasword=hush other.timeout=1 imageinvoker."
    settings = resolve(environment={}, kernel=kernel)
    assert settings.unknown == ("imageinvoker.tiemout", "imageinvoker.pasword", "imageinvoker.")
    assert settings.timeout is None


def test_all_names_of_the_client_and_of_our_own_boot_images_mean_something() -> None:
    of_image = "imageinvoker.then=shell imageinvoker.network=9 imageinvoker.ntp=a"
    assert told(of_image).then == "shell"
    assert resolve(environment={}, kernel=f"{KERNEL} {of_image}").unknown == ()


@pytest.mark.parametrize("name", sorted(KERNEL_NAMES - {"floor"}))
def test_every_name_stands_in_the_manual(name: str) -> None:
    docs = Path(__file__).parents[2] / "docs"
    manual = (docs / "portal.md").read_text() + (docs / "boot-images.md").read_text()
    assert f"`imageinvoker.{name}" in manual


def test_a_hyphen_in_a_name_is_as_good_as_an_underscore_as_it_is_to_the_kernel() -> None:
    settings = resolve(environment={}, kernel="imageinvoker.boot_credential=/credential")
    assert (settings.boot_credential, settings.unknown) == (Path("/credential"), ())
    with pytest.raises(WrongUseError):
        resolve(environment={}, kernel='"imageinvoker.password=a b"')


@pytest.mark.parametrize(("value", "means"), [("", True), ("=1", True), ("=off", False)])
def test_a_flag_on_the_kernel_command_line_stands_alone_or_says_yes_or_no(
    value: str, means: bool
) -> None:
    assert resolve(environment={}, kernel=f"imageinvoker.json{value}").json is means


def test_the_environment_outranks_the_kernel_command_line() -> None:
    environment = {"IMAGEINVOKER_SERVER": "tls://env:1", "IMAGEINVOKER_SITE": "env-site"}
    settings = resolve(environment=environment, kernel=KERNEL)
    assert (settings.server, settings.site) == ("tls://env:1", "env-site")


def test_an_argument_outranks_everything() -> None:
    settings = resolve(
        server="tls://arg:9",
        machine=Path("arg.json"),
        site="arg-site",
        timeout=7,
        item="job:1",
        name="ARG",
        environment={"IMAGEINVOKER_SERVER": "tls://env:1", "IMAGEINVOKER_SITE": "env-site"},
        kernel=KERNEL,
    )
    assert settings.server == "tls://arg:9"
    assert (settings.site, settings.timeout, settings.item) == ("arg-site", 7, "job:1")
    assert (settings.name, settings.machine) == ("ARG", Path("arg.json"))


def test_a_zero_given_as_an_argument_is_not_mistaken_for_nothing() -> None:
    assert resolve(timeout=0, environment={}, kernel="imageinvoker.timeout=9").timeout == 0


def test_an_empty_variable_says_nothing() -> None:
    assert resolve(environment={"IMAGEINVOKER_SITE": ""}).site is None


def test_the_password_comes_from_the_environment_and_is_never_shown() -> None:
    settings = resolve(
        environment={"IMAGEINVOKER_PASSWORD": "hush-hush", "IMAGEINVOKER_USERNAME": "ann"}
    )
    assert (settings.password, settings.username) == ("hush-hush", "ann")
    assert "hush-hush" not in repr(settings)


@pytest.mark.parametrize(
    ("arguments", "kernel", "named"),
    [
        ({"site": "Not A Site"}, "", "--site"),
        ({"server": "http://web"}, "", "--server"),
        ({"server": "nats://host:port"}, "", "--server"),
        ({"server": " , "}, "", "--server"),
        ({"timeout": -1}, "", "--timeout"),
        ({"timeout": 86_401}, "", "--timeout"),
        ({}, "imageinvoker.timeout=soon", "imageinvoker.timeout on the kernel command line"),
        ({}, "imageinvoker.timeout=²", "imageinvoker.timeout on the kernel command line"),
        ({}, "imageinvoker.json=perhaps", "imageinvoker.json on the kernel command line"),
        ({}, "imageinvoker.clock=sever", "imageinvoker.clock on the kernel command line"),
        ({}, "imageinvoker.site=UPPER", "imageinvoker.site on the kernel command line"),
    ],
)
def test_what_makes_no_sense_is_refused_by_name(
    arguments: dict[str, str], kernel: str, named: str
) -> None:
    with pytest.raises(WrongUseError, match=named):
        resolve(environment={}, kernel=kernel, **arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "server",
    ["host", "host:4222", "nats://a:1,nats://b:2", "tls://host", "wss://host:443", "[::1]:4222"],
)
def test_every_usual_address_of_a_server_is_taken(server: str) -> None:
    assert resolve(server=server, environment={}).server == server


@pytest.mark.parametrize(
    ("text", "parameters"),
    [
        ("", []),
        ("  quiet\n", [("quiet", "")]),
        ('a="b c" d', [("a", "b c"), ("d", "")]),
        ('"a=b c" d=e', [("a", "b c"), ("d", "e")]),
        ("a=b=c", [("a", "b=c")]),
        ('a="never closed', [("a", "never closed")]),
        ("a=1 a=2", [("a", "1"), ("a", "2")]),
    ],
)
def test_the_kernels_rules_of_quoting_hold(text: str, parameters: list[tuple[str, str]]) -> None:
    assert list(kernel_parameters(text)) == parameters


@pytest.mark.parametrize(
    ("server", "seen"),
    [
        ("nats://ann:hush@host:4222", "nats://host:4222"),
        ("token@host, tls://t@b:1", "host, tls://b:1"),
        ("nats://p@ss@host", "nats://host"),
        ("nats://host:4222", "nats://host:4222"),
    ],
)
def test_what_is_secret_in_an_address_is_not_shown(server: str, seen: str) -> None:
    assert shown(server) == seen
    assert "hush" not in repr(Settings(server=server))


def test_the_last_of_several_kernel_parameters_counts() -> None:
    kernel = "imageinvoker.site=one imageinvoker.site=two"
    assert resolve(environment={}, kernel=kernel).site == "two"


def test_a_system_without_a_kernel_command_line_has_an_empty_one(tmp_path: Path) -> None:
    assert read_kernel_command_line(tmp_path / "cmdline") == ""
    (tmp_path / "cmdline").write_bytes(b"quiet \xff\n")
    assert read_kernel_command_line(tmp_path / "cmdline").startswith("quiet ")
