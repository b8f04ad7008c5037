"""What a process does at once: no more than it may, in fair turns, and who is too many is told so at once."""

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import httpx2
import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.exceptions import ConnectionClosed

from graphql_api.admission import RETRY_SECONDS, SMALL_BODY_BYTES, Admission, Unavailable
from graphql_api.app import create_app
from graphql_api.media import JSON
from graphql_api.settings import Settings
from schema.errors import Code
from tests.conftest import api_over
from tests.graphql_api.asking import SETTINGS, Client
from tests.graphql_api.serving import Served, serving, until

ECHO = {"query": "{ echo }"}


def admission(**limits: Any) -> Admission:
    return Admission(SETTINGS.model_copy(update=limits))


@dataclass
class Crowd:
    """Those who come to one process, each until it is let go."""

    admission: Admission
    inside: list[str] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    tasks: dict[str, asyncio.Task[None]] = field(default_factory=dict)
    gates: dict[str, asyncio.Event] = field(default_factory=dict)

    async def come(self, name: str, *, event: bool = False) -> None:
        """Come for a tenant, who is called by the first letter."""
        self.gates[name] = asyncio.Event()
        self.tasks[name] = asyncio.create_task(self._stay(name, event=event))
        await settle()

    async def _stay(self, name: str, *, event: bool) -> None:
        try:
            async with self.admission.turn(name[0], event=event):
                self.inside.append(name)
                try:
                    await self.gates[name].wait()
                finally:
                    self.inside.remove(name)
        except Unavailable:
            self.refused.append(name)

    async def go(self, name: str) -> None:
        self.gates[name].set()
        await settle()


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


@asynccontextmanager
async def crowd(**limits: Any) -> AsyncIterator[Crowd]:
    """Gather; afterwards everybody has left, and nothing is held."""
    gathered = Crowd(admission(**limits))
    yield gathered
    for gate in gathered.gates.values():
        gate.set()
    await asyncio.gather(*gathered.tasks.values(), return_exceptions=True)
    assert gathered.admission.idle


async def test_turns_go_round_the_tenants() -> None:
    async with crowd(requests_max=1, request_queue_max=10) as people:
        for name in ("a1", "a2", "a3", "a4", "b1", "b2", "c1"):
            await people.come(name)
        order = []
        while people.inside:
            (name,) = people.inside
            order.append(name)
            await people.go(name)
    assert order == ["a1", "a2", "b1", "c1", "a3", "b2", "a4"]


async def test_events_wait_beside_the_requests_of_their_tenant_and_are_never_refused() -> None:
    async with crowd(requests_max=1, request_queue_max=2, request_wait_seconds=0.001) as people:
        await people.come("a0")
        for number in range(1, 6):
            await people.come(f"a{number}e", event=True)
        await asyncio.sleep(0.01)
        await people.come("a6")
        assert people.refused == []
        await people.go("a0")
        await people.go("a1e")
        assert people.inside == ["a6"]


async def test_who_is_too_many_is_refused_at_once() -> None:
    async with crowd(requests_max=1, request_queue_max=2) as people:
        for name in ("a1", "a2", "a3", "a4"):
            await people.come(name)
        assert (people.inside, people.refused) == (["a1"], ["a4"])
        with pytest.raises(Unavailable, match=r"1 requests are under way and 2 wait") as refusal:
            people.admission.check("a")
        assert refusal.value.extensions == {"retryAfterSeconds": RETRY_SECONDS}


async def test_the_tenant_with_most_in_the_queue_gives_way() -> None:
    async with crowd(requests_max=1, request_queue_max=4) as people:
        for name in ("a0", "a1", "a2", "a3", "a4"):
            await people.come(name)
        people.admission.check("b")
        await people.come("b1")
        await people.come("b2")
        assert people.refused == ["a4", "a3"]
        await people.come("b3")  # now both have the same
        assert people.refused == ["a4", "a3", "b3"]
        await people.come("c1")
        assert people.refused[3:] == ["a2"]


async def test_who_waits_too_long_is_refused() -> None:
    async with crowd(requests_max=1, request_queue_max=2, request_wait_seconds=0.01) as people:
        await people.come("a1")
        await people.come("a2")
        await until(lambda: people.refused == ["a2"])
        assert people.inside == ["a1"]


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["come", "event", "go", "cancel", "both"]), st.sampled_from("abc"), st.integers(0, 9)
        ),
        max_size=60,
    ),
    st.integers(1, 3),
    st.integers(0, 4),
)
def test_no_turn_is_lost_or_given_twice(acts: list[tuple[str, str, int]], turns: int, queue: int) -> None:
    async def check() -> None:
        async with crowd(requests_max=turns, request_queue_max=queue) as people:
            for number, (act, tenant, which) in enumerate(acts):
                known = [name for name, task in people.tasks.items() if not task.done()]
                if act in {"come", "event"}:
                    await people.come(f"{tenant}{number}{act}", event=act == "event")
                elif known:
                    name = known[which % len(known)]
                    if act != "cancel":
                        people.gates[name].set()
                    if act != "go":  # in the moment of its turn, where both
                        people.tasks[known[(which + 1) % len(known)]].cancel()
                    await settle()
                waiting = [n for n, t in people.tasks.items() if not t.done() and n not in people.inside]
                assert len(people.inside) <= turns
                assert len([name for name in waiting if name.endswith("come")]) <= queue
                assert not waiting or len(people.inside) == turns

    asyncio.run(check())


def test_bodies_are_counted_from_the_size_on_that_a_connection_holds_anyway() -> None:
    held = admission(bodies_bytes_max=1_000_000, body_bytes_max=600_000)
    bodies = [held.held() for _ in range(4)]
    bodies[0].grow("a", SMALL_BODY_BYTES)
    assert held.idle
    bodies[0].grow("a", 100_000)
    bodies[0].grow("a", 400_000)
    with pytest.raises(Unavailable, match="FORKPOINT_BODIES_BYTES_MAX"):
        bodies[1].grow("a", 200_001)  # one tenant has half, or one of the largest
    bodies[1].grow("b", 600_000)
    with pytest.raises(Unavailable, match="1,000,000 bytes"):
        bodies[2].grow("c", 100_000)
    bodies[0].release()
    bodies[2].grow("c", 100_000)
    for body in bodies:
        body.release()
        body.release()
    assert held.idle


@pytest.mark.parametrize("accept", ["application/json", "application/graphql-response+json", "text/event-stream"])
async def test_a_refusal_comes_before_the_body_is_read(accept: str) -> None:
    client = Client(SETTINGS.model_copy(update={"requests_max": 1, "request_queue_max": 0}))
    async with client.operations.admission.turn("other"):
        answer = await client.deliver("POST", [], content_type=JSON, accept=accept)  # to read would fail
        assert (answer.status, answer.headers["retry-after"]) == (503, str(RETRY_SECONDS))
        assert answer.code == Code.UNAVAILABLE
        assert answer.json["errors"][0]["extensions"]["retryAfterSeconds"] == RETRY_SECONDS
    assert (await client.post(ECHO)).json == {"data": {"echo": ""}}


@asynccontextmanager
async def gated(**settings: Any) -> AsyncIterator[Served]:
    async with serving(**settings) as served:
        served.contexts.gate = asyncio.Event()
        try:
            yield served
        finally:
            open_gate(served)


def open_gate(served: Served) -> None:
    assert served.contexts.gate
    served.contexts.gate.set()


async def ask(served: Served, http: httpx2.AsyncClient) -> tuple[int, str | None, str | None]:
    response = await http.post(served.url, json=ECHO)
    errors = response.json().get("errors")
    return response.status_code, response.headers.get("retry-after"), errors and errors[0]["extensions"]["code"]


async def test_of_five_hundred_at_once_everyone_is_answered() -> None:
    async with gated(requests_max=5, request_queue_max=20) as served:
        limits = httpx2.Limits(max_connections=None)
        http = await served.clients.enter_async_context(
            httpx2.AsyncClient(base_url=served.url, limits=limits, timeout=20)
        )
        asking = [asyncio.create_task(ask(served, http)) for _ in range(500)]
        await until(lambda: sum(task.done() for task in asking) == 475)
        assert len(served.contexts.seen) == 5
        open_gate(served)
        assert Counter(await asyncio.gather(*asking)) == {
            (503, str(RETRY_SECONDS), "UNAVAILABLE"): 475,
            (200, None, None): 25,
        }
        assert await ask(served, http) == (200, None, None)
        assert served.operations.admission.idle


async def test_turns_come_back_from_clients_that_vanish() -> None:
    async with gated(requests_max=2, request_queue_max=3) as served:
        http = await served.http()
        asking = [asyncio.create_task(ask(served, http)) for _ in range(5)]
        await until(lambda: len(served.server.server_state.tasks) == 5)
        for task in served.server.server_state.tasks:
            task.cancel()
        await asyncio.gather(*asking, return_exceptions=True)
        open_gate(served)
        await until(lambda: served.operations.admission.idle)
        assert await ask(served, http) == (200, None, None)


@pytest.mark.parametrize("failure", ["enter", "leave"])
async def test_turns_come_back_from_contexts_that_fail(failure: str) -> None:
    client = Client(SETTINGS.model_copy(update={"requests_max": 1, "request_queue_max": 0}))
    setattr(client.contexts, failure, ValueError("the words of an inner failure"))
    for _ in range(3):
        await client.post(ECHO)
    assert client.operations.admission.idle


async def test_over_websocket_the_operation_is_refused_and_the_others_go_on() -> None:
    async with gated(requests_max=1, request_queue_max=1) as served:
        client = await served.socket()
        for number in range(3):
            await client.subscribe("{ echo }", str(number))
        assert await client.error("2") == Code.UNAVAILABLE
        open_gate(served)
        for number in range(2):
            assert await client.next(str(number)) == {"data": {"echo": ""}}
            assert await client.completed(str(number))


async def test_an_open_subscription_has_no_turn_but_for_its_events() -> None:
    async with serving(requests_max=1, request_queue_max=0) as served:
        client = await served.socket()
        for number in range(5):
            await client.subscribe("subscription { untold }", str(number))
            assert await client.next(str(number)) == {"data": {"untold": 1}}
        assert served.operations.admission.idle
        assert (await ask(served, await served.http()))[0] == 200


@pytest.mark.parametrize("way", ["http", "websocket"])
async def test_the_bytes_of_bodies_are_bounded(way: str) -> None:
    body: Any = {"query": "{ echo }", "variables": {"unused": "x" * 600_000}}
    async with gated(bodies_bytes_max=1_000_000) as served:
        if way == "http":
            http = await served.http()
            first = asyncio.create_task(http.post(served.url, json=body))
            await until(lambda: len(served.contexts.seen) == 1)
            second = await http.post(served.url, json=body)
            assert (second.status_code, second.headers["retry-after"]) == (503, str(RETRY_SECONDS))
            open_gate(served)
            assert (await first).status_code == 200
            assert (await http.post(served.url, json=body)).status_code == 200
        else:
            client = await served.socket()
            await client.subscribe(**body)
            await until(lambda: len(served.contexts.seen) == 1)
            with suppress(ConnectionClosed):
                await client.subscribe(operation_id="2", **body)
            assert (await client.closed())[0] == 1013
            open_gate(served)


async def test_health_waits_for_nobody(settings: Settings) -> None:
    app = create_app(settings.model_copy(update={"requests_max": 1, "request_queue_max": 0}))
    async with api_over(app) as api:
        (turn,) = [app.state.operations.admission.turn("default")]
        async with turn:
            refused = await api.http.post("/graphql", content=json.dumps(ECHO), headers={"content-type": JSON})
            assert (refused.status_code, refused.json()["errors"][0]["extensions"]["code"]) == (503, "UNAVAILABLE")
            assert (await api.http.get("/health")).json()["status"] == "healthy"
        assert app.state.operations.admission.idle
