"""The client in a Windows PE image: a real one as far as wimlib goes, with real wheels."""

import json
import subprocess
import sys
import time
import zipfile
from importlib.metadata import version
from pathlib import Path

import pytest
from winpe_parts import (
    I386,
    capture,
    embeddable,
    extracted,
    listing,
    program,
    stub_wheel,
    windows_pe,
)

from boot.errors import MissingToolError, OutputError
from boot.winpe import Contents, NotWindowsPeError, into_folder, into_wim
from boot.winpe_check import look_into
from boot.winpe_python import PythonError, examine_python
from boot.winpe_wheels import WheelMissingError, fetch_wheels, unpack
from boot.winpe_wim import NoSuchIndexError, NotAnImageError, read_wim
from bus.__about__ import __version__
from bus.boot_credential import BootCredential
from bus.boot_signing import issue
from bus.nkeys import KeyPair
from tests.secured import Authority

SERVER = "tls://deploy.example:4222"


@pytest.fixture(scope="session")
def real_wheels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The client's packages for Windows, from the index."""
    folder = tmp_path_factory.mktemp("wheels")
    fetch_wheels((3, 11), folder)
    return folder


@pytest.fixture(scope="session")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Packages of the same names with nothing in them, where it is not they that count."""
    folder = tmp_path_factory.mktemp("stubs")
    for name in ("textual", "msgspec", "cyclopts", "nats-py"):
        stub_wheel(folder, name, version(name))
    return folder


@pytest.fixture
def python(tmp_path: Path) -> Path:
    return embeddable(tmp_path / "python")


@pytest.fixture
def wim(tmp_path: Path) -> Path:
    return capture(windows_pe(tmp_path / "pe"), tmp_path / "boot.wim")


@pytest.fixture
def contents(python: Path, wheels: Path) -> Contents:
    return Contents(python=python, server=SERVER, site="london", wheels=wheels)


def credential(file: Path, *, days: float = 90) -> Path:
    now = int(time.time())
    said = BootCredential(
        estate="tests", image="winpe", issued=now - 60, expires=now + int(days * 86_400)
    )
    file.write_text(issue(KeyPair.generate("account"), said) + "\n")
    return file


def states(wim: Path, index: int = 1) -> dict[str, str]:
    return {seen.check: seen.state for seen in look_into(read_wim(wim), index)}


def test_wheels_for_windows_come_in_the_versions_that_are_installed_here(
    real_wheels: Path,
) -> None:
    names = [wheel.name for wheel in real_wheels.glob("*.whl")]
    assert any(
        name.startswith("msgspec-") and name.endswith("cp311-cp311-win_amd64.whl") for name in names
    )
    for package in ("textual", "cyclopts", "nats_py", "rich", "attrs"):
        assert any(name.startswith(f"{package}-") for name in names), package
    assert any(name.startswith(f"textual-{version('textual')}-") for name in names)


def test_the_client_goes_in_with_python_packages_and_the_call_that_starts_it(
    wim: Path, python: Path, real_wheels: Path, tmp_path: Path
) -> None:
    contents = Contents(python=python, server=SERVER, site="london", wheels=real_wheels)
    before = wim.read_bytes()
    out = tmp_path / "out.wim"
    made = into_wim(wim, out, contents, None, start=True)
    assert wim.read_bytes() == before
    assert (made.index, made.python, made.packages["nats-py"]) == (1, "3.11", "2.16.0")
    files = listing(out)
    packages = "/ImageInvoker/Lib/site-packages"
    for file in (
        "/ImageInvoker/python.exe",
        "/ImageInvoker/python311.zip",
        f"{packages}/textual/__init__.py",
        f"{packages}/client/portal/way.py",
        f"{packages}/cli/__main__.py",
        f"{packages}/bus/connection.py",
        "/startup/menu.bat",
        "/Windows/System32/cmd.exe",
    ):
        assert file in files
    assert any(file.startswith(f"{packages}/msgspec/") and ".pyd" in file for file in files)
    assert f"{packages}/services" not in files
    paths = extracted(out, "/ImageInvoker/python311._pth").splitlines()
    assert paths[:2] == ["python311.zip", "."]
    assert r"Lib\site-packages" in paths
    assert extracted(out, "/Windows/System32/startnet.cmd").splitlines() == [
        "wpeinit",
        r"call %SystemDrive%\startup\menu.bat",
    ]
    menu = extracted(out, "/startup/menu.bat").replace("\r\n", "\n")
    assert f'set "IMAGEINVOKER_SERVER={SERVER}"\n' in menu
    assert 'set "IMAGEINVOKER_SITE=london"\n' in menu
    assert menu.rstrip().endswith(r'"%SystemDrive%\ImageInvoker\python.exe" -m cli client %*')
    note = json.loads(extracted(out, "/ImageInvoker/image.json"))
    assert (note["version"], note["server"]) == (__version__, SERVER)


def test_what_is_in_the_image_is_compiled_already(
    wim: Path, contents: Contents, tmp_path: Path
) -> None:
    out = tmp_path / "out.wim"
    into_wim(wim, out, contents, None, start=True)
    compiled = "/ImageInvoker/Lib/site-packages/client/__pycache__/main.cpython-311.pyc"
    assert (compiled in listing(out)) == (sys.version_info[:2] == (3, 11))


def test_the_client_of_an_image_runs_with_what_is_in_it_and_nothing_else(
    python: Path, real_wheels: Path, tmp_path: Path
) -> None:
    """On this system's Python: what is in the image for all systems is whole."""
    out = tmp_path / "root"
    into_folder(out, Contents(python=python, server=SERVER, wheels=real_wheels))
    packages = out / "ImageInvoker" / "Lib" / "site-packages"
    import msgspec  # noqa: PLC0415 (compiled for Windows there)

    program = (
        f"import sys; sys.path[:] = [p for p in sys.path if 'site-packages' not in p]\n"
        f"sys.path.append({str(packages)!r})\n"
        "import importlib.util as u\n"
        f"spec = u.spec_from_file_location('msgspec', {msgspec.__file__!r},"
        f" submodule_search_locations=[{str(Path(msgspec.__file__).parent)!r}])\n"
        "module = u.module_from_spec(spec); sys.modules['msgspec'] = module\n"
        "spec.loader.exec_module(module)\n"
        "import client.portal.way, client.unattended, client.windows\n"
        "from cli.main import main\n"
        "main(['client', '--help'])\n"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", program],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "--boot-credential" in done.stdout


def test_a_second_run_replaces_the_client_and_keeps_what_an_operator_has_added(
    wim: Path, contents: Contents, tmp_path: Path
) -> None:
    into_wim(wim, wim, contents, None, start=True)
    added = tmp_path / "added"
    added.mkdir()
    (added / "menu.bat").write_text(extracted(wim, "/startup/menu.bat").rstrip() + " /t 0\r\n")
    (added / "startnet.cmd").write_text(
        extracted(wim, "/Windows/System32/startnet.cmd") + "start agent.exe\r\n"
    )
    (added / "old.py").write_text("")
    subprocess.run(
        ["wimlib-imagex", "update", str(wim), "1"],
        input=f"add {added}/menu.bat /startup/menu.bat\n"
        f"add {added}/startnet.cmd /Windows/System32/startnet.cmd\n"
        f"add {added}/old.py /ImageInvoker/Lib/site-packages/client/old.py\n".encode(),
        check=True,
        capture_output=True,
        timeout=60,
    )
    into_wim(wim, wim, contents, None, start=True)
    assert extracted(wim, "/startup/menu.bat").rstrip().endswith("-m cli client %* /t 0")
    assert extracted(wim, "/Windows/System32/startnet.cmd").splitlines() == [
        "wpeinit",
        r"call %SystemDrive%\startup\menu.bat",
        "start agent.exe",
    ]
    files = listing(wim)
    assert not [file for file in files if file.endswith("old.py")]
    before = files
    into_wim(wim, wim, contents, None, start=True)
    assert listing(wim) == before


def test_other_spellings_of_windows_folders_are_the_same_folders(
    contents: Contents, tmp_path: Path
) -> None:
    root = windows_pe(tmp_path / "pe")
    (root / "Windows").rename(root / "WINDOWS")
    (root / "WINDOWS" / "System32").rename(root / "WINDOWS" / "system32")
    (root / "ImageInvoker".upper()).mkdir()
    wim = capture(root, tmp_path / "boot.wim")
    into_wim(wim, wim, contents, None, start=True)
    files = listing(wim)
    assert len([file for file in files if file.lower().endswith("startnet.cmd")]) == 1
    assert len([file for file in files if file.lower() == "/imageinvoker"]) == 1
    assert len([file for file in files if file.lower() == "/windows"]) == 1


def test_the_image_that_boots_is_changed_and_no_other(contents: Contents, tmp_path: Path) -> None:
    wim = capture(windows_pe(tmp_path / "one"), tmp_path / "boot.wim", "Windows PE")
    capture(windows_pe(tmp_path / "two"), wim, "Windows Setup", boots=True)
    assert into_wim(wim, wim, contents, None, start=True).index == 2
    assert "/ImageInvoker" in listing(wim, 2)
    assert "/ImageInvoker" not in listing(wim, 1)
    assert into_wim(wim, wim, contents, 1, start=True).index == 1
    assert read_wim(wim).boots == 2


def test_ca_and_credential_go_along_and_are_looked_at(
    wim: Path, python: Path, wheels: Path, tmp_path: Path
) -> None:
    ca = tmp_path / "estate-ca.pem"
    ca.write_bytes(Authority().pem)
    contents = Contents(
        python=python,
        server=SERVER,
        ca=ca,
        credential=credential(tmp_path / "secret"),
        wheels=wheels,
    )
    into_wim(wim, wim, contents, None, start=True)
    assert extracted(wim, "/ImageInvoker/ca.pem") == ca.read_text()
    assert extracted(wim, "/ImageInvoker/boot.credential").startswith("iib1.")
    menu = extracted(wim, "/startup/menu.bat")
    assert r"IMAGEINVOKER_CA=%SystemDrive%\ImageInvoker\ca.pem" in menu
    assert r"IMAGEINVOKER_BOOT_CREDENTIAL=%SystemDrive%\ImageInvoker\boot.credential" in menu
    assert set(states(wim).values()) == {"ok"}
    texts = {seen.check: seen.text for seen in look_into(read_wim(wim), 1)}
    assert texts["client"] == f"version {__version__}, with Python 3.11"
    assert texts["server"] == SERVER
    assert texts["credential"].startswith("of estate tests, image winpe, good until 20")


def test_a_look_says_what_an_image_lacks(wim: Path, contents: Contents, tmp_path: Path) -> None:
    assert states(wim) == {"client": "fail"}
    out = tmp_path / "out.wim"
    into_wim(wim, out, contents, None, start=False)
    assert states(out) == {"client": "ok", "server": "ok", "ca.pem": "warn", "start": "warn"}
    subprocess.run(
        ["wimlib-imagex", "update", str(out), "1"],
        input=b"delete /startup/menu.bat\ndelete /ImageInvoker/python.exe\n",
        check=True,
        capture_output=True,
        timeout=60,
    )
    assert states(out)["menu.bat"] == "fail"
    assert states(out)["files"] == "fail"


def test_a_look_says_what_an_operator_has_added_in_whatever_encoding(
    wim: Path, contents: Contents, tmp_path: Path
) -> None:
    into_wim(wim, wim, contents, None, start=True)
    changed = tmp_path / "menu.bat"
    menu = extracted(wim, "/startup/menu.bat").rstrip()
    changed.write_bytes(menu.encode() + b' --item "Pr\x81fung \x85 la"\r\n')
    subprocess.run(
        ["wimlib-imagex", "update", str(wim), "1", "--command", f"add {changed} /startup/menu.bat"],
        check=True,
        capture_output=True,
        timeout=60,
    )
    into_wim(wim, wim, contents, None, start=True)
    said = next(seen for seen in look_into(read_wim(wim), 1) if seen.check == "server")
    assert said.text == f'{SERVER}, with --item "Pr?fung ? la"'


def test_a_credential_that_has_expired_does_not_go_into_an_image(
    wim: Path, python: Path, wheels: Path, tmp_path: Path
) -> None:
    expired = credential(tmp_path / "secret", days=-1)
    contents = Contents(python=python, server=SERVER, credential=expired, wheels=wheels)
    with pytest.raises(Exception, match="has expired") as caught:
        into_wim(wim, wim, contents, None, start=True)
    assert "iib1" not in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"MSWIM", b"PK\x03\x04" + bytes(300)])
def test_what_is_no_image_is_said_to_be_none(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "boot.wim"
    file.write_bytes(content)
    with pytest.raises(NotAnImageError, match="is no Windows image"):
        read_wim(file)
    with pytest.raises(NotAnImageError, match="cannot be read"):
        read_wim(tmp_path / "absent.wim")


def test_an_index_that_is_not_there_is_named(wim: Path, tmp_path: Path) -> None:
    with pytest.raises(NoSuchIndexError, match="holds one image, so there is no image 3"):
        read_wim(wim).index(3)
    capture(windows_pe(tmp_path / "two"), wim, "Other")
    with pytest.raises(NoSuchIndexError, match="Give --index N"):
        read_wim(wim).index(None)


def test_an_image_that_is_no_64_bit_windows_pe_is_refused(
    contents: Contents, tmp_path: Path
) -> None:
    old = capture(windows_pe(tmp_path / "old", machine=I386), tmp_path / "old.wim")
    with pytest.raises(NotWindowsPeError, match="not for 64-bit PCs"):
        into_wim(old, old, contents, None, start=True)
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "file").write_text("data")
    data = capture(tmp_path / "data", tmp_path / "data.wim")
    with pytest.raises(NotWindowsPeError, match="is no Windows PE"):
        into_wim(data, data, contents, None, start=True)


def test_without_wimlib_its_package_is_named(
    wim: Path, contents: Contents, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MissingToolError, match="apt install wimtools"):
        into_wim(wim, wim, contents, None, start=True)


def test_an_image_that_cannot_be_changed_stays_as_it_was(
    wim: Path, contents: Contents, tmp_path: Path
) -> None:
    out = tmp_path / "out.wim"
    out.write_text("what was there")
    damaged = bytearray(wim.read_bytes())
    damaged[210:-60] = bytes(len(damaged[210:-60]))
    wim.write_bytes(damaged)
    with pytest.raises(Exception, match="wimlib-imagex"):
        into_wim(wim, out, contents, None, start=True)
    assert out.read_text() == "what was there"
    assert not list(tmp_path.glob(".out.wim*"))
    with pytest.raises(OutputError, match="cannot be written"):
        into_folder(out, contents)


def test_a_python_that_cannot_go_in_is_refused_with_the_cure(tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(PythonError, match=r"no python\.exe .* embeddable package"):
        examine_python(empty)
    (empty / "python.exe").write_bytes(program())
    with pytest.raises(PythonError, match=r"no python311\._pth"):
        examine_python(empty)
    with pytest.raises(PythonError, match="not for 64-bit Windows"):
        examine_python(embeddable(tmp_path / "i386", machine=I386))
    with pytest.raises(PythonError, match=r"holds Python 3\.8"):
        examine_python(embeddable(tmp_path / "old", "38"))
    assert examine_python(embeddable(tmp_path / "new", "313")).version == (3, 13)


def test_paths_that_name_the_packages_already_stay_as_they_are(python: Path) -> None:
    (python / "python311._pth").write_text("python311.zip\n.\nLib\\site-packages\nimport site\n")
    text = examine_python(python).paths_with_packages()
    assert text.splitlines() == ["python311.zip", ".", r"Lib\site-packages", "import site"]


def test_a_wheel_that_is_missing_for_this_python_is_named(
    real_wheels: Path, tmp_path: Path
) -> None:
    with pytest.raises(WheelMissingError) as caught:
        fetch_wheels((3, 12), tmp_path / "into", real_wheels)
    assert caught.value.package.startswith("msgspec")
    assert "Python 3.12 on 64-bit Windows" in str(caught.value)


def test_libraries_in_a_wheels_data_folder_are_unpacked_and_programs_are_not(
    tmp_path: Path,
) -> None:
    wheel = tmp_path / "odd_one-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as made:
        made.writestr("odd_one/__init__.py", "")
        made.writestr("odd_one-1.0.data/platlib/odd_two.py", "")
        made.writestr("odd_one-1.0.data/scripts/odd.exe", "")
    assert unpack([wheel], tmp_path / "out") == {"odd-one": "1.0"}
    files = sorted(path.name for path in (tmp_path / "out").rglob("*") if path.is_file())
    assert files == ["__init__.py", "odd_two.py"]
