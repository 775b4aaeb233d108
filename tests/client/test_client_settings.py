"""What the boot client goes by, and who may say so."""

from pathlib import Path

import pytest

from client.settings import (
    Settings,
    WrongUseError,
    kernel_parameters,
    read_kernel_command_line,
    resolve,
    shown,
)

KERNEL = (
    "BOOT_IMAGE=vmlinuz quiet BOOTIF=01-52-54-00-ab-cd-ef "
    "imageinvoker.server=nats://kernel:4222 imageinvoker.site=kernel-site "
    'imageinvoker.item="Windows 11 Staff" imageinvoker.name=PC-KERNEL imageinvoker.timeout=0'
)


def test_nothing_said_anywhere_leaves_the_defaults() -> None:
    assert resolve(environment={}) == Settings(server=None, site=None, timeout=None)


def test_the_kernel_command_line_says_everything() -> None:
    assert resolve(environment={}, kernel=KERNEL) == Settings(
        server="nats://kernel:4222",
        site="kernel-site",
        item="Windows 11 Staff",
        name="PC-KERNEL",
        timeout=0,
        boot_card="52:54:00:ab:cd:ef",
    )


def test_the_environment_outranks_the_kernel_command_line() -> None:
    environment = {"IMAGEINVOKER_SERVER": "nats://env:1", "IMAGEINVOKER_SITE": "env-site"}
    settings = resolve(environment=environment, kernel=KERNEL)
    assert (settings.server, settings.site) == ("nats://env:1", "env-site")


def test_an_argument_outranks_everything() -> None:
    settings = resolve(
        server="arg:9",
        site="arg-site",
        timeout=7,
        item="job:1",
        name="ARG",
        environment={"IMAGEINVOKER_SERVER": "nats://env:1", "IMAGEINVOKER_SITE": "env-site"},
        kernel=KERNEL,
    )
    assert settings.server == "arg:9"
    assert (settings.site, settings.timeout, settings.item) == ("arg-site", 7, "job:1")
    assert settings.name == "ARG"


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
