"""Which kernel modules go into an image, and in which order they are loaded."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from boot import elf, modules
from boot.modules import Module

NAMES = [f"m{number}" for number in range(12)]


@st.composite
def module_trees(draw: st.DrawFn) -> list[Module]:
    """Modules that need only later ones, so that none needs itself."""
    found = []
    for number, name in enumerate(NAMES):
        later = NAMES[number + 1 :]
        folder = draw(st.sampled_from(["drivers/net/ethernet", "sound/pci", "lib"]))
        found.append(
            Module(
                path=f"kernel/{folder}/{name}.ko",
                name=name,
                aliases=(f"alias-{name}",),
                depends=tuple(draw(st.sets(st.sampled_from(later)))) if later else (),
                wishes=tuple(draw(st.sets(st.sampled_from([f"alias-{each}" for each in NAMES])))),
            )
        )
    return draw(st.permutations(found))


@given(module_trees())
@settings(max_examples=150, deadline=None)
def test_the_chosen_ones_come_with_all_that_they_need_or_wish_for_and_nothing_else(
    tree: list[Module],
) -> None:
    wanted = {each.name for each in tree if each.path.startswith("kernel/drivers/net/ethernet/")}
    while True:
        more = {need for each in tree if each.name in wanted for need in each.depends}
        more |= {wish[6:] for each in tree if each.name in wanted for wish in each.wishes}
        if more <= wanted:
            break
        wanted |= more
    assert [each.name for each in modules.with_needs(tree)] == [
        each.name for each in sorted(tree, key=lambda each: each.path) if each.name in wanted
    ]


@given(module_trees())
@settings(max_examples=150, deadline=None)
def test_from_the_end_of_its_line_each_module_is_loaded_before_those_that_need_it(
    tree: list[Module],
) -> None:
    by_path = {each.path: each for each in tree}
    for line in modules.indexes(tree)["modules.dep"].decode().splitlines():
        path, _, needs = line.partition(":")
        loaded: set[str] = set()
        for each in [*reversed(needs.split()), path]:
            assert set(by_path[each].depends) <= loaded
            loaded.add(by_path[each].name)


def test_aliases_tell_modprobe_which_module_is_for_a_device() -> None:
    card = Module(path="kernel/a/e1000.ko", name="e1000", aliases=("pci:v00008086d*", "x"))
    assert (
        modules.indexes([card])["modules.alias"] == b"alias pci:v00008086d* e1000\nalias x e1000\n"
    )


def test_what_a_module_says_of_itself_is_read() -> None:
    said = [
        "license=GPL", "alias=pci:v1", "depends=mii,usb-core", "alias=pci:v2",
        "softdep=pre: crc32c post: other-thing", "firmware=some/file.bin", "depends=",
    ]  # fmt: skip
    data = made_elf({".modinfo": "\0".join(said).encode() + b"\0"})
    read = modules.read("kernel/drivers/net/usb/my-card.ko", data)
    assert read == Module(
        path="kernel/drivers/net/usb/my-card.ko",
        name="my_card",
        aliases=("pci:v1", "pci:v2"),
        depends=("mii", "usb_core"),
        wishes=("crc32c", "other-thing"),
        firmware=("some/file.bin",),
    )


def made_elf(sections: dict[str, bytes]) -> bytes:
    """A file with these sections and no more than a reader needs."""
    names = b"\0" + b"".join(name.encode() + b"\0" for name in [*sections, ".shstrtab"])
    body = b""
    rows = [(0, 0, 0, 0)]
    for name, content in [*sections.items(), (".shstrtab", names)]:
        rows.append((names.index(name.encode() + b"\0"), 1, 64 + len(body), len(content)))
        body += content
    table = b"".join(
        elf._SECTION.pack(name, kind, 0, 0, at, size, 0, 0, 1, 0) for name, kind, at, size in rows
    )
    head = elf._HEADER.pack(
        1, 62, 1, 0, 0, 64 + len(body), 0, 64, 0, 0, elf._SECTION.size, len(rows), len(rows) - 1
    )
    return b"\x7fELF\x02\x01".ljust(16, b"\0") + head[16:] + body + table


def test_the_libraries_that_a_real_file_needs_are_read() -> None:
    from msgspec import _core  # noqa: PLC0415

    assert "libc.so.6" in elf.needed(Path(_core.__file__).read_bytes())


@given(st.binary(max_size=200))
@settings(max_examples=100, deadline=None)
def test_what_is_no_elf_file_is_refused(data: bytes) -> None:
    with pytest.raises(elf.NotElfError):
        elf.section(b"\x7fELF\x02\x01"[: len(data) % 7] + data if data else b"", ".modinfo")
