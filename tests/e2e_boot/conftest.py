"""Fixtures of the virtual PCs: one image for all of them, a site each."""

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest

from bus.messages import Machine
from tests.buses import free_port
from tests.e2e.e2e_site import Site
from tests.e2e_boot.images import Image, make
from tests.virtual_pc import CONSOLE, Card, Pc, VirtualPc

Start = Callable[..., VirtualPc]


@pytest.fixture(scope="session")
def image(tmp_path_factory: pytest.TempPathFactory) -> Image:
    """A boot image, made once however many workers there are, in a folder without any package."""
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if os.environ.get("PYTEST_XDIST_WORKER") else base
    port = shared / "port"
    with (shared / "image.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not port.exists():
            port.write_text(str(free_port()))
        image = Image(shared / "image", shared / "packages", int(port.read_text()))
        if not image.folder.exists():
            made = make(*image.wishes, "--out", str(image.folder))
            assert made.returncode == 0, made.stderr
    return image


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
