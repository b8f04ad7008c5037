"""What is open when `forkpoint serve` stops: clients are told to come again, and nobody waits for them."""

import asyncio
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx2
import pytest
from websockets.asyncio.client import connect
from websockets.typing import Subprotocol

from graphql_api.websocket import PROTOCOL
from tests.graphql_api.serving import SECONDS_MAX, Socket
from tests.program import STOP_SECONDS_MAX, Program, environment, started

# The service with another schema: every process that it starts reads this file first.
SERVE = """
import graphql_api.app
from tests.graphql_api.small_schema import SMALL

graphql_api.app.schema = SMALL
if __name__ == "__main__":
    from graphql_api.cli import main

    main()
"""
MODES = {"one process": [], "workers": ["--workers", "2"], "reload": ["--reload"]}
UNTOLD = "subscription { untold }"


@contextmanager
def serving_small(folder: Path, database_url: str, *arguments: str, **variables: str) -> Iterator[Program]:
    script = folder / "serve.py"
    script.write_text(SERVE)
    # A service that waited for its streams would take longer than a test waits for it.
    settings = {"FORKPOINT_PORT": "0", "FORKPOINT_SHUTDOWN_SECONDS": str(2 * STOP_SECONDS_MAX)} | variables
    command = [sys.executable, str(script), "serve", *arguments]
    with started(command, folder, environment(DATABASE_URL=database_url, **settings)) as program:
        yield program


async def event_stream(address: str, started: asyncio.Event) -> str:
    """Read a stream to its end."""
    text = ""
    async with (
        httpx2.AsyncClient(timeout=STOP_SECONDS_MAX) as client,
        client.stream(
            "POST", f"{address}/graphql", json={"query": UNTOLD}, headers={"accept": "text/event-stream"}
        ) as response,
    ):
        async for piece in response.aiter_text():
            text += piece
            if "untold" in text:
                started.set()
    return text


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("mode", MODES)
async def test_streams_end_at_once_and_so_that_clients_come_again(
    tmp_path: Path, database_url: str, mode: str, number: signal.Signals
) -> None:
    with serving_small(tmp_path, database_url, *MODES[mode]) as program:
        address = await asyncio.to_thread(program.address)
        url = address.replace("http:", "ws:") + "/graphql"
        began = [asyncio.Event() for _ in range(4)]
        streams = [asyncio.create_task(event_stream(address, each)) for each in began]
        sockets = [Socket(await connect(url, subprotocols=[Subprotocol(PROTOCOL)])) for _ in range(4)]
        for each in sockets[:3]:  # one of them is idle
            await (await each.init()).subscribe(UNTOLD)
            assert await each.next() == {"data": {"untold": 1}}
        async with asyncio.timeout(SECONDS_MAX):
            await asyncio.gather(*(event.wait() for event in began))
        os.killpg(program.process.pid, number)  # as a terminal does
        assert [(await each.closed())[0] for each in sockets] == [1012] * 4
        texts = await asyncio.gather(*streams)
        assert await asyncio.to_thread(program.process.wait, STOP_SECONDS_MAX) == 0
        said = program.said()
    assert texts == [':\n\nevent: next\ndata: {"data":{"untold":1}}\n\n'] * 4
    assert "Traceback" not in said
    assert "without completing" not in said
    assert '"level":"error"' not in said
    assert said.count('"event":"websocket"') == 4


async def test_clients_that_vanish_leave_no_stack_trace_and_frames_and_queries_are_not_logged(
    tmp_path: Path, database_url: str
) -> None:
    with serving_small(tmp_path, database_url, "--workers", "2", FORKPOINT_LOG_LEVEL="debug") as program:
        address = await asyncio.to_thread(program.address)
        url = address.replace("http:", "ws:") + "/graphql?token=secret"
        for _ in range(4):
            client = await Socket(await connect(url, subprotocols=[Subprotocol(PROTOCOL)])).init()
            await client.subscribe(UNTOLD, variables={"name": "secret"})
            await client.next()
            client.connection.transport.abort()
        await asyncio.to_thread(program.wait_for, r'(?s)("event":"websocket".*){4}')
        assert program.stop(signal.SIGTERM) == 0
        said = program.said()
    assert "secret" not in said
    assert "Traceback" not in said
