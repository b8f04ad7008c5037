"""Which histories the demo has: how many of each kind, in which order they are stored."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from uuid import UUID

from graphql_api.demo import agent, chat, coding, story
from graphql_api.demo.history import History, context_id, system
from graphql_api.demo.text import Writer
from schema.message import Role

LONG_KEY = "long-0"
LONG_MESSAGES = 20_000
# Of so many questions in the long history one is deleted.
LONG_DELETED_EVERY = 100

_KINDS: tuple[tuple[str, int, Callable[[int, int], History]], ...] = (
    ("chat", 150, chat.write),
    ("agent", 80, agent.write),
    ("coding", 40, coding.write),
)


@dataclass(frozen=True)
class Planned:
    """A history that can be written when it is needed."""

    key: str
    root_id: UUID
    write: Callable[[], History]


def plan(seed: int, scale: float = 1.0) -> list[Planned]:
    """Name the histories of a seed; `scale` makes fewer of a kind, and the tree and the long one smaller.

    Shape: kinds mixed, so that the newest contexts are of all kinds; the tree first, whose forks would fill pages.
    """
    planned = [
        _planned(seed, f"{kind}-{number}", partial(write, seed, number))
        for kind, count, write in _KINDS
        for number in range(max(1, round(count * scale)))
    ]
    mixed = Writer(f"{seed}/order").some(planned, len(planned), len(planned))
    long = _planned(seed, LONG_KEY, partial(write_long, seed, round(LONG_MESSAGES * scale)))
    told = _planned(seed, story.KEY, partial(story.write, seed, scale))
    return [told, *mixed, long]


def _planned(seed: int, key: str, write: Callable[[], History]) -> Planned:
    return Planned(key, context_id(seed, key, 0), write)


def write_long(seed: int, messages: int) -> History:
    """Write one history of so many messages: a desk where agents and customers come and go, for years."""
    writer = Writer(f"{seed}/{LONG_KEY}")
    model = writer.fill("{model}")
    history = History(
        seed, LONG_KEY, writer.fill("The desk of {company}, since {month}"), kind="long", team="night shift"
    )
    found = history.root.messages
    found.append(system(writer.fill("You keep the desk of {company} with {person}: shop, systems and journeys alike.")))
    while len(found) < messages:
        writer.forget()
        room = messages - len(found)
        episode = agent.task(writer, writer.one(agent.TRADES), model) if writer.happens(0.4) else []
        # Never cut an episode, which would leave calls without results; a question may be the last word.
        found += episode if 0 < len(episode) <= room else chat.aside(writer, model)[:room]
    questions = [version for version, message in enumerate(found, 1) if message.role is Role.USER]
    history.root.deleted_versions += questions[LONG_DELETED_EVERY // 2 :: LONG_DELETED_EVERY]
    return history
