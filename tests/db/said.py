"""Trees of contexts in the database and in plain lists, side by side, made through the functions of the store."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from uuid import UUID

import uuid_utils.compat

import db.context
import db.message
from db.pool import Session
from db.records import ContextRecord, NewMessage

TENANT = "default"


@dataclass(eq=False)
class Said:
    """A message as the model sees it; one object, however many lineages hold it."""

    role: str
    token_count: int
    calls: tuple[str, ...] = ()
    answers: str | None = None
    version: int = 0
    deleted: bool = False


@dataclass
class Lineage:
    """A context, and all that it reads."""

    id: UUID
    said: list[Said] = field(default_factory=list)

    def visible(self, version: int) -> list[Said]:
        return [said for said in self.said[:version] if not said.deleted]


class Histories:
    """Trees of contexts in the database and in the model."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.lineages: list[Lineage] = []

    async def create(self) -> Lineage:
        made = await db.context.create(self.session, TENANT, uuid_utils.compat.uuid7(), None, "{}")
        self.lineages.append(Lineage(made.id))
        return self.lineages[-1]

    async def fork(self, parent: Lineage, version: int) -> Lineage:
        record = await self.record(parent)
        made = await db.context.fork(self.session, TENANT, uuid_utils.compat.uuid7(), record, version, None, "{}")
        self.lineages.append(Lineage(made.id, parent.said[:version]))
        return self.lineages[-1]

    async def append(self, lineage: Lineage, said: Sequence[Said]) -> None:
        for version, message in enumerate(said, len(lineage.said) + 1):
            message.version = version
        assert await db.message.append(self.session, TENANT, lineage.id, [new(message) for message in said])
        lineage.said += said

    async def delete(self, lineage: Lineage, version: int) -> None:
        assert await db.message.delete(self.session, TENANT, await self.record(lineage), version)
        lineage.said[version - 1].deleted = True

    async def restore(self, lineage: Lineage, version: int) -> None:
        assert await db.message.restore(self.session, TENANT, await self.record(lineage), version)
        lineage.said[version - 1].deleted = False

    async def record(self, lineage: Lineage) -> ContextRecord:
        (record,) = await db.context.by_ids(self.session, TENANT, [lineage.id])
        return record


def new(said: Said) -> NewMessage:
    calls = [{"id": call, "name": "tool", "arguments": {}} for call in said.calls]
    return NewMessage(
        id=uuid_utils.compat.uuid7(),
        role=said.role,
        content="",
        tool_calls=json.dumps(calls) if calls else None,
        tool_call_id=said.answers,
        tool_name=None,
        token_count=said.token_count,
        model=None,
        metadata="{}",
    )
