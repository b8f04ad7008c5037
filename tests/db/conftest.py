"""What the tests of plans share: one database with long histories, made once."""

import asyncio
from collections.abc import AsyncIterator, Iterator

import psycopg
import pytest
import uuid_utils.compat

from db.pool import Database
from tests.conftest import as_service, copied
from tests.db import two_tenants
from tests.db.two_tenants import plant
from tests.db.world import Explain, World, fork_long, grow, load


@pytest.fixture(scope="session")
def world(postgres: str, template: str) -> Iterator[World]:
    long, late, parent = (uuid_utils.compat.uuid7() for _ in range(3))
    with copied(postgres, template) as url:
        with psycopg.connect(url) as connection:
            load(connection, long, late, parent)
        chain = asyncio.run(grow(url))
        tip, middle = asyncio.run(fork_long(url, long))
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute("vacuum analyze")
        yield World(url, long, tip, middle, late, chain, parent)


@pytest.fixture(params=["force_generic_plan", "force_custom_plan"])
def explain(world: World, request: pytest.FixtureRequest) -> Iterator[Explain]:
    """Explain plans that fit any parameters, and those made for known ones: PostgreSQL chooses between them."""
    with psycopg.connect(world.url, prepare_threshold=None) as connection:
        yield Explain(connection, request.param)


@pytest.fixture
def explain_batch(world: World) -> Iterator[Explain]:
    """Explain plans for any parameters: knowing a hundred ids, the planner may well scan a table as small as this."""
    with psycopg.connect(world.url, prepare_threshold=None) as connection:
        yield Explain(connection, "force_generic_plan")


@pytest.fixture
def explain_list(world: World) -> Iterator[Explain]:
    """Explain plans made for known parameters: a filter that is null must be gone before the plan is chosen."""
    with psycopg.connect(world.url, prepare_threshold=None) as connection:
        yield Explain(connection, "force_custom_plan")


@pytest.fixture(scope="module")
def both_url(postgres: str, template: str) -> Iterator[str]:
    """URL of a database of tenants a and b, who have the same ids; nothing that stays is written there."""
    with copied(postgres, template) as url:
        with psycopg.connect(url) as connection:
            plant(connection, "a")
            plant(connection, "b")
        yield as_service(url)


@pytest.fixture(scope="module")
def alone_url(postgres: str, template: str) -> Iterator[str]:
    """URL of the same without b."""
    with copied(postgres, template) as url:
        with psycopg.connect(url) as connection:
            plant(connection, "a")
        yield as_service(url)


@pytest.fixture
async def both(both_url: str) -> AsyncIterator[Database]:
    async with two_tenants.opened(both_url) as database:
        yield database
