"""What is measured against one another says the same, also after the schema and the queries have changed."""

import os
from collections.abc import AsyncIterator, Callable

import httpx2
import psycopg
import pytest

from benchmarks.peers import agreement, dataset
from benchmarks.peers.limit import Limit
from benchmarks.peers.systems import NODE_FOLDER
from benchmarks.peers.workloads import WORKLOADS, Workload
from benchmarks.subscriptions import traffic
from benchmarks.subscriptions.clients import ClientError
from benchmarks.subscriptions.service import RINGING, running
from benchmarks.subscriptions.traffic import Followers, Pollers, Reader, Subscribers, Thread
from tests.client import Api

# Enough for one chain of forks.
SMALL = dataset.Size(20, (300,))
SAMPLES = 5

every_workload = pytest.mark.parametrize("workload", WORKLOADS, ids=[workload.name for workload in WORKLOADS])


@pytest.fixture
async def targets(database_url: str) -> dataset.Targets:
    await dataset.load(database_url, SMALL)
    return dataset.Targets.read(database_url)


@pytest.fixture
async def limit(database_url: str) -> AsyncIterator[Api]:
    limit = Limit()
    limit.open(database_url)
    async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app=limit), base_url="http://test") as http:
        yield Api(http)
    limit.close()


@every_workload
async def test_the_limit_says_what_forkpoint_says(
    workload: Workload, targets: dataset.Targets, api: Api, limit: Api
) -> None:
    for body in workload.requests("forkpoint", targets, seed=0, count=SAMPLES):
        said = agreement.canonical(await api(body["query"], **body.get("variables", {})))
        assert said
        if workload.writes:
            (message,) = said["appendMessages"]["messages"]
            repeated = agreement.canonical(await limit(body["query"], **body["variables"]))["appendMessages"]
            assert repeated["context"] == said["appendMessages"]["context"] | {"latestVersion": message["version"] + 1}
            assert repeated["messages"][0]["version"] == message["version"] + 1
        elif not workload.inlined:
            assert agreement.canonical(await limit(body["query"], **body["variables"])) == said


def test_no_document_comes_twice_where_all_are_to_be_new() -> None:
    targets = dataset.Targets([f"id {number}" for number in range(2_003)], [])
    for workload in WORKLOADS:
        if workload.inlined:
            rounds = [workload.requests("forkpoint", targets, seed, 15_000) for seed in range(-1, 5)]
            documents = [body["query"] for each in rounds for body in each]
            assert len(set(documents)) == len(documents) == 90_000


def test_the_functions_for_postgraphile_fit_the_schema(database_url: str) -> None:
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute((NODE_FOLDER / "functions.sql").read_bytes())
        found = connection.execute("select count(*) from peers.newest_contexts()").fetchone()
    assert found == (0,)


@pytest.mark.parametrize("follow", [Subscribers, lambda threads: Subscribers(threads, sharing=3), Pollers])
async def test_readers_are_told_all_that_is_written(
    database_url: str, follow: Callable[[list[Thread]], Followers]
) -> None:
    with running(RINGING, database_url, os.getpid()) as service:
        threads = await traffic.create(service.port, 3)
        found = await traffic.run(service, threads, follow(threads), 0.2, rate=100, writers=4, warm_seconds=0.1)
    assert (found.written, found.told, len(found.append_latencies)) == (20, 20, 20)


@pytest.mark.parametrize("told", [[(2, "b")], [(1, "a"), (1, "a")], [(1, "a")], [(1, "a"), (2, "c")]])
def test_a_run_fails_whose_reader_was_told_something_else(told: list[tuple[int, str]]) -> None:
    reader = Reader(Thread("context", answered={1: 0.0, 2: 0.1}, messages={1: "a", 2: "b"}))
    with pytest.raises(ClientError):  # noqa: PT012 - at once or at the end
        for version, message_id in told:
            reader.take(version, message_id)
        list(reader.latencies(0.0))
