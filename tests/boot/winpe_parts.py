"""What a Windows PE image and Python's embeddable package are made of, as far as looked at."""

import subprocess
import zipfile
from pathlib import Path

AMD64, I386 = 0x8664, 0x014C


def program(machine: int = AMD64) -> bytes:
    """The head of a Windows program."""
    head = bytearray(b"MZ" + bytes(126))
    head[60:64] = (64).to_bytes(4, "little")
    head[64:68] = b"PE\0\0"
    head[68:70] = machine.to_bytes(2, "little")
    return bytes(head)


def windows_pe(
    folder: Path,
    *,
    machine: int = AMD64,
    startnet: str | None = "wpeinit\r\n",
    winpeshl: str | None = None,
) -> Path:
    """The root of a Windows PE, in the spelling of a real one."""
    system = folder / "Windows" / "System32"
    system.mkdir(parents=True)
    (system / "wpeinit.exe").write_bytes(program(machine))
    (system / "cmd.exe").write_bytes(program(machine))
    if startnet is not None:
        (system / "startnet.cmd").write_bytes(startnet.encode())
    if winpeshl is not None:
        (system / "winpeshl.ini").write_bytes(winpeshl.encode())
    return folder


def capture(root: Path, wim: Path, name: str = "Windows PE", *, boots: bool = False) -> Path:
    """The folder as a (further) image of a file."""
    what = "append" if wim.exists() else "capture"
    command = ["wimlib-imagex", what, str(root), str(wim), name]
    subprocess.run(
        [*command, *(["--boot"] if boots else [])], check=True, capture_output=True, timeout=60
    )
    return wim


def extracted(wim: Path, path: str, index: int = 1) -> str:
    """A file of an image, as wimlib gives it."""
    done = subprocess.run(
        ["wimlib-imagex", "extract", str(wim), str(index), path, "--to-stdout"],
        check=True,
        capture_output=True,
        timeout=60,
    )
    return done.stdout.decode()


def listing(wim: Path, index: int = 1) -> list[str]:
    """All paths of an image."""
    done = subprocess.run(
        ["wimlib-imagex", "dir", str(wim), str(index)],
        check=True,
        capture_output=True,
        text=True,
        timeout=60,
    )
    return done.stdout.splitlines()


def embeddable(folder: Path, version: str = "311", machine: int = AMD64) -> Path:
    """Python's embeddable package: the files that are looked at, and one more."""
    folder.mkdir()
    (folder / "python.exe").write_bytes(program(machine))
    (folder / f"python{version}.zip").write_bytes(b"PK")
    (folder / f"python{version}._pth").write_text(
        f"python{version}.zip\n.\n\n# Uncomment to run site.main() automatically\n#import site\n"
    )
    return folder


def stub_wheel(folder: Path, name: str, version: str) -> None:
    """A package for every system, with one empty module."""
    module = name.replace("-", "_")
    about = f"{module}-{version}.dist-info"
    with zipfile.ZipFile(folder / f"{module}-{version}-py3-none-any.whl", "w") as wheel:
        wheel.writestr(f"{module}/__init__.py", "")
        wheel.writestr(
            f"{about}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
        )
        wheel.writestr(
            f"{about}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        wheel.writestr(f"{about}/RECORD", "")
