"""GraphiQL in a real browser, over the service as users start it."""

import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest
import uvicorn
from playwright.sync_api import Browser, Locator, expect
from starlette.applications import Starlette
from starlette.routing import Mount

from graphql_api.app import create_app
from graphql_api.settings import Settings
from tests import browser, program
from tests.browser import WAIT_MILLISECONDS, Visit
from tests.db.migrating import empty_database
from tests.program import ask
from tests.test_graphiql_build import TITLES

CREATE = 'mutation { createContext(input: {name: "made before"}) { context { id } } }'
APPEND = """
mutation ($id: ID!, $content: String!) {
  appendMessages(input: {contextId: $id, messages: [{role: USER, content: $content}]}) { messages { version } }
}
"""
NEWEST = "{ contexts(first: 1, orderBy: {field: CREATED_AT}) { nodes { id } } }"
FORK = "mutation ($id: ID!) { forkContext(input: {contextId: $id}) { context { id } } }"

expect.set_options(timeout=WAIT_MILLISECONDS)


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with browser.running() as running:
        yield running


@pytest.fixture(scope="module")
def address(postgres: str) -> Iterator[str]:
    """Give the address of a service."""
    with ExitStack() as stack:
        folder = stack.enter_context(program.folder_for_all())
        url = stack.enter_context(empty_database(postgres))
        yield stack.enter_context(program.serving(folder, "--migrate", DATABASE_URL=url)).address()


@contextmanager
def listening(app: Starlette) -> Iterator[str]:
    """Serve an application from a thread, and give its address."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        server = uvicorn.Server(uvicorn.Config(app, log_config=None))
        thread = threading.Thread(target=server.run, args=([taken],))
        thread.start()
        while not server.started:
            time.sleep(0.01)
        try:
            yield f"http://127.0.0.1:{taken.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()


class GraphiQL:
    """GraphiQL as somebody uses it who looks at the screen."""

    def __init__(self, visit: Visit, url: str) -> None:
        self.visit, self.page = visit, visit.page
        self.page.goto(url)
        expect(self.page.get_by_role("button", name="Show Documentation Explorer")).to_be_visible()
        self.tabs = self.page.locator(".graphiql-tab-button")
        self.operation = self.page.locator(".graphiql-query-editor .view-lines")
        self.variables = self.page.locator(".graphiql-editor-tool .view-lines").first
        self.response = self.page.locator(".graphiql-response .view-lines")
        expect(self.operation).to_be_visible()

    def open(self, title: str) -> None:
        """Choose another tab."""
        self.tabs.get_by_text(title, exact=True).click()
        self.settle("query", f" {title}")

    def settle(self, name: str, text: str) -> None:
        """Wait until GraphiQL has read what stands in an editor: a tenth of a second after the last change to it."""
        self.page.wait_for_function(
            "([key, text]) => localStorage[key]?.includes(text)", arg=[f"graphiql:{name}", text]
        )

    def write(self, place: Locator, text: str) -> None:
        """Replace what stands in an editor; `paste` spares it the brackets that Monaco closes by itself."""
        place.click()
        self.page.keyboard.press("Control+A")
        self.page.keyboard.insert_text(text)

    def run(self) -> None:
        """Press the button."""
        self.page.get_by_role("button", name="Execute query").click()


@pytest.fixture
def graphiql(chromium: Browser, address: str) -> Iterator[GraphiQL]:
    with browser.visit(chromium) as visit:
        yield GraphiQL(visit, f"{address}/graphql")


def test_it_opens_without_asking_anybody_else_and_without_a_complaint(graphiql: GraphiQL, address: str) -> None:
    expect(graphiql.tabs).to_have_text(TITLES)
    graphiql.page.wait_for_load_state("networkidle")
    assert [url for url in graphiql.visit.requests if not url.startswith((f"{address}/", "data:"))] == []
    assert graphiql.visit.complaints == []


def test_the_examples_run_one_after_another_with_the_ids_of_what_they_made(graphiql: GraphiQL) -> None:
    shown = {
        "Create": ['"latestVersion": 4'],
        "Append": ['"version": 5'],
        "Fork": ['"forkVersion": 3', "flights or trains?"],
        "AppendToFork": ['"version": 4', "On which day?", '"latestVersion": 5'],
        "Window": ['"version": 1', '"truncated": true'],
        "Diff": ['"commonAncestor": { "version": 3 }', "There is one at 9:40.", '"name": "by train"', "On which day?"],
        "Health": ['"status": "HEALTHY"'],
    }
    for title, texts in shown.items():
        if title != TITLES[0]:  # which is open already
            graphiql.open(title)
        graphiql.run()
        for text in texts:
            expect(graphiql.response).to_contain_text(text)
        expect(graphiql.response).not_to_contain_text('"errors"')
    assert graphiql.visit.complaints == []


def test_what_exists_already_is_at_hand_for_the_examples(chromium: Browser, address: str) -> None:
    made = [ask(address, CREATE)["createContext"]["context"]["id"] for _ in range(2)]
    fork = ask(address, FORK, id=made[1])["forkContext"]["context"]["id"]
    with browser.visit(chromium) as visit:
        graphiql = GraphiQL(visit, f"{address}/graphql")
        graphiql.open("Diff")
        expect(graphiql.variables).to_contain_text(f'"contextId": "{made[1]}", "forkId": "{fork}"')


def test_an_id_that_somebody_wrote_stays(graphiql: GraphiQL, address: str) -> None:
    own = ask(address, CREATE)["createContext"]["context"]["id"]
    graphiql.open("Window")
    graphiql.write(graphiql.variables, json.dumps({"contextId": own}))
    graphiql.settle("variables", own)
    graphiql.open("Create")
    graphiql.run()
    expect(graphiql.response).to_contain_text('"latestVersion": 4')
    graphiql.open("Append")
    expect(graphiql.variables).not_to_contain_text('"contextId": ""')
    expect(graphiql.variables).not_to_contain_text(own)
    graphiql.open("Window")
    expect(graphiql.variables).to_contain_text(own)


def test_what_was_written_is_there_again_after_a_reload(graphiql: GraphiQL) -> None:
    graphiql.open("Health")
    graphiql.write(graphiql.operation, "query Mine { __typename }")
    expect(graphiql.tabs.last).to_have_text("Mine")
    graphiql.settle("tabState", "Mine")
    graphiql.page.reload()
    expect(graphiql.tabs).to_have_text([*TITLES[:-1], "Mine"])
    expect(graphiql.operation).to_contain_text("query Mine { __typename }")


def test_a_subscription_shows_what_another_client_appends_meanwhile(graphiql: GraphiQL, address: str) -> None:
    graphiql.run()
    expect(graphiql.response).to_contain_text('"latestVersion": 4')
    graphiql.open("Subscribe")
    expect(graphiql.variables).not_to_contain_text('""')
    graphiql.run()
    expect(graphiql.response).to_contain_text('"version": 4, "latestVersion": 4')
    (context,) = [node["id"] for node in ask(address, NEWEST)["contexts"]["nodes"]]
    for version in range(5, 15):
        ask(address, APPEND, id=context, content=f"It is {version} o'clock.")
        expect(graphiql.response).to_contain_text(f'"content": "It is {version} o\'clock."')
        expect(graphiql.response).to_contain_text(f'"version": {version}, "latestVersion": {version}')
    graphiql.page.get_by_role("button", name="Stop query").click()
    expect(graphiql.page.get_by_role("button", name="Execute query")).to_be_visible()
    assert f"{address}/graphql".replace("http:", "ws:") in graphiql.visit.requests
    assert graphiql.visit.complaints == []


def test_the_documentation_tells_what_a_type_is(graphiql: GraphiQL) -> None:
    graphiql.page.get_by_role("button", name="Show Documentation Explorer").click()
    pane = graphiql.page.get_by_role("region", name="Documentation Explorer")
    pane.get_by_text("Query", exact=True).click()
    pane.get_by_text("ContextConnection", exact=False).first.click()
    pane.get_by_text("Context", exact=True).first.click()
    expect(pane).to_contain_text("A conversation or agent run: a growing list of messages")
    assert graphiql.visit.complaints == []


def test_the_explorer_shows_fields_and_writes_those_that_are_ticked(graphiql: GraphiQL) -> None:
    graphiql.open("Health")
    graphiql.page.get_by_role("button", name="Show GraphiQL Explorer").click()
    pane = graphiql.page.locator(".graphiql-explorer-root")
    for field in ("context", "contexts", "node", "nodes", "health", "timestamp"):
        expect(pane.get_by_text(field, exact=True)).to_be_visible()
    expect(graphiql.operation).not_to_contain_text("timestamp")
    pane.get_by_text("timestamp", exact=True).click()
    expect(graphiql.operation).to_contain_text("timestamp")
    assert graphiql.visit.complaints == []


def test_the_editor_completes_fields_and_marks_what_is_wrong(graphiql: GraphiQL) -> None:
    graphiql.open("Health")
    graphiql.write(graphiql.operation, "{ hea")
    suggestion = graphiql.page.locator(".suggest-widget .monaco-list-row")
    expect(suggestion.first).to_contain_text("health")
    graphiql.write(graphiql.operation, "{ nothing }")
    expect(graphiql.page.locator(".graphiql-query-editor .squiggly-error")).not_to_have_count(0)
    assert graphiql.visit.complaints == []


def test_history_keeps_what_was_run_and_the_dialogs_open(graphiql: GraphiQL) -> None:
    graphiql.open("Health")
    graphiql.run()
    expect(graphiql.response).to_contain_text('"status": "HEALTHY"')
    graphiql.page.get_by_role("button", name="Show History").click()
    expect(graphiql.page.get_by_role("region", name="History")).to_contain_text("Health")
    for name, text in {"Open settings dialog": "Theme", "Open short keys dialog": "Execute query"}.items():
        graphiql.page.get_by_role("button", name=name).click()
        expect(graphiql.page.get_by_role("dialog")).to_contain_text(text)
        graphiql.page.keyboard.press("Escape")
        expect(graphiql.page.get_by_role("dialog")).to_have_count(0)
    assert graphiql.visit.complaints == []


def test_the_operation_is_formatted(graphiql: GraphiQL) -> None:
    graphiql.open("Window")
    graphiql.write(graphiql.operation, "query Window($contextId: ID!) { context(id: $contextId) { name } } # why")
    graphiql.page.get_by_role("button", name="Prettify query").click()
    expect(graphiql.page.locator(".graphiql-query-editor .view-line")).to_have_count(6)
    expect(graphiql.operation).to_contain_text("# why")
    assert graphiql.visit.complaints == []


def test_below_another_path_it_finds_its_files_and_the_service(chromium: Browser, settings: Settings) -> None:
    app = create_app(settings)
    above = Starlette(routes=[Mount("/deep/down", app)], lifespan=app.router.lifespan_context)
    with listening(above) as address, browser.visit(chromium) as visit:
        graphiql = GraphiQL(visit, f"{address}/deep/down/graphql")
        graphiql.open("Health")
        graphiql.run()
        expect(graphiql.response).to_contain_text('"status": "HEALTHY"')
        assert [url for url in visit.requests if not url.startswith((f"{address}/deep/down/", "data:"))] == []
        assert visit.complaints == []
