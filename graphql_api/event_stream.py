"""Streams over HTTP: the outcomes of one operation, each sent when the one before it is, and signs of life meanwhile.

Two framings of the same: Server-Sent Events (https://github.com/enisdenjo/graphql-sse/blob/master/PROTOCOL.md, distinct
connections mode) and multipart, which Apollo's clients read
(https://www.apollographql.com/docs/graphos/routing/operations/subscriptions/multipart-protocol). A stream that ended
for another reason than that everything was sent lacks its closing words, and clients connect anew.
"""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass

from starlette.types import Receive, Send

from graphql_api.ending import end
from graphql_api.json_body import encode
from graphql_api.media import EVENT_STREAM, MULTIPART
from graphql_api.outcome import Outcome, refused
from graphql_api.response_stream import ResponseStream
from schema.errors import mask

Begin = Callable[[], Awaitable[Outcome | ResponseStream]]


@dataclass(frozen=True, slots=True)
class Framing:
    """What stands around outcomes: before the first, around each, between them when nothing comes, after the last."""

    content_type: bytes
    opening: bytes
    before: bytes
    after: bytes
    heartbeat: bytes
    closing: bytes


# A part is read when the boundary after it is there, so that is sent with the part. The data of `complete` are empty
# but there, or EventSource would pass it over.
FRAMINGS = {
    EVENT_STREAM: Framing(
        b"text/event-stream; charset=utf-8",
        b":\n\n", b"event: next\ndata: ", b"\n\n", b":\n\n", b"event: complete\ndata:\n\n",
    ),
    MULTIPART: Framing(
        b'multipart/mixed; boundary="graphql"; subscriptionSpec="1.0"',
        b"\r\n--graphql",
        b'\r\ncontent-type: application/json\r\n\r\n{"payload":', b"}\r\n--graphql",
        b"\r\ncontent-type: application/json\r\n\r\n{}\r\n--graphql", b"--\r\n",
    ),
}  # fmt: skip


class HttpStream:
    """One stream. It ends when everything was sent, the client leaves, or `stopping` is set."""

    def __init__(
        self,
        framing: Framing,
        receive: Receive,
        send: Send,
        *,
        keep_alive_seconds: float,
        stopping: asyncio.Event,
        tells_execution: bool,
    ) -> None:
        self._framing = framing
        self._receive = receive
        self._send = send
        self._keep_alive_seconds = keep_alive_seconds
        self._stopping = stopping
        self._tells_execution = tells_execution
        self._sending = asyncio.Lock()

    async def run(self, begin: Begin, headers: list[tuple[bytes, bytes]]) -> None:
        """Send all that `begin` gives; nothing is under way afterwards."""
        start = [*headers, (b"content-type", self._framing.content_type), (b"x-accel-buffering", b"no")]
        await self._send({"type": "http.response.start", "status": 200, "headers": start})
        await self._put(self._framing.opening)
        outcomes = asyncio.create_task(self._send_outcomes(begin))
        leaving = asyncio.create_task(self._wait_for_disconnect())
        tasks = [outcomes, leaving, asyncio.create_task(self._beat())]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            left, complete = leaving.done(), outcomes.done()
            for task in tasks:
                end(task)
            await asyncio.wait(tasks)
        if not left:
            closing = self._framing.closing if complete else b""
            await self._send({"type": "http.response.body", "body": closing, "more_body": False})

    async def _send_outcomes(self, begin: Begin) -> None:
        try:
            found = await begin()
            if isinstance(found, Outcome):
                await self._send_outcome(found)
                return
            async with aclosing(found):
                async for outcome in found:
                    await self._send_outcome(outcome)
        except Exception as error:  # noqa: BLE001 - the last guard: nothing that failed may show
            await self._send_outcome(refused([mask(error)]))

    async def _send_outcome(self, outcome: Outcome) -> None:
        body = encode(outcome.told(execution=self._tells_execution))
        await self._put(self._framing.before + body + self._framing.after)

    async def _wait_for_disconnect(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass

    async def _beat(self) -> None:
        """Send signs of life until the server stops; none to a client that has not read the last message yet."""
        while not self._stopping.is_set():
            try:
                async with asyncio.timeout(self._keep_alive_seconds):
                    await self._stopping.wait()
            except TimeoutError:
                if not self._sending.locked():
                    await self._put(self._framing.heartbeat)

    async def _put(self, body: bytes) -> None:
        async with self._sending:
            await self._send({"type": "http.response.body", "body": body, "more_body": True})
