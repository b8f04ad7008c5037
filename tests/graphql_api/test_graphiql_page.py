"""GraphiQL over HTTP: the page and its policy, the files that it loads, and their absence."""

import re
from pathlib import Path

import httpx2
import pytest

from graphql_api.app import create_app
from graphql_api.graphiql_page import FOLDER
from graphql_api.settings import Settings
from schema.errors import Code
from tests.client import Api
from tests.conftest import api_over
from tests.graphql_api.asking import BROWSER

PAGE = {"accept": BROWSER}
FILES = sorted(file.name for file in FOLDER.iterdir() if file.suffix in {".js", ".css", ".ttf"})
NONCE = re.compile(r"'nonce-([A-Za-z0-9_-]{22})'")


def code(response: httpx2.Response) -> str:
    """Give the code of a refusal, which is JSON and kept nowhere."""
    assert (response.headers["content-type"], response.headers["cache-control"]) == ("application/json", "no-store")
    (error,) = response.json()["errors"]
    return str(error["extensions"]["code"])


async def test_the_page_lives_under_a_policy_that_admits_nothing_from_elsewhere(api: Api) -> None:
    headers = (await api.http.get("/graphql", headers=PAGE)).headers
    policy = dict(part.split(" ", 1) for part in headers["content-security-policy"].split("; "))
    nonce = NONCE.search(headers["content-security-policy"])
    assert nonce is not None
    assert policy == {
        "default-src": "'none'",
        "script-src": "'self'",
        "worker-src": "'self'",
        "connect-src": "'self'",
        "font-src": "'self'",
        "img-src": "'self' data:",
        "style-src-elem": f"'self' 'nonce-{nonce[1]}'",
        "style-src-attr": "'unsafe-inline'",
        "base-uri": "'none'",
        "form-action": "'none'",
        "frame-ancestors": "'none'",
    }
    assert headers["referrer-policy"] == "no-referrer"
    assert headers["cross-origin-opener-policy"] == "same-origin"
    assert "camera=()" in headers["permissions-policy"]
    assert (headers["x-content-type-options"], headers["cache-control"]) == ("nosniff", "no-store")


async def test_each_page_has_a_nonce_of_its_own(api: Api) -> None:
    nonces = set()
    for _ in range(10):
        page = await api.http.get("/graphql", headers=PAGE)
        (nonce,) = NONCE.findall(page.headers["content-security-policy"])
        assert page.text.count(f'nonce="{nonce}"') == 1
        nonces.add(nonce)
    assert len(nonces) == 10


async def test_what_the_page_names_is_there_and_nothing_else_is_named(api: Api) -> None:
    page = (await api.http.get("/graphql", headers=PAGE)).text
    named = re.findall(r'(?:src|href)="([^"]+)"', page)
    assert [name for name in named if name != "data:,"] == [f"graphiql/{name}" for name in named_files(page)]
    assert re.search(r"https?:|//", page) is None
    for name in named_files(page):
        assert (await api.http.get(f"/graphiql/{name}")).status_code == 200


def named_files(page: str) -> list[str]:
    return [name for name in re.findall(r'"graphiql/([^"]+)"', page) if name in FILES]


@pytest.mark.parametrize("name", FILES)
async def test_a_file_is_what_was_built_and_may_be_kept_for_ever(api: Api, name: str) -> None:
    types = {".js": "text/javascript; charset=utf-8", ".css": "text/css; charset=utf-8", ".ttf": "font/ttf"}
    found, head = await api.http.get(f"/graphiql/{name}"), await api.http.head(f"/graphiql/{name}")
    assert found.content == (FOLDER / name).read_bytes()
    assert (found.status_code, found.headers["content-type"]) == (200, types[Path(name).suffix])
    assert found.headers["cache-control"] == "public, max-age=31536000, immutable"
    assert found.headers["x-content-type-options"] == "nosniff"
    assert found.headers["content-security-policy"] == "default-src 'none'; script-src 'self'; frame-ancestors 'none'"
    volatile = {"x-request-id"}
    assert (head.status_code, head.content) == (200, b"")
    assert {k: v for k, v in head.headers.items() if k not in volatile} == {
        k: v for k, v in found.headers.items() if k not in volatile
    }


@pytest.mark.parametrize(
    "name",
    [
        "",
        "nothing.js",
        "index.html",
        "licenses.md",
        "..%2Fgraphiql_page.py",
        "%2e%2e/graphiql_page.py",
        "%2Fetc%2Fpasswd",
        "x%2F..%2F" + FILES[0],
        FILES[0] + "%00",
        FILES[0].upper(),
        "%FF",
    ],
)
async def test_whatever_else_is_asked_for_is_not_there(api: Api, name: str) -> None:
    response = await api.http.send(
        httpx2.Request("GET", httpx2.URL("http://localhost", raw_path=f"/graphiql/{name}".encode()))
    )
    assert (response.status_code, code(response)) == (404, Code.NOT_FOUND)


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "PATCH"])
async def test_files_are_only_read(api: Api, method: str) -> None:
    response = await api.http.request(method, f"/graphiql/{FILES[0]}")
    assert (response.status_code, code(response)) == (405, Code.BAD_USER_INPUT)
    assert response.headers["allow"] == "GET, HEAD"


async def test_where_it_is_switched_off_neither_the_page_nor_its_files_are_there(settings: Settings) -> None:
    async with api_over(create_app(settings.model_copy(update={"graphiql": False}))) as api:
        assert (await api.http.get("/graphql", headers=PAGE)).status_code == 400
        assert (await api.http.get("/graphql", headers={"accept": "text/html"})).status_code == 406
        assert (await api.http.get(f"/graphiql/{FILES[0]}")).status_code == 404
