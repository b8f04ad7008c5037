"""API keys: tells whose a key is, by one lookup for all who show it at the same time, and remembers it for seconds.

So a key that is revoked opens nothing 5 seconds later, in any process, whatever the clocks say. Whatever is wrong with
a key, the caller is told the same, and the log what it was.
"""

import asyncio
import hmac
from collections import OrderedDict
from time import monotonic
from typing import NamedTuple

import structlog

import db.api_key
from db.api_key import Found
from db.call import Recorder
from db.errors import LaneAway, LineBroken, Unavailable
from db.pool import Database
from graphql_api.api_key_uses import Uses
from schema import api_key_text
from schema.api_key_text import KeyName
from schema.errors import Unauthenticated
from schema.principal import Principal, Scope

log = structlog.get_logger(__name__)

# How old may be what is known of a key, counted from before it was asked.
KNOWN_SECONDS = 4.0
KNOWN_MAX = 10_000
# Keys that open nothing are remembered apart, so that a flood of them pushes out nobody's.
REFUSED_MAX = 1_000

# What a key that is not there is compared with.
_NO_HASH = bytes(32)


class _Known(NamedTuple):
    """What is known of a key: whom it stands for, if anybody, until then."""

    name: KeyName
    principal: Principal | None
    until: float


class _Flight(NamedTuple):
    """A lookup under way."""

    began: float
    task: asyncio.Task[_Known]


class ApiKeys:
    """The API keys of all tenants, as one process knows them."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._uses = Uses(database)
        # By the hash of the key: the key itself is kept nowhere.
        self._known: OrderedDict[bytes, _Known] = OrderedDict()
        self._refused: OrderedDict[bytes, _Known] = OrderedDict()
        self._flights: dict[bytes, _Flight] = {}

    def open(self) -> None:
        """Begin to write down when keys were used."""
        self._uses.open()

    async def close(self) -> None:
        """Write down the last uses. The database must still be open."""
        for flight in list(self._flights.values()):
            flight.task.cancel()
        await self._uses.close()

    async def principal(self, token: str) -> Principal:
        """Tell whom a key stands for.

        Raises: Unauthenticated, the same for whatever is wrong with it; the family of db.errors when that cannot be
        told.
        """
        if not api_key_text.has_shape(token):
            log.warning("API key refused", why="malformed")
            raise _refusal()
        key_hash = api_key_text.hash_of(token)
        known = self._known.get(key_hash) or self._refused.get(key_hash)
        if known is None or known.until <= monotonic():
            known = await self._look_up_once(token, key_hash)
        elif known.principal is not None:
            self._known.move_to_end(key_hash)
        if known.principal is None:
            raise _refusal()
        self._uses.note(*known.name)
        return known.principal

    async def _look_up_once(self, token: str, key_hash: bytes) -> _Known:
        """Look a key up, or wait for who is doing so."""
        flight = self._flights.get(key_hash)
        if flight is None or monotonic() - flight.began >= KNOWN_SECONDS:
            task = asyncio.create_task(self._look_up(token, key_hash))
            flight = self._flights[key_hash] = _Flight(monotonic(), task)
            task.add_done_callback(lambda _: self._land(key_hash, flight))
        # Who gives up takes nothing from the others.
        return await asyncio.shield(flight.task)

    def _land(self, key_hash: bytes, flight: _Flight) -> None:
        if self._flights.get(key_hash) is flight:
            del self._flights[key_hash]
        if not flight.task.cancelled():
            flight.task.exception()  # everybody who waited may have given up

    async def _look_up(self, token: str, key_hash: bytes) -> _Known:
        began = monotonic()
        name = api_key_text.read_name(token)
        if name is None:
            log.warning("API key refused", why="malformed")
            raise _refusal()
        found = await self._find(name)
        if monotonic() - began >= KNOWN_SECONDS:
            raise Unavailable("The database took too long to tell whose key this is. Try again in a moment.")
        flaw = _flaw(found, key_hash)
        if found is None or flaw is not None:
            log.warning("API key refused", why=flaw, key=str(name.id), tenant=name.tenant_id)
            self._known.pop(key_hash, None)
            return _remember(self._refused, REFUSED_MAX, key_hash, _Known(name, None, began + KNOWN_SECONDS))
        left = KNOWN_SECONDS if found.seconds_left is None else min(found.seconds_left, KNOWN_SECONDS)
        scopes = frozenset(Scope(scope) for scope in found.scopes)
        principal = Principal(name.tenant_id, scopes, f"key {name.id}")
        return _remember(self._known, KNOWN_MAX, key_hash, _Known(name, principal, began + left))

    async def _find(self, name: KeyName) -> Found | None:
        lane = self._database.lane
        if lane is not None and lane.ready:
            try:
                (found,) = await lane.run(name.tenant_id, db.api_key.find(Recorder(), *name))
            except (LaneAway, LineBroken):
                pass
            else:
                return found  # type: ignore[no-any-return] # a lane gives whatever it was asked for
        async with self._database.snapshot(name.tenant_id) as snapshot:
            return await db.api_key.find(snapshot, *name)


def _flaw(found: Found | None, key_hash: bytes) -> str | None:
    """Say what is wrong with a key, if anything; the hash is compared whether or not there is one."""
    same = hmac.compare_digest(_NO_HASH if found is None else found.key_hash, key_hash)
    if found is None:
        return "unknown"
    if not same:
        return "its secret is wrong"
    if found.revoked:
        return "revoked"
    return "expired" if found.seconds_left is not None and found.seconds_left < 0 else None


def _remember(entries: OrderedDict[bytes, _Known], entries_max: int, key_hash: bytes, known: _Known) -> _Known:
    entries[key_hash] = known
    entries.move_to_end(key_hash)
    if len(entries) > entries_max:
        entries.popitem(last=False)
    return known


def _refusal() -> Unauthenticated:
    return Unauthenticated("The API key opens nothing. Send one that is valid, as in `Authorization: Bearer fpk_…`.")
