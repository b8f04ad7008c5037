"""Stores the trees of a file, each in one transaction: checked like the input of any caller."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from uuid import UUID

import uuid_utils.compat

from db.errors import Duplicate, OutOfRange
from db.history_copy import FlawError, NewContext, Placed, TakenError, TreeCopy
from graphql_api.history import reading
from graphql_api.history.item import ContextItem, MessageItem, Source, Tree
from graphql_api.history.reading import Format
from schema import context_change, message_input
from schema.errors import Refusal
from schema.request import Service

# After so many items the progress is told.
_TOLD_ITEMS = 500
_SHAPES = (AttributeError, KeyError, TypeError)
_BESIDE = "Use --remap to import it beside the original, under new ids."


@dataclass(slots=True)
class Imported:
    """A tree that is stored."""

    root_id: UUID
    name: str | None
    contexts: int = 0
    messages: int = 0


@dataclass(slots=True)
class Outcome:
    """What became of the trees of a file: those that are stored, and why others are not."""

    imported: list[Imported] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)


async def store(
    service: Service, tenant_id: str, source: Source, chosen: Format, *, remap: bool, report: Callable[[int], None]
) -> Outcome:
    """Store each tree of a file for a tenant, all of it or nothing; one that is refused keeps no other from it.

    `report` is told of bytes read.
    Raises: the family of db.errors, when the database fails; the trees stored until then stay.
    """
    outcome = Outcome()
    try:
        for tree in reading.trees(source, chosen):
            try:
                outcome.imported.append(await _store(service, tenant_id, source, tree, report, remap=remap))
            except TakenError as error:
                outcome.refused.append(f"{error} {_BESIDE} Nothing of its tree is stored.")
            except FlawError as error:
                outcome.refused.append(f"{error} Nothing of its tree is stored.")
            except _SHAPES as error:
                # The formats of others are read as they are known; where one is built otherwise, Python says so.
                outcome.refused.append(
                    f"{tree.place}: a part of it is of another type than its format has it ({type(error).__name__}). "
                    "Nothing of its tree is stored."
                )
            report(source.read_bytes)
    except FlawError as error:
        outcome.refused.append(f"{error} Nothing is read from there on.")
    return outcome


async def _store(
    service: Service, tenant_id: str, source: Source, tree: Tree, report: Callable[[int], None], *, remap: bool
) -> Imported:
    ids: dict[UUID, UUID] = {}
    found: Imported | None = None
    try:
        async with service.database.transaction(tenant_id) as session:
            copy = TreeCopy(session, tenant_id, service.limits.fork_depth_max)
            for number, item in enumerate(tree.items):
                if isinstance(item, ContextItem):
                    new = _context(service, _remapped(item, ids) if remap else item)
                    await copy.add_context(new)
                    found = found or Imported(new.id, new.name)
                    found.contexts += 1
                else:
                    await copy.add_message(await _message(service, item, remap=remap))
                    if found is not None:
                        found.messages += 1
                if number % _TOLD_ITEMS == 0:
                    report(source.read_bytes)
            await copy.finish()
    except Duplicate:
        raise TakenError(tree.place, "an id of its tree has been taken meanwhile.") from None
    except OutOfRange as error:
        raise FlawError(tree.place, str(error)) from None
    if found is None:
        raise LookupError(f"{tree.place} is a tree without a context")
    return found


def _remapped(item: ContextItem, ids: dict[UUID, UUID]) -> ContextItem:
    """Give a context a new id, and let it follow its parent's. An id that stands twice is left for others to find."""
    new_id = ids.setdefault(item.id, uuid_utils.compat.uuid7())
    parent_id = None if item.parent_id is None else ids.get(item.parent_id, item.parent_id)
    return replace(item, id=new_id, parent_id=parent_id)


def _context(service: Service, item: ContextItem) -> NewContext:
    try:
        name = context_change.read_name(item.name, "name")
        metadata = context_change.read_metadata(service, item.metadata, "metadata")
    except Refusal as error:
        raise FlawError(item.place, error.message) from None
    return NewContext(
        place=item.place,
        id=item.id,
        parent_id=item.parent_id,
        fork_version=item.fork_version,
        name=name,
        metadata=metadata or "{}",
        created_at=item.created_at,
        updated_at=item.updated_at,
        deleted_at=item.deleted_at,
    )


async def _message(service: Service, item: MessageItem, *, remap: bool) -> Placed:
    try:
        checked = await message_input.read_one(service, item.message, "message")
    except Refusal as error:
        raise FlawError(item.place, error.message) from None
    if item.id is not None and not remap:
        checked = replace(checked, id=item.id)
    return Placed(
        place=item.place,
        message=checked,
        call_ids=tuple(call.id for call in item.message.tool_calls or ()),
        version=item.version,
        created_at=item.created_at,
        deleted_at=item.deleted_at,
    )
