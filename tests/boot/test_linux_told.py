"""What a boot goes by: the image's own line and the kernel's command line."""

import pytest

from boot.errors import WrongInputError
from boot.linux.told import PATIENCE, told
from boot.wishes import Wishes, parsed_then, passed, quoted
from client.settings import resolve


def test_the_kernel_command_line_outranks_the_image() -> None:
    image = "imageinvoker.then=reboot imageinvoker.floor=1700000000 imageinvoker.site=london"
    boot = told(f"{image} quiet imageinvoker.then=shell BOOTIF=01-52-54-00-AA-bb-cc")
    assert (boot.then, boot.floor, boot.site) == ("shell", 1_700_000_000, "london")
    assert boot.boot_card == "52:54:00:aa:bb:cc"
    assert boot.patience == PATIENCE


def test_what_makes_no_sense_is_said_and_stops_no_boot() -> None:
    boot = told("imageinvoker.then=dance imageinvoker.network=soon")
    assert (boot.then, boot.patience) == ("local", PATIENCE)
    assert "'dance'" in boot.wrong[0]
    assert "'soon'" in boot.wrong[1]


def test_time_servers_may_be_named() -> None:
    assert told("imageinvoker.ntp=a.example,,10.0.0.1").ntp == ("a.example", "10.0.0.1")


def test_the_client_reads_in_the_image_what_the_image_was_told() -> None:
    wishes = Wishes(server="nats://10.0.0.1:4222, nats://10.0.0.2:4222", site="london")
    line = wishes.inside(1_700_000_000)
    settings = resolve(environment={}, kernel=f"{line} imageinvoker.timeout=0")
    assert settings.server == wishes.server
    assert (settings.site, settings.timeout) == ("london", 0)
    assert told(line).floor == 1_700_000_000


@pytest.mark.parametrize("text", ["", "dance", "agent", "reboot:now", "script:/no/such/file"])
def test_what_cannot_come_after_the_portal_is_refused(text: str) -> None:
    with pytest.raises(WrongInputError):
        parsed_then(text)


def test_a_server_that_makes_no_sense_is_refused() -> None:
    with pytest.raises(WrongInputError):
        passed(Wishes(server="gopher://x"))
    with pytest.raises(WrongInputError):
        quoted('a"b')


@pytest.mark.parametrize(
    ("append", "said"),
    [
        ("console=tty0 imageinvoker.item=Prüfung", "'ü' cannot stand"),
        ("console=tty0\nconsole=ttyS0", r"'\\n' cannot stand"),
        ("imageinvoker.name=$name", r"'\$' cannot stand"),
        ('imageinvoker.item="Exam Mode', "a quote is not closed"),
        ("imageinvoker.timeout=soon", "'soon' is no time-out"),
        ("imageinvoker.then=dance", "'dance' is none of"),
        ("imageinvoker.timout=0", "--append: imageinvoker.timout means nothing"),
        ("imageinvoker.password=hush", "everybody can read it there"),
    ],
)
def test_a_command_line_that_no_pc_could_go_by_is_refused(append: str, said: str) -> None:
    with pytest.raises(WrongInputError, match=said) as caught:
        passed(Wishes(server="nats://10.0.0.1:4222", append=append))
    assert "hush" not in str(caught.value)


def test_a_command_line_may_hold_all_that_the_client_takes() -> None:
    append = 'console=ttyS0,115200 imageinvoker.item="Exam Mode" imageinvoker.then=reboot'
    assert passed(Wishes(server="nats://10.0.0.1:4222", append=append)) == 0
