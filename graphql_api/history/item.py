"""What every format is read as: trees, each a row of contexts and messages, and the file that they are read from."""

import codecs
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import IO, Any
from uuid import UUID

from db.history_copy import FlawError
from schema.message_input import MessageInput

CHUNK_BYTES = 1024 * 1024
# What tells the format of a file.
HEAD_BYTES = 64


@dataclass(frozen=True, slots=True)
class ContextItem:
    """A context: the root of its tree, or a fork of one that came before. `place` says where it stands in the file."""

    place: str
    id: UUID
    parent_id: UUID | None = None
    fork_version: int | None = None
    name: str | None = None
    metadata: dict[str, Any] = field(default_factory=dict)
    created_at: datetime | None = None
    updated_at: datetime | None = None
    deleted_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class MessageItem:
    """A message of the context before it. Without an id it is given one."""

    place: str
    message: MessageInput
    id: UUID | None = None
    version: int | None = None
    created_at: datetime | None = None
    deleted_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Tree:
    """A tree whose items are read while they are asked for. Reading on to the next tree passes over the rest.

    Taking an item raises FlawError when it cannot be one; then nothing more comes of this tree.
    """

    place: str
    items: Iterator[ContextItem | MessageItem]


class Source:
    """A file, read once from the beginning. `read_bytes` tells how far that is."""

    def __init__(self, name: str, file: IO[bytes], size: int | None) -> None:
        self.name = name
        self.size = size
        self.read_bytes = 0
        self._file = file
        self._head = b""

    def head(self) -> bytes:
        """Give the beginning, which is read again. A byte order mark is left out."""
        while len(self._head) < HEAD_BYTES and (chunk := self._read()):
            self._head += chunk
        self._head = self._head.removeprefix(codecs.BOM_UTF8)
        return self._head

    def chunks(self) -> Iterator[bytes]:
        """Give the rest of the file piece by piece.

        Raises: FlawError when it cannot be read.
        """
        chunk, self._head = self.head(), b""
        while chunk:
            yield chunk
            chunk = self._read()

    def lines(self, bytes_max: int) -> Iterator[tuple[str, bytes]]:
        """Give each line with its place, empty ones left out.

        Raises: FlawError for one of more bytes.
        """
        number, pending = 0, b""
        for chunk in self.chunks():
            *whole, pending = (pending + chunk).split(b"\n")
            for line in whole:
                number += 1
                if line.strip():
                    yield f"{self.name} line {number}", line
            if len(pending) > bytes_max:
                raise FlawError(f"{self.name} line {number + 1}", f"it is longer than {bytes_max} bytes.")
        if pending.strip():
            yield f"{self.name} line {number + 1}", pending

    def _read(self) -> bytes:
        try:
            chunk = self._file.read(CHUNK_BYTES)
        except OSError as error:
            raise FlawError(self.name, f"it cannot be read: {error.strerror}.") from error
        self.read_bytes += len(chunk)
        return chunk
