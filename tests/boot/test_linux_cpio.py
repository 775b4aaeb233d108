"""Archives for the kernel, and the tree that they are written from."""

import stat

from hypothesis import given, settings
from hypothesis import strategies as st

from boot import cpio
from boot.tree import Tree, placed

NAMES = st.text("abcdefgh-._", min_size=1, max_size=6).filter(lambda name: name.strip("."))
PATHS = st.lists(NAMES, min_size=1, max_size=4).map("/".join)


def read(data: bytes) -> list[tuple[str, int, int, bytes]]:
    """An archive as it is described: name, mode, time and content of each file."""
    found, at = [], 0
    while True:
        assert data[at : at + 6] == b"070701"
        fields = [int(data[at + 6 + 8 * n : at + 14 + 8 * n], 16) for n in range(13)]
        mode, uid, gid, mtime, size, length = (fields[n] for n in (1, 2, 3, 5, 6, 11))
        assert (uid, gid) == (0, 0)
        name = data[at + 110 : at + 110 + length - 1].decode()
        start = at + (110 + length + 3) // 4 * 4
        if name == "TRAILER!!!":
            return found
        found.append((name, mode, mtime, data[start : start + size]))
        at = start + (size + 3) // 4 * 4


@given(st.dictionaries(PATHS, st.binary(max_size=20), max_size=8))
@settings(max_examples=150, deadline=None)
def test_what_was_put_in_comes_out_below_its_folders_whatever_the_order(
    files: dict[str, bytes],
) -> None:
    files = {
        path: content
        for path, content in files.items()
        if not any(other.startswith(f"{path}/") for other in files)
        and path.split("/")[0] not in {"lib", "bin"}
    }
    trees = Tree(), Tree()
    for path, content in files.items():
        trees[0].file(path, content)
    for path, content in reversed(files.items()):
        trees[1].file(path, content)
    first, second = (b"".join(cpio.archive(tree, 1_700_000_000)) for tree in trees)
    assert first == second
    assert len(first) % 512 == 0
    entries = read(first)
    assert {name: data for name, mode, _, data in entries if stat.S_ISREG(mode)} == files
    seen: set[str] = {""}
    for name, _, mtime, _ in entries:
        assert name.rpartition("/")[0] in seen
        assert mtime == 1_700_000_000
        seen.add(name)


def test_links_programs_and_secrets_keep_their_modes() -> None:
    tree = Tree()
    tree.link("bin", "usr/bin")
    tree.file("init", b"x", 0o755)
    tree.file("etc/secret", b"y", 0o600)
    modes = {name: (mode, data) for name, mode, _, data in read(b"".join(cpio.archive(tree, 0)))}
    assert modes["bin"] == (stat.S_IFLNK | 0o777, b"usr/bin")
    assert modes["init"][0] == stat.S_IFREG | 0o755
    assert modes["etc/secret"][0] == stat.S_IFREG | 0o600


def test_what_packages_keep_in_the_root_is_placed_below_usr() -> None:
    assert placed("lib/x86_64-linux-gnu/libc.so.6") == "usr/lib/x86_64-linux-gnu/libc.so.6"
    assert placed("/bin/busybox") == "usr/bin/busybox"
    assert placed("bin") == "bin"
    assert placed("etc/hosts") == "etc/hosts"
