"""The demo's tree with many forks: a story that readers continue, wide in places and deep in others."""

from graphql_api.demo.history import Branch, History, assistant, fork_places, system, user
from graphql_api.demo.text import Writer
from schema.message_input import MessageInput

KEY = "story-0"
SYSTEM = (
    "We tell a story together. Keep to what was told before, write four sentences, and end where a reader must choose."
)
OPENING = (
    "A lighthouse near {city}, and a keeper called {first} who has not spoken for {small} winters. Begin.",
    "Begin with a parcel from {city} that is {small} days older than the post office that stamped it.",
)
CHOICES = (
    "{first} opens the door.",
    "Nobody moves. The {~colour} lamp goes out.",
    "Follow {~first} down to the harbour instead.",
    "I want to know what is in the letter!",
    "Go back to {~city}, {~small} years earlier.",
    "They cook {~dish} and wait for the tide. {~emoji}",
    "The stranger says: « Je viens de {~city}. »",
    "Let it rain for {~small} days.",
    "Make it stranger.",
)
BEGINNINGS = (
    "The wind turned at {~clock}, as it did every {~day}.",
    "From {~city} came a boat with {~colour} sails and nobody at the helm.",
    "{~person} had kept the key for {~small} years without asking what it opened.",
    "On the table lay {~dish}, still warm, for {~small} people who had left in a hurry.",
)
MIDDLES = (
    "{first} counted the steps again and came to {~count}, one more than yesterday.",
    "In the logbook, under {~date}, somebody had written only “{~error}”.",
    "“You are late,” said {~first}, and meant it kindly. The {~colour} cat disagreed.",
    "The radio spoke of {~topic}, then of nothing.",
    "Below, the sea wrote its {~colour} line along the stones and took it back.",
)
ENDINGS = (
    "There were two doors now. Behind one, {~first} was singing.",
    "The lamp could burn for {~small} more minutes, or the letter could be read by it.",
    "Somebody had to row out. {~first} looked at {first}, and neither looked away.",
    "The key fitted. Whether to turn it was another matter.",
)


def write(seed: int, scale: float) -> History:
    """Write the tree: two deep chains of forks, and many forks anywhere, also before what their parent inherited."""
    writer = Writer(f"{seed}/{KEY}")
    history = History(seed, KEY, writer.fill("The keeper of {city}"), kind="story", genre="branching")
    history.root.messages += [system(SYSTEM), user(writer.fill(writer.one(OPENING))), _passage(writer)]
    for _ in range(6):
        _continue(writer, history.root)
    for depth in (90, 40):
        _dig(writer, history, max(3, round(depth * scale)))
    _spread(writer, history, max(6, round(90 * scale)))
    elsewhere = history.fork(history.root, 0, "The keeper, from a blank page", restarted=True)
    elsewhere.messages += [system(SYSTEM), user(writer.fill(writer.one(OPENING))), _passage(writer)]
    # A choice that was taken back from all who forked after it; a deleted fork whose own forks stay.
    history.root.deleted_versions.append(4)
    history.branches[1].deleted = True
    return history


def _dig(writer: Writer, history: History, depth: int) -> None:
    """Fork the tip of a fork of the tip, and so on."""
    tip = history.root
    for level in range(1, depth + 1):
        tip = history.fork(tip, len(tip.lineage), writer.fill(f"{level} nights with {{~first}}"), night=level)
        _continue(writer, tip)


def _spread(writer: Writer, history: History, forks: int) -> None:
    for number in range(1, forks + 1):
        parent = writer.one(history.branches)
        version = writer.one(fork_places(parent.lineage))
        fork = history.fork(parent, version, writer.fill(f"What if, {number}: {{~first}} in {{~city}}"))
        for _ in range(writer.number(0, 3)):
            _continue(writer, fork)


def _continue(writer: Writer, branch: Branch) -> None:
    branch.messages += [user(writer.fill(writer.one(CHOICES))), _passage(writer)]


def _passage(writer: Writer) -> MessageInput:
    parts = [writer.one(BEGINNINGS), *writer.some(MIDDLES, 1, 3), writer.one(ENDINGS)]
    return assistant(writer.fill(" ".join(parts)), writer.fill("{model}"))
