"""GraphQL over WebSocket: many operations on one connection, each under an id that the client chose.

Source: https://github.com/enisdenjo/graphql-ws/blob/master/PROTOCOL.md, the subprotocol graphql-transport-ws. What is
wrong with one operation is answered under its id and leaves the others alone; what is no message of the protocol ends
the connection, with a close code and a reason. Signs of life are ping frames of the server that runs this.
"""

import asyncio
from contextlib import aclosing, suppress
from typing import Any, NoReturn

from graphql import OperationType
from starlette.types import Message, Receive, Scope, Send

from graphql_api import log, refusal
from graphql_api.admission import Held
from graphql_api.auth import Authenticator, Credential, MakeContext, Recognised
from graphql_api.ending import end
from graphql_api.endpoint import Head, read_parameters
from graphql_api.http_error import HttpError
from graphql_api.json_body import JSON_TOKENS_MAX, check_tokens, decode, encode
from graphql_api.operation import Operations, Parameters
from graphql_api.origin import may_connect
from graphql_api.outcome import Outcome, refuse, refused, unopened
from graphql_api.settings import Settings
from schema.errors import BadUserInput, Code, LimitExceeded, mask
from schema.principal import Principal

PROTOCOL = "graphql-transport-ws"
# As in the header of a request; names in the payload are read without regard to case, as those of headers are.
TENANT = "forkpoint-tenant"
# An id is sent with each event.
ID_CHARACTERS_MAX = 256
NOT_ALLOWED = "Pages of this origin may not open a WebSocket: FORKPOINT_ALLOWED_ORIGINS names those that may."
# Source: RFC 6455, section 5.5, less the code.
REASON_BYTES_MAX = 123


class _Left(Exception):
    """The client has gone."""


class _Closing(Exception):
    """The connection is closed by us."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


def _invalid(reason: str) -> NoReturn:
    raise _Closing(4400, reason)


class WebSocketEndpoint:
    """The ASGI application that speaks the protocol at one path.

    A credential comes in the payload of `connection_init` or, from clients that are no browsers, in the headers of the
    handshake. `make_context` is called for each query and mutation, and for each event of a subscription, as by the
    endpoint.
    """

    def __init__(
        self, operations: Operations, authenticator: Authenticator, make_context: MakeContext, settings: Settings
    ) -> None:
        self._operations = operations
        self._authenticator = authenticator
        self._make_context = make_context
        self._settings = settings

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection until it ends."""
        await receive()  # websocket.connect
        if not may_connect(scope["headers"], self._settings.allowed_origins):
            await refusal.response(403, BadUserInput(NOT_ALLOWED))(scope, receive, send)
            return
        chosen = PROTOCOL if PROTOCOL in scope["subprotocols"] else None
        caller = _Caller(self._authenticator, Head(scope["headers"]).credential, self._make_context)
        connection = _Connection(self._operations, caller, self._settings, receive, send)
        try:
            await send({"type": "websocket.accept", "subprotocol": chosen})
            if chosen is None:
                # A client that is refused in the handshake is not told why.
                await send({"type": "websocket.close", "code": 4406, "reason": "Subprotocol not acceptable"})
                return
        except (OSError, RuntimeError):  # left meanwhile
            return
        await connection.serve()


class _Caller:
    """Who has opened a connection. Whether they still may ask is looked at for each operation, and for each event."""

    def __init__(self, authenticator: Authenticator, credential: Credential, make_context: MakeContext) -> None:
        self._authenticator = authenticator
        self._credential = credential
        self._make_context = make_context

    def introduce(self, payload: dict[str, Any]) -> None:
        """Take the credential of `connection_init`, if it brings one, before that of the handshake."""
        told = {key.lower(): value for key, value in payload.items() if key.lower() in {"authorization", TENANT}}
        for key, value in told.items():
            if not isinstance(value, str):
                _invalid(f"The {key!r} of connection_init must be a string")
        if told:
            self._credential = Credential(told.get("authorization", ""), told.get(TENANT, ""))

    async def principal(self) -> Principal:
        """Say who it is.

        Raises: what Authenticator.principal raises.
        """
        return await self._authenticator.principal(self._credential)

    def open_context(self) -> Recognised:
        """Open a context."""
        return Recognised(self._authenticator, self._credential, self._make_context)


class _Connection:
    """One connection: a reader, and a task for each operation under way. One message is sent at a time."""

    def __init__(
        self, operations: Operations, caller: _Caller, settings: Settings, receive: Receive, send: Send
    ) -> None:
        self._operations = operations
        self._caller = caller
        self._settings = settings
        self._receive = receive
        self._send_message = send
        self._sending = asyncio.Lock()
        self._initialised = False
        self._closed = False
        # By id, those that the client waits for; and all, as one that was completed may still be closing its source.
        self._waited_for: dict[str, asyncio.Task[None]] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def serve(self) -> None:
        """Read until the client leaves or is sent away; nothing is under way afterwards."""
        try:
            await self._read()
        except _Left:
            self._closed = True
        except _Closing as closing:
            await self._close(closing)
        except Exception as error:  # noqa: BLE001 - the last guard: nothing that failed may show
            mask(error)
            await self._close(_Closing(1011, "Something went wrong on our side."))
        finally:
            self._closed = True
            self._cancel()
            if self._tasks:
                await asyncio.wait(self._tasks)

    def _cancel(self) -> None:
        for task in self._tasks:
            end(task)

    async def _read(self) -> None:
        try:
            async with asyncio.timeout(self._settings.connection_init_seconds):
                while not self._initialised:
                    await self._handle(*await self._frame())
        except TimeoutError:
            raise _Closing(4408, "Connection initialisation timeout") from None
        while True:
            await self._handle(*await self._frame())

    async def _frame(self) -> tuple[dict[str, Any], int]:
        """Receive the next message, and its length in characters."""
        message = await self._receive()
        if message["type"] == "websocket.disconnect":
            raise _Left
        text = message.get("text")
        if text is None:
            _invalid("Binary frames are not supported: send text")
        try:
            if len(text) > JSON_TOKENS_MAX:
                check_tokens(text.encode())
            frame = decode(text)
        except HttpError as error:
            _invalid(error.refusal.message)
        if not isinstance(frame, dict):
            _invalid("A message must be a JSON object with a `type`")
        return frame, len(text)

    async def _handle(self, frame: dict[str, Any], size: int) -> None:
        payload = frame.get("payload")
        match frame.get("type"):
            case "subscribe":
                await self._subscribe(_id(frame), payload, size)
            case "complete":
                if task := self._waited_for.pop(_id(frame), None):
                    end(task)
            case "ping":
                _check_payload(payload)
                await self._send(b'{"type":"pong"}' if payload is None else _message("pong", payload))
            case "pong":
                _check_payload(payload)
            case "connection_init":
                _check_payload(payload)
                if self._initialised:
                    raise _Closing(4429, "Too many initialisation requests")
                self._caller.introduce(payload or {})
                log.identify(await self._identify())
                self._initialised = True
                await self._send(b'{"type":"connection_ack"}')
            case str(other):
                _invalid(f"There is no message of the type {other[:40]!r}")
            case _:
                _invalid("A message must have a `type`, a string")

    async def _identify(self) -> Principal:
        """Say who has opened this connection.

        Raises: _Closing.
        """
        try:
            return await self._caller.principal()
        except Exception as error:
            (shown,) = unopened(error).body["errors"]
            refused_for_good = shown["extensions"]["code"] in {Code.UNAUTHENTICATED, Code.FORBIDDEN}
            raise _Closing(4403 if refused_for_good else 1013, shown["message"]) from error

    async def _subscribe(self, operation_id: str, payload: Any, size: int) -> None:
        if not self._initialised:
            raise _Closing(4401, "Unauthorized")
        if operation_id in self._waited_for:
            raise _Closing(4409, f"Subscriber for {operation_id} already exists")
        try:
            parameters = read_parameters(payload, size)
        except HttpError as error:
            _invalid(f"The payload of subscribe: {error.refusal.message}")
        most = self._settings.connection_operations_max
        if len(self._tasks) >= most:
            too_many = LimitExceeded(
                f"There are {most:,} operations under way on this connection, the most allowed"
                " (FORKPOINT_CONNECTION_OPERATIONS_MAX): complete one of them first."
            )
            await self._error(operation_id, refuse(too_many))
            return
        task = asyncio.create_task(self._operate(operation_id, parameters))
        self._waited_for[operation_id] = task
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _operate(self, operation_id: str, parameters: Parameters) -> None:
        """Answer one operation, to its end or until the client no longer waits for it."""
        held = self._operations.admission.held()
        try:
            try:
                outcome = await self._answer(operation_id, parameters, held)
            except _Left:
                return
            except Exception as error:  # noqa: BLE001 - the last guard: nothing that failed may show
                outcome = refused([mask(error)])
            if self._is_waited_for(operation_id):
                del self._waited_for[operation_id]  # its id is free as soon as the client reads this
                if outcome is None:
                    await self._send(_message("complete", operation_id=operation_id))
                else:
                    await self._error(operation_id, outcome)
        except _Left:
            return
        finally:
            held.release()
            if self._is_waited_for(operation_id):
                del self._waited_for[operation_id]

    async def _answer(self, operation_id: str, parameters: Parameters, held: Held) -> Outcome | None:
        """Send what is executed; give what says that nothing (more) is."""
        try:
            principal = await self._caller.principal()
            held.grow(principal.tenant_id, parameters.size_bytes)
        except Exception as error:  # noqa: BLE001 - presented like any other failure, with its code
            return unopened(error)
        prepared = self._operations.prepare(parameters, principal)
        if isinstance(prepared, Outcome):
            return prepared
        if prepared.type is not OperationType.SUBSCRIPTION:
            return await self._next(operation_id, await self._operations.answer(prepared, self._caller.open_context))
        stream = await self._operations.subscribe(prepared, self._caller.open_context)
        if isinstance(stream, Outcome):
            return stream
        async with aclosing(stream):
            async for outcome in stream:
                if failed := await self._next(operation_id, outcome):
                    return failed
        return None

    async def _next(self, operation_id: str, outcome: Outcome) -> Outcome | None:
        """Send what was executed; give back what was not."""
        if outcome.kind != "executed":
            return outcome
        if not self._is_waited_for(operation_id):  # a source may have taken no notice of being cancelled
            raise _Left
        body = outcome.told(execution=self._settings.debug_extensions)
        await self._send(_message("next", body, operation_id))
        return None

    async def _error(self, operation_id: str, outcome: Outcome) -> None:
        await self._send(_message("error", outcome.body["errors"], operation_id))

    def _is_waited_for(self, operation_id: str) -> bool:
        """Tell whether the client waits for what this task does, and not for another that has its id by now."""
        return self._waited_for.get(operation_id) is asyncio.current_task()

    async def _send(self, text: bytes) -> None:
        """Send one message when those before it are sent.

        Raises: _Left.
        """
        await self._put({"type": "websocket.send", "text": text.decode()})

    async def _close(self, closing: _Closing) -> None:
        reason = closing.reason.encode("utf-8", "replace")[:REASON_BYTES_MAX].decode("utf-8", "ignore")
        self._cancel()
        with suppress(_Left):
            await self._put({"type": "websocket.close", "code": closing.code, "reason": reason}, last=True)

    async def _put(self, message: Message, *, last: bool = False) -> None:
        async with self._sending:
            if self._closed:
                raise _Left
            self._closed = last
            try:
                await self._send_message(message)
            except (OSError, RuntimeError):
                # OSError is what ASGI has for a client that left. uvicorn raises RuntimeError when it has closed by
                # itself, because of what is no WebSocket, and nobody has read of that yet.
                raise _Left from None


def _id(frame: dict[str, Any]) -> str:
    operation_id = frame.get("id")
    if not isinstance(operation_id, str) or not 0 < len(operation_id) <= ID_CHARACTERS_MAX:
        _invalid(f"The `id` of a message must be a string of 1 to {ID_CHARACTERS_MAX} characters")
    return operation_id


def _check_payload(payload: Any) -> None:
    if not isinstance(payload, dict | None):
        _invalid("The `payload` of this message must be a JSON object or null")


def _message(kind: str, payload: Any = None, operation_id: str | None = None) -> bytes:
    """Write a message around a payload that `encode` writes, whatever is in it."""
    named = b"" if operation_id is None else b'"id":' + encode(operation_id) + b","
    given = b"" if payload is None else b',"payload":' + encode(payload)
    return b"{" + named + b'"type":"' + kind.encode() + b'"' + given + b"}"
