"""A plan sees one moment, whatever is written meanwhile."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from db.pipeline import Lease
from db.pool import Snapshot
from graphql_api.settings import Settings
from tests.client import Api
from tests.schema.calls import append, create, say
from tests.schema.locking import locked, waiting
from tests.schema.planning import Runner, asked, running


@pytest.fixture
async def run(settings: Settings) -> AsyncIterator[Runner]:
    async with running(settings) as runner:
        yield runner


TWO_LEVELS = """query ($roles: [Role!]) {
  contexts { nodes { latestVersion messages(last: 1, roles: $roles) { nodes { version content } } } }
}"""


@pytest.mark.parametrize("door", [Lease, Snapshot])
async def test_a_plan_sees_one_moment_while_others_write_between_its_flushes(
    api: Api, run: Runner, monkeypatch: pytest.MonkeyPatch, door: type
) -> None:
    made = await create(api, say("before"))
    name = "flush" if door is Lease else "fetch"
    go_through: Callable[..., Awaitable[Any]] = getattr(door, name)

    async def interrupted(self: Any, *arguments: Any) -> Any:
        found = await go_through(self, *arguments)
        if not written:  # which reads as well
            written.append(True)
            await append(api, made["id"], say("after"))
        return found

    written: list[bool] = []
    with monkeypatch.context() as patched:
        patched.setattr(door, name, interrupted)
        data, trace = await run(TWO_LEVELS, roles=None if door is Lease else ["USER"])
    assert trace.way == ("a lease" if door is Lease else "the pool")
    assert asked(trace) == [["context_list.all_by_updated_at_desc"], ["lineage.page"]]
    assert data["contexts"]["nodes"] == [
        {"latestVersion": 1, "messages": {"nodes": [{"version": 1, "content": "before"}]}}
    ]
    data, _ = await run(TWO_LEVELS)
    assert data["contexts"]["nodes"][0]["latestVersion"] == 2


BOTH = "query ($ids: [ID!]!) { nodes(ids: $ids) { ... on Context { name } ... on Message { model } } }"


async def test_the_statements_of_one_flush_see_one_moment(database_url: str, api: Api, run: Runner) -> None:
    made = await create(api, say("one", model="before"), name="before")
    found = await api("query ($id: ID!) { context(id: $id) { message(version: 1) { id } } }", id=made["id"])
    ids = [made["id"], found["context"]["message"]["id"]]
    with locked(database_url, "messages") as holder:
        asking = asyncio.create_task(run(BOTH, ids=ids))
        await waiting(database_url)  # for messages: contexts were read
        holder.execute("update contexts set name = 'after'")
        holder.execute("update messages set model = 'after'")
    data, trace = await asking
    assert (trace.way, asked(trace)) == ("one flush", [["context.by_ids", "message.by_ids"]])
    assert data["nodes"] == [{"name": "before"}, {"model": "before"}]
    assert (await run(BOTH, ids=ids))[0]["nodes"] == [{"name": "after"}, {"model": "after"}]
