"""The service as an ASGI application: its routes, its middleware, and what lives as long as the process."""

import asyncio
import gc
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from functools import partial
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request as HttpRequest
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.types import ASGIApp, Receive, Scope, Send

from db import rate_limit
from db.live import Live
from db.pool import Database, PoolLimits
from graphql_api import __version__, log, refusal
from graphql_api.api_keys import ApiKeys
from graphql_api.auth import Authenticator, token_verifier
from graphql_api.endpoint import GraphQLEndpoint
from graphql_api.graphiql_page import FILES_PATH, GraphiQLFiles
from graphql_api.host import OPEN_PATH, HostCheck
from graphql_api.operation import Operations
from graphql_api.origin import CORS, hosts
from graphql_api.rates import Rates
from graphql_api.security_headers import SecurityHeaders
from graphql_api.settings import Authentication, Settings, row_security_of
from graphql_api.websocket import WebSocketEndpoint
from schema import health
from schema.errors import BadUserInput, NotFound
from schema.execute import Plans
from schema.principal import Principal
from schema.request import Limits, Request, Service
from schema.root import schema
from schema.token_count import TokenCounter

GRAPHQL_PATH = "/graphql"


class _App(Starlette):
    """Routes, with the endpoint of GraphQL in front of them: it needs neither routing nor exception handlers.

    Those cost more than half of what a small query does. Under a mounted path the route finds the endpoint.
    """

    def __init__(self, graphql: ASGIApp, websocket: ASGIApp, layers: Sequence[Middleware] = (), **options: Any) -> None:
        super().__init__(**options)
        self._graphql = graphql
        self._websocket = websocket
        self._layered = _behind(layers, self._route)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, behind the layers."""
        await self._layered(scope, receive, send)

    async def _route(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"] == GRAPHQL_PATH:
            await self._graphql(scope, receive, send)
        elif scope["type"] == "websocket" and scope["path"] == GRAPHQL_PATH:
            await self._websocket(scope, receive, send)
        else:
            await super().__call__(scope, receive, send)


def create_app(settings: Settings | None = None) -> Starlette:
    """Put the service together; nothing is opened before the application starts.

    Raises: ValueError when there is no DATABASE_URL; CommandError for trusted documents that cannot be trusted, and for
    settings of tokens that cannot be used.
    """
    settings = settings or Settings()
    log.configure(settings)
    service = service_of(settings)
    keys = ApiKeys(service.database) if Authentication.KEYS in settings.authentication else None
    authenticator = Authenticator(keys, token_verifier(settings))
    stopping = asyncio.Event()

    def open_request(principal: Principal) -> Request:
        return Request(service, principal)

    async def check_health(_request: HttpRequest) -> Response:
        found = await health.check(service)
        status = 503 if found.status is health.HealthStatus.UNHEALTHY else 200
        return JSONResponse(health.over_http(found), status)

    async def to_graphql(request: HttpRequest) -> Response:
        below = request.url.path.endswith(f"{GRAPHQL_PATH}/")
        return RedirectResponse(f"..{GRAPHQL_PATH}" if below else f".{GRAPHQL_PATH}")

    plans = Plans(schema) if settings.planned_reads else None
    rates = Rates(settings, partial(rate_limit.charge, service.database))
    operations = Operations(schema._schema, settings, plans, rates)  # noqa: SLF001 - graphql-core's own schema
    endpoint = GraphQLEndpoint(operations, authenticator, open_request, settings, stopping)
    websocket = WebSocketEndpoint(operations, authenticator, open_request, settings)
    layers = [
        Middleware(SecurityHeaders),
        Middleware(log.RequestLog, told=settings.log_level in {"debug", "info"}),
        Middleware(HostCheck, hosts(settings.allowed_hosts, settings.host)),
    ]
    if settings.allowed_origins:
        layers.append(Middleware(CORSMiddleware, settings.allowed_origins, **CORS))
    app = _App(
        endpoint,
        websocket,
        layers,
        routes=[
            # Without `methods` a Route passes an ASGI application every method.
            Route(GRAPHQL_PATH, endpoint),
            WebSocketRoute(GRAPHQL_PATH, websocket),
            Route(OPEN_PATH, check_health, methods=["GET"]),
            Route("/", to_graphql, methods=["GET"]),
            Route(f"{GRAPHQL_PATH}/", to_graphql, methods=["GET", "POST"]),
            *([Route(FILES_PATH, GraphiQLFiles())] if settings.graphiql else []),
        ],
        exception_handlers={HTTPException: _refuse, Exception: _fail},
        lifespan=_lifespan(service, authenticator, operations, stopping),
    )
    app.router.redirect_slashes = False  # it redirects to what the Host header says, without the TLS of a proxy
    app.state.database = service.database
    app.state.operations = operations
    return app


def _lifespan(
    service: Service, authenticator: Authenticator, operations: Operations, stopping: asyncio.Event
) -> Callable[[Starlette], AbstractAsyncContextManager[dict[str, Any]]]:
    """Give what opens, and closes in the end, all that lives as long as the process."""

    @asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[dict[str, Any]]:
        stopping.clear()
        await service.database.open()
        service.live.open()
        authenticator.open()
        loading = asyncio.create_task(asyncio.to_thread(service.token_counter.load))
        try:
            with _rare_collections():
                # For whoever serves this: to tell that it stops, and to count what it reads.
                yield {"stopping": stopping, "admission": operations.admission}
        finally:
            await loading
            await authenticator.close()
            await service.live.close()
            await service.database.close()

    return lifespan


def _behind(layers: Sequence[Middleware], app: ASGIApp) -> ASGIApp:
    """Put layers in front of an application, the first one outermost."""
    for layer, args, options in reversed(layers):
        app = layer(app, *args, **options)
    return app


async def _refuse(request: HttpRequest, error: Exception) -> Response:
    """Say that no route fits."""
    assert isinstance(error, HTTPException)  # noqa: S101 - what it is called for
    if error.status_code == 404:  # noqa: PLR2004 - not found
        return refusal.response(404, NotFound(f"There is nothing at this path: GraphQL is at {GRAPHQL_PATH}."))
    allowed = dict(error.headers or {})
    message = f"The method {request.method[:20]!r} is not supported: use {allowed.get('Allow', 'another')}."
    return refusal.response(error.status_code, BadUserInput(message), allowed)


async def _fail(_request: HttpRequest, error: Exception) -> Response:
    return refusal.failure(error)


@contextmanager
def _rare_collections() -> Iterator[None]:
    """Let the garbage collector look less often, and never at what the imports made.

    An answer is made of hundreds of small objects that die by themselves. Left alone, the collector looks at them every
    700, and now and then at all that was ever made, while requests wait.
    """
    thresholds = gc.get_threshold()
    gc.freeze()
    gc.set_threshold(5_000, 10, 10)
    try:
        yield
    finally:
        gc.set_threshold(*thresholds)
        gc.unfreeze()


def service_of(settings: Settings) -> Service:
    """Make what all requests share; nothing is opened yet.

    Raises ValueError when there is no DATABASE_URL.
    """
    if settings.database_url is None:
        raise ValueError("DATABASE_URL is not set. `forkpoint serve` starts an embedded server and sets it.")
    limits = PoolLimits(
        size_min=settings.pool_size_min,
        size_max=settings.pool_size_max,
        wait_seconds=settings.pool_wait_seconds,
        connect_seconds=settings.connect_seconds,
        statement_seconds=settings.mutation_seconds,
        read_seconds=settings.query_seconds,
        lane_size=settings.fast_lane_connections,
        append_lane_size=settings.append_connections if settings.fast_lane_connections else 0,
        poll_seconds=settings.poll_seconds,
        slow_poll_seconds=settings.slow_poll_seconds,
        row_security=row_security_of(settings),
    )
    database = Database(settings.database_url.get_secret_value(), limits)
    return Service(
        database=database,
        token_counter=TokenCounter(settings.token_encoding),
        limits=limits_of(settings),
        version=__version__,
        live=Live(database),
    )


def limits_of(settings: Settings) -> Limits:
    """Give what a request may ask for."""
    return Limits(
        page_size_max=settings.page_size_max,
        append_messages_max=settings.append_messages_max,
        append_bytes_max=settings.append_bytes_max,
        fork_depth_max=settings.fork_depth_max,
        window_messages_max=settings.window_messages_max,
        idempotency_hours=settings.idempotency_hours,
        copy_messages_max=settings.copy_messages_max,
        health_seconds=settings.health_seconds,
    )
