"""What the tests of the doctor share: ways to plant a fault, and to carry a remedy out."""

import re
from asyncio import StreamReader, StreamWriter
from contextlib import suppress

from db.finding import Finding
from tests.db.migrating import Relay, superuser

GREETED_BY = re.compile(rb"(?<=K\0\0\0\x0c)....", re.DOTALL)  # the process, in BackendKeyData
SERVER_VERSION = re.compile(rb"(?<=server_version\0)\d\d")


class Disguise(Relay):
    """A way to the database that changes one thing in what the server says, without changing its length."""

    def __init__(self, url: str, what: re.Pattern[bytes], said: bytes) -> None:
        super().__init__(url)
        self._what, self._said = what, said

    async def _pump(self, reader: StreamReader, writer: StreamWriter) -> None:  # type: ignore[override]
        with suppress(ConnectionError):
            while data := await reader.read(65_536):
                writer.write(self._what.sub(self._said, data))
                await writer.drain()
        writer.close()


def pooler(url: str) -> Disguise:
    """Greet with another process than the one that serves, as poolers do."""
    return Disguise(url, GREETED_BY, b"\0\0\0\7")


def old_server(url: str) -> Disguise:
    """Say of the server that it is one major release too old."""
    return Disguise(url, SERVER_VERSION, b"15")


def paste(url: str, remedy: str | None) -> None:
    """Run the SQL that stands between backticks in a remedy, as superuser."""
    with superuser(url) as connection:
        for statement in re.findall("`([^`]+;)`", remedy or ""):
            connection.execute(statement.encode())


def summary(found: dict[str, Finding]) -> dict[str, str]:
    """Give the status of all that is not ok."""
    return {name: finding.status for name, finding in found.items() if finding.status != "ok"}
