"""Gathers the file system of the image: an interpreter, the environment, what they load, and nothing besides.

`python container/root.py FOLDER` is run in the build stage by the environment that is to be served from. What it leaves
behind is a system without a shell, without a package manager, and with no programs but those three: forkpoint, dbmate
and Python. Every path is the one that it has in the build stage.
"""

import compileall
import os
import shutil
import stat
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

USER = 10001
LOADERS = ("/lib64/ld-linux-x86-64.so.2", "/lib/ld-linux-aarch64.so.1")
# Loaded by name when a thread ends, so that no program lists it.
LOADED_LATER = ("libgcc_s.so.1",)
PROGRAMS = ("dbmate", "forkpoint", "python")
# What installs, tests or draws.
LEFT_OUT = {"ensurepip", "idlelib", "lib2to3", "pydoc_data", "site-packages", "test", "tkinter", "turtledemo"}
LEFT_OUT_FILES = ("_tkinter*", "_test*", "_ctypes_test*", "xxlimited*", "__pycache__", "*.a")
CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")
TIME_ZONES = Path("/usr/share/zoneinfo")
FILES = {
    "etc/passwd": f"root:x:0:0:root:/:/nologin\nforkpoint:x:{USER}:{USER}:forkpoint:/:/nologin\n",
    "etc/group": f"root:x:0:\nforkpoint:x:{USER}:\n",
    "etc/nsswitch.conf": "passwd: files\ngroup: files\nhosts: files dns\n",
}


def gather(root: Path) -> None:
    """Fill an empty folder."""
    environment = Path(sys.prefix)
    for program in chain(Path(sys.executable)):
        if not program.is_relative_to(environment):
            place(root, program, follow=False)
    for folder in {sysconfig.get_path("stdlib"), sysconfig.get_path("platstdlib")} - {str(environment)}:
        tree(root, Path(folder), LEFT_OUT)
    tree(root, environment, set())
    for program in (root / environment.relative_to("/") / "bin").iterdir():
        if not program.name.startswith(PROGRAMS):
            program.unlink()
    for library in libraries(root):
        place(root, library)
    place(root, CERTIFICATES)
    tree(root, TIME_ZONES, {"posix", "right"})
    for name, text in FILES.items():
        (root / name).write_text(text, encoding="utf-8")
    (root / "tmp").mkdir(exist_ok=True)
    (root / "tmp").chmod(0o1777)
    compileall.compile_dir(root, stripdir=str(root), quiet=2)
    for path in root.rglob("*"):
        if not path.is_symlink() and path != root / "tmp":
            path.chmod(0o755 if path.is_dir() or path.stat().st_mode & stat.S_IXUSR else 0o644)


def chain(path: Path) -> Iterator[Path]:
    """Give what a path leads to, link by link."""
    while path.is_symlink():
        path = path.parent / path.readlink()
        yield Path(os.path.normpath(path))


def place(root: Path, path: Path, *, follow: bool = True) -> None:
    """Copy a file to where it is; a link as what it leads to, unless told otherwise."""
    target = root / path.relative_to("/")
    target.parent.mkdir(parents=True, exist_ok=True)
    if not os.path.lexists(target):
        shutil.copy2(path, target, follow_symlinks=follow)


def tree(root: Path, folder: Path, left_out: set[str]) -> None:
    """Copy a folder to where it is, without what is left out of it and what is of no use anywhere."""

    def ignored(place: str, names: list[str]) -> set[str]:
        found = shutil.ignore_patterns(*LEFT_OUT_FILES)(place, names)
        first = {name for name in names if name in left_out or name.startswith("config-")}
        return found | first if Path(place) == folder else found

    shutil.copytree(folder, root / folder.relative_to("/"), symlinks=True, ignore=ignored, dirs_exist_ok=True)


def libraries(root: Path) -> list[Path]:
    """Give the libraries that all programs and modules load, and what loads them.

    Raises: SystemExit when one is missing.
    """
    loader = next(path for path in map(Path, LOADERS) if path.exists())
    found = {loader}
    folders = set()
    for file in [path for path in root.rglob("*") if path.is_file() and is_dynamic(path)]:
        original = Path("/") / file.relative_to(root)
        said = subprocess.run([loader, "--list", original], capture_output=True, text=True, check=False)
        for line in said.stdout.splitlines():
            name, arrow, where = line.strip().partition(" => ")
            if arrow and "not found" in where:
                sys.exit(f"{original} loads {name}, which is not there. Install what holds it in the build stage.")
            if arrow:
                found.add(Path(os.path.normpath(where.rpartition(" (")[0])))
        folders |= {path.parent for path in found}
    later = {folder / name for folder in folders for name in LOADED_LATER if (folder / name).exists()}
    return sorted(path for path in found | later if not path.is_relative_to(sys.prefix))


def is_dynamic(path: Path) -> bool:
    """Tell whether a file is a program or library in ELF."""
    with path.open("rb") as file:
        return file.read(4) == b"\x7fELF"


if __name__ == "__main__":
    gather(Path(sys.argv[1]).absolute())
