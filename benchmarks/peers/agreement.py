"""Checks, before anything is measured, that all systems give the same data."""

import http.client
import re
from collections.abc import Sequence
from datetime import datetime
from typing import Any

import orjson
import psycopg

from benchmarks.peers.dataset import Targets
from benchmarks.peers.systems import Running
from benchmarks.peers.workloads import SAMPLE_SEED, Workload

SAMPLES = 12
SHOWN = 400
# Objects of one field, which some systems give without the object.
WRAPPED = {("contexts", "nodes"), ("messages", "nodes"), ("window", "messages"), ("health", "status")}
ALIAS = re.compile(r"c\d+")


class DisagreementError(Exception):
    """Two systems gave different data."""


def ask(running: Running, body: bytes) -> tuple[Any, int]:
    """Send one request; give the data, and the bytes of the answer.

    Raises: DisagreementError when there are errors.
    """
    connection = http.client.HTTPConnection("127.0.0.1", running.port, timeout=30)
    connection.request(
        "POST", "/graphql", body, {"content-type": "application/json", "authorization": running.authorization}
    )
    answer = connection.getresponse().read()
    connection.close()
    parsed = orjson.loads(answer)
    if "errors" in parsed or parsed.get("data") is None:
        raise DisagreementError(f"{running.system.title} answered {answer[:SHOWN]!r} to {body[:SHOWN]!r}")
    return parsed["data"], len(answer)


def check(workload: Workload, targets: Targets, systems: Sequence[Running], url: str) -> dict[str, float]:
    """Ask all systems the same; give the mean size of each one's answers.

    Raises: DisagreementError.
    """
    sizes = {running.system.name: 0.0 for running in systems}
    bodies = {
        dialect: [orjson.dumps(body) for body in workload.requests(dialect, targets, SAMPLE_SEED, SAMPLES)]
        for dialect in {running.system.dialect for running in systems}
    }
    for number in range(SAMPLES):
        first: Any = None
        for running in systems:
            body = bodies[running.system.dialect][number]
            before = _latest(url, body) if workload.writes else 0
            data, size = ask(running, body)
            sizes[running.system.name] += size / SAMPLES
            plain = _appended(data, before, body, url) if workload.writes else canonical(data)
            if first is None:
                first = plain
            elif plain != first:
                raise DisagreementError(
                    f"{workload.name}: {running.system.title} and {systems[0].system.title} differ in the answer to "
                    f"{body[:SHOWN]!r}:\n{plain!r:.{SHOWN}}\n{first!r:.{SHOWN}}"
                )
    return sizes


def canonical(value: Any, name: str = "") -> Any:
    """Take away how a system says a thing, and leave what it says.

    Lists come with or without `nodes`, messages from either end, roles in either case, moments in either notation.
    """
    if isinstance(value, dict):
        if (name, *value) in WRAPPED:
            (wrapped,) = value.values()
            return canonical(wrapped)
        # An alias that no other document has.
        return {ALIAS.sub("context", key): canonical(each, key) for key, each in value.items()}
    if isinstance(value, list):
        found = [canonical(each) for each in value]
        return sorted(found, key=lambda each: each["version"]) if found and "version" in found[0] else found
    if name == "role":
        return value.upper()
    return datetime.fromisoformat(value) if name.endswith("At") else value


def _latest(url: str, body: bytes) -> int:
    with psycopg.connect(url) as connection:
        query = "select latest_version from contexts where tenant_id = 'default' and id = %s"
        row = connection.execute(query, [orjson.loads(body)["variables"]["id"]]).fetchone()
        assert row is not None
        return int(row[0])


def _appended(data: Any, before: int, body: bytes, url: str) -> Any:
    """Give what is stored under the id that an append answered, its version counted from the one before."""
    payload = data["appendMessages"]
    if "result" in payload:
        result = payload["result"]
        context, message = {"id": result["contextId"], "latestVersion": result["latestVersion"]}, result
    else:
        context, (message,) = payload["context"], payload["messages"]
    values = orjson.loads(body)["variables"]
    with psycopg.connect(url) as connection:
        stored = connection.execute(
            "select context_id::text, version, role, content, token_count, metadata from messages "
            "where tenant_id = 'default' and id = %s",
            [message["id"]],
        ).fetchone()
    assert stored is not None
    versions = {stored[1], message["version"], context["latestVersion"], before + 1}
    if len(versions) != 1 or stored[0] != values["id"] or stored[3] != values["content"]:
        raise DisagreementError(
            f"the append {values!r:.{SHOWN}} was answered {payload} and stored as {stored!r:.{SHOWN}}"
        )
    return stored[:1] + stored[2:]
