"""What tests share: an embedded PostgreSQL for the session, a database for each test, the application over it."""

import asyncio
import logging
import os
import tempfile
import uuid
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import httpx2
import hypothesis
import psycopg
import pytest
import structlog
import uvloop
from psycopg import sql
from pydantic import SecretStr
from starlette.applications import Starlette

from db import embedded, embedded_role, migrate
from graphql_api.app import create_app
from graphql_api.settings import Settings
from tests import parallel
from tests.client import Api

TEMPLATE = "forkpoint_template"

# How long an example takes says more about the machine than about the code.
hypothesis.settings.register_profile("forkpoint", deadline=None)
hypothesis.settings.load_profile("forkpoint")


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Run many tests in several processes, each with a server of its own."""
    return parallel.workers(config.args, os.cpu_count() or 1)


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> parallel.Scheduling:
    """Spread them as fits what they share."""
    return parallel.Scheduling(config, log)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the tests of the whole service, which take longest: no process shall be left with one at the end."""
    items.sort(key=lambda item: len(item.path.parents))


def pytest_asyncio_loop_factories(item: pytest.Item) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Run what is marked `every_loop` in the event loop that serves, too: they tell of broken sockets differently."""
    factories: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {"asyncio": asyncio.new_event_loop}
    return factories | {"uvloop": uvloop.new_event_loop} if item.get_closest_marker("every_loop") else factories


@pytest.fixture(autouse=True)
def logging_apart() -> Iterator[None]:
    """Begin with logging as it is before anybody configures it, and leave no stream behind, which may be closed."""
    structlog.reset_defaults()
    loggers = [logging.getLogger(name) for name in ("", "uvicorn", "uvicorn.error", "uvicorn.access", "uvicorn.asgi")]
    state = [(each, each.handlers[:], each.filters[:], each.level, each.propagate) for each in loggers]
    yield
    structlog.reset_defaults()
    for logger, handlers, filters, level, propagate in state:
        logger.handlers[:], logger.filters[:], logger.propagate = handlers, filters, propagate
        logger.setLevel(level)


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """URL of a throw-away server, as its superuser."""
    with tempfile.TemporaryDirectory(prefix="forkpoint-test-", ignore_cleanup_errors=True) as folder:
        home = Path(folder)
        home.chmod(0o755)
        with embedded.running(home / "home") as server:
            hurry(server.url)
            yield server.url


def hurry(url: str) -> None:
    """Let a server not wait for its disk, as for every database that is dropped: only the machine's end would tell."""
    with psycopg.connect(url, autocommit=True) as connection:
        for setting in ("fsync", "full_page_writes"):
            connection.execute(sql.SQL("alter system set {} = off").format(sql.Identifier(setting)))
        connection.execute("select pg_reload_conf()")


def with_database(url: str, name: str) -> str:
    """Give the URL of another database of the same server."""
    return urlunsplit(urlsplit(url)._replace(path=f"/{name}"))


@pytest.fixture(scope="session")
def template(postgres: str) -> str:
    """Name of a migrated database, to be copied."""
    with psycopg.connect(postgres, autocommit=True) as connection:
        connection.execute(sql.SQL("create database {}").format(sql.Identifier(TEMPLATE)))
    migrate.up(with_database(postgres, TEMPLATE))
    embedded_role.make(with_database(postgres, TEMPLATE))
    return TEMPLATE


@contextmanager
def copied(postgres: str, template: str) -> Iterator[str]:
    """Give the URL of a copy of a database, which goes again in the end.

    Files are copied, in 13 ms of CPU time: through the log, as PostgreSQL would by itself, it were 83.
    """
    name = f"test_{uuid.uuid4().hex}"
    copy, original = sql.Identifier(name), sql.Identifier(template)
    with psycopg.connect(postgres, autocommit=True) as connection:
        connection.execute(sql.SQL("create database {} template {} strategy file_copy").format(copy, original))
        yield with_database(postgres, name)
        connection.execute(sql.SQL("drop database {} with (force)").format(copy))


@pytest.fixture
def database_url(postgres: str, template: str) -> Iterator[str]:
    """URL of a migrated, empty database."""
    with copied(postgres, template) as url:
        yield url


def as_service(url: str) -> str:
    """Give the same URL for the role that serves, whom row security binds; that of other URLs is a superuser."""
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=f"{embedded_role.ROLE}@{parts.netloc.rpartition('@')[2]}"))


@pytest.fixture
def service_url(database_url: str) -> str:
    """URL of a migrated, empty database, for the role that serves."""
    return as_service(database_url)


@pytest.fixture
def settings(database_url: str) -> Settings:
    """Settings of the application under test, untouched by the environment of whoever runs the tests."""
    return Settings(_env_file=None, database_url=SecretStr(database_url), log_level="error")


@asynccontextmanager
async def api_over(app: Starlette) -> AsyncIterator[Api]:
    """Run the application in this process and speak to it."""
    transport = httpx2.ASGITransport(app=app, raise_app_exceptions=False)
    async with (
        app.router.lifespan_context(app),
        httpx2.AsyncClient(transport=transport, base_url="http://localhost", timeout=60) as http,
    ):
        # Which way a request takes depends on whether the fast lane is there already.
        await app.state.database.lanes_ready(2)
        yield Api(http)


@pytest.fixture
async def api(settings: Settings) -> AsyncIterator[Api]:
    """Speak to the application over an empty database."""
    async with api_over(create_app(settings)) as api:
        yield api
