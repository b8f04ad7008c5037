"""Pages of other origins in a real browser: what they try to write is refused, and only an allowed one reads."""

import json
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx2
import pytest
from playwright.sync_api import Browser

from tests import browser
from tests.db.migrating import empty_database
from tests.program import Program, ask, folder_for_all, serving

WRITE = 'mutation { createContext(input: { name: "forged" }) { context { id } } }'
COUNT = "{ contexts { totalCount } }"

# Everything that a page can send without a question beforehand, with all that may be sent along. Gives how often each
# was sent, and how often the page got anything for it: not even an answer that it could not look into.
FORGE = """
async ([url, write]) => {
  const body = JSON.stringify({ query: write });
  const simple = ["application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "text/plain"];
  let posts = 0, gets = 0, got = 0;
  const send = (address, options) =>
    fetch(address, { mode: "no-cors", credentials: "include", ...options }).then(() => got++).catch(() => null);
  const post = (content, headers) => send(url, { method: "POST", headers, body: content }).then(() => posts++);
  for (const type of [...simple, "text/plain; application/json"]) await post(body, { "content-type": type });
  await post(new Blob([body]), {});
  await post(new TextEncoder().encode(body), {});
  await post(new URLSearchParams({ query: write }), {});
  // Not simple: the browser leaves such a type out.
  await post(body, { "content-type": "application/json" });
  for (const enctype of ["application/x-www-form-urlencoded", "multipart/form-data", "text/plain"]) {
    const frame = Object.assign(document.createElement("iframe"), { name: `frame${posts}` });
    document.body.append(frame);
    const target = { method: "POST", action: url, enctype, target: frame.name };
    const form = Object.assign(document.createElement("form"), target);
    form.append(Object.assign(document.createElement("input"), { name: body.slice(0, -1) + ',"x":"', value: '"}' }));
    document.body.append(form);
    const loaded = new Promise((resolve) => frame.addEventListener("load", resolve));
    form.submit();
    await loaded;
    posts++;
  }
  const query = `${url}?${new URLSearchParams({ query: write })}`;
  await send(query, {}).then(() => gets++);
  await send(query, { method: "HEAD" });
  const image = new Image();
  await new Promise((resolve) => Object.assign(image, { onerror: resolve, onload: resolve, src: query }));
  gets++;
  return { posts, gets, got };
}
"""

# What a client does: gives the answer, or why there is none.
CALL = """
async ([url, query]) => {
  try {
    const headers = { "content-type": "application/json", "x-client": "one" };
    const response = await fetch(url, { method: "POST", headers, body: JSON.stringify({ query }) });
    return [await response.json(), response.headers.has("x-request-id"), response.headers.has("server-timing")];
  } catch (error) {
    return error.name;
  }
}
"""

READ = """
async ([url, query]) => {
  try {
    return await (await fetch(`${url}?${new URLSearchParams({ query })}`)).json();
  } catch (error) {
    return error.name;
  }
}
"""


class Blank(BaseHTTPRequestHandler):
    """An empty page at every path."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("content-type", "text/html")
        self.end_headers()
        self.wfile.write(b"<!doctype html><title>A page</title>")

    def log_message(self, *_args: object) -> None:
        pass


@contextmanager
def origin() -> Iterator[str]:
    """Serve pages of an origin of their own."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Blank) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with browser.running() as running:
        yield running


@dataclass
class World:
    """A service that allows one origin, and two origins."""

    program: Program
    address: str
    allowed: str
    other: str

    def statuses(self) -> Counter[tuple[str, int]]:
        """Count what the endpoint has answered, by method and status."""
        httpx2.get(f"{self.address}/health")  # a line is written before the next request is read
        lines = [json.loads(line) for line in self.program.said().splitlines() if line.startswith("{")]
        return Counter((line["method"], line["status"]) for line in lines if line.get("path") == "/graphql")


@pytest.fixture
def world(postgres: str) -> Iterator[World]:
    with ExitStack() as stack:
        allowed, other = stack.enter_context(origin()), stack.enter_context(origin())
        url = stack.enter_context(empty_database(postgres))
        folder = stack.enter_context(folder_for_all())
        settings = {"DATABASE_URL": url, "FORKPOINT_ALLOWED_ORIGINS": f"https://app.example.org, {allowed}"}
        program = stack.enter_context(serving(folder, "--migrate", **settings))
        yield World(program, program.address(), allowed, other)


def test_a_page_writes_nothing_that_it_was_not_allowed_to(chromium: Browser, world: World) -> None:
    url = f"{world.address}/graphql"
    for page_of in (world.other, world.allowed):  # nor does an allowed one by what is no proper request
        before = world.statuses()
        with browser.visit(chromium) as visit:
            visit.page.goto(page_of)
            sent = visit.page.evaluate(FORGE, [url, WRITE])
        # All of it has arrived, and nothing else.
        arrived = {("POST", 415): sent["posts"], ("GET", 405): sent["gets"], ("HEAD", 405): 1}
        assert world.statuses() - before == arrived
        assert sent == {"posts": 11, "gets": 2, "got": 0}
    assert ask(world.address, COUNT) == {"contexts": {"totalCount": 0}}


def test_only_a_page_of_an_allowed_origin_calls_and_reads(chromium: Browser, world: World) -> None:
    url = f"{world.address}/graphql"
    with browser.visit(chromium) as visit:
        visit.page.goto(world.other)
        assert visit.page.evaluate(CALL, [url, WRITE]) == "TypeError"
        assert visit.page.evaluate(READ, [url, COUNT]) == "TypeError"
        assert ask(world.address, COUNT) == {"contexts": {"totalCount": 0}}
        visit.page.goto(world.allowed)
        assert visit.page.evaluate(CALL, [url, "{ __typename }"]) == [{"data": {"__typename": "Query"}}, True, True]
        answer, *_ = visit.page.evaluate(CALL, [url, WRITE])
        assert list(answer) == ["data"]
        assert visit.page.evaluate(READ, [url, COUNT]) == {"data": {"contexts": {"totalCount": 1}}}
        # A refusal can be read as well.
        answer, *_ = visit.page.evaluate(CALL, [url, ""])
        assert [error["extensions"]["code"] for error in answer["errors"]] == ["BAD_USER_INPUT"]
