"""Fixtures of the virtual PCs: one image for all of them, a site each."""

import fcntl
import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest

from bus.messages import Machine
from tests.buses import free_port
from tests.e2e.e2e_site import COMMAND, Site
from tests.e2e_boot.images import Image
from tests.virtual_pc import CONSOLE, HOST, Card, Pc, VirtualPc

Start = Callable[..., VirtualPc]


@pytest.fixture(scope="session")
def image(tmp_path_factory: pytest.TempPathFactory) -> Image:
    """A boot image, made once however many workers there are."""
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if os.environ.get("PYTEST_XDIST_WORKER") else base
    folder = shared / "image"
    port = shared / "port"
    with (shared / "image.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.exists():
            port.write_text(str(free_port()))
            made = subprocess.run(
                [
                    *COMMAND, "boot", "linux", "--server", f"nats://{HOST}:{port.read_text()}",
                    "--then", "local", "--iso", "--ipxe", "--quick",
                    "--append", f"{CONSOLE} imageinvoker.timeout=0",
                    "--out", str(folder),
                ],
                capture_output=True, text=True, timeout=600, check=False,
            )  # fmt: skip
            assert made.returncode == 0, made.stderr
    return Image(folder, int(port.read_text()))


@pytest.fixture
def idle_site(tmp_path: Path) -> Iterator[Site]:
    """A site that has not been started."""
    site = Site(tmp_path / "site", tmp_path / "home")
    yield site
    site.stop()


@pytest.fixture
def start(image: Image) -> Iterator[Start]:
    """Switches PCs on, straight into the image's kernel unless told otherwise."""
    with ExitStack() as running:

        def switch_on(machine: Machine, line: str, *cards: Card, **more: object) -> VirtualPc:
            pc = Pc(
                machine=machine,
                cards=cards or (Card(),),
                kernel=image.kernel,
                initramfs=image.initramfs,
                line=f"{CONSOLE} {line}",
            )
            return running.enter_context(VirtualPc(replace(pc, **more), os.environ))

        yield switch_on
