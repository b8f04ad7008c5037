"""Health: whether the service can do its work, for GraphQL and for `GET /health`."""

from datetime import UTC, datetime
from enum import Enum
from typing import Any

import strawberry

import db.health
from schema.request import Service
from schema.scalar import member, write_moment


@strawberry.enum(description="Whether the service can do its work.")
class HealthStatus(Enum):
    """In lower case over HTTP."""

    HEALTHY = member("healthy", "All is well.")
    DEGRADED = member("degraded", "The database answers, but the connection pool is exhausted.")
    UNHEALTHY = member("unhealthy", "The database does not answer.")


@strawberry.enum(description="Whether the database answers.")
class DatabaseStatus(Enum):
    """In lower case over HTTP."""

    CONNECTED = member("connected", "It answered the probe.")
    DISCONNECTED = member("disconnected", "It did not answer in time.")


@strawberry.type(description="What the probe of the database found.")
class DatabaseHealth:
    """One check."""

    status: DatabaseStatus = strawberry.field(description="Whether it answered.")
    latency_ms: float | None = strawberry.field(description="Milliseconds of one round trip, null when disconnected.")
    pooled: bool = strawberry.field(description="Whether a connection pooler such as PgBouncer stands in front of it.")
    error: str | None = strawberry.field(description="What is wrong, in general words; the service's log tells more.")


@strawberry.enum(description="How this process learns of changes, for its subscribers.")
class LiveStatus(Enum):
    """In lower case over HTTP."""

    LISTENING = member("listening", "PostgreSQL notifies it: subscribers are told at once.")
    POLLING = member(
        "polling",
        "PostgreSQL cannot notify it (behind a transaction pooler, on a replica, or just now): it looks every "
        "`FORKPOINT_POLL_SECONDS`. Subscribers lose nothing, but wait longer for changes that other processes make.",
    )


@strawberry.type(description="What subscriptions depend on.")
class LiveHealth:
    """One check."""

    status: LiveStatus = strawberry.field(description="How changes are learned of.")


@strawberry.type(description="The checks behind the status.")
class HealthChecks:
    """One field for each check."""

    database: DatabaseHealth = strawberry.field(description="The database.")
    live: LiveHealth = strawberry.field(description="Subscriptions. They work either way, and change no verdict.")


@strawberry.type(description="Whether the service can do its work, and why.")
class Health:
    """The same over GraphQL and HTTP."""

    status: HealthStatus = strawberry.field(description="The verdict.")
    timestamp: datetime = strawberry.field(description="When the checks were made.")
    version: str = strawberry.field(description="The version of the service.")
    checks: HealthChecks = strawberry.field(description="The checks behind the verdict.")


async def check(service: Service) -> Health:
    """Probe the database now. Raises nothing: what is wrong is in the answer."""
    probe = await db.health.probe(service.database, service.limits.health_seconds)
    if not probe.connected:
        status = HealthStatus.UNHEALTHY
    elif probe.degraded:
        status = HealthStatus.DEGRADED
    else:
        status = HealthStatus.HEALTHY
    database = DatabaseHealth(
        status=DatabaseStatus.CONNECTED if probe.connected else DatabaseStatus.DISCONNECTED,
        latency_ms=probe.latency_ms,
        pooled=probe.pooled,
        error=None if probe.connected else "The database does not answer.",
    )
    live = LiveHealth(status=LiveStatus.POLLING if service.live.polling else LiveStatus.LISTENING)
    return Health(
        status=status,
        timestamp=datetime.now(UTC),
        version=service.version,
        checks=HealthChecks(database=database, live=live),
    )


def over_http(health: Health) -> dict[str, Any]:
    """Give the body of `GET /health`: as the query, in lower case, without an `error` where there is none.

    `live` is there when it says something: that changes are looked for, though the database answers.
    """
    database = health.checks.database
    checks: dict[str, Any] = {
        "status": database.status.value,
        "latencyMs": database.latency_ms,
        "pooled": database.pooled,
    }
    if database.error is not None:
        checks["error"] = database.error
    found = {"database": checks}
    if database.status is DatabaseStatus.CONNECTED and health.checks.live.status is LiveStatus.POLLING:
        found["live"] = {"status": health.checks.live.status.value}
    return {
        "status": health.status.value,
        "timestamp": write_moment(health.timestamp),
        "version": health.version,
        "checks": found,
    }
