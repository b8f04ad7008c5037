"""Windows at their root: whatever the history, the database begins them where the reference model does."""

import random
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import db.lineage
import db.window
from db.pool import Database, PoolLimits, Session
from db.window import Frame
from tests.db.said import TENANT, Histories, Lineage, Said
from tests.model_window import Window, is_start, tokens, units, window

LIMITS = PoolLimits(size_min=1, size_max=1, wait_seconds=30, connect_seconds=5, statement_seconds=30)
NO_LIMIT = 1_000_000
CALL_IDS = "abcd"


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    database = Database(database_url, LIMITS)
    await database.open()
    yield database
    await database.close()


async def compare(session: Session, frames: Sequence[tuple[Lineage, Frame]]) -> None:
    """Hold the windows of frames to the model, and what each version holds; `total_tokens` are filled in."""
    versions = [len(lineage.said) if frame.version is None else frame.version for lineage, frame in frames]
    visible = [lineage.visible(version) for (lineage, _), version in zip(frames, versions, strict=True)]
    places = [(frame.context_id, version) for (_, frame), version in zip(frames, versions, strict=True)]
    totals = await db.lineage.totals(session, TENANT, places)
    assert [(found.message_count, found.total_tokens) for found in totals] == [
        (len(seen), tokens(seen)) for seen in visible
    ]
    asked = [replace(frame, total_tokens=found.total_tokens) for (_, frame), found in zip(frames, totals, strict=True)]
    found = await db.window.fit(session, TENANT, asked, NO_LIMIT)
    # The whole lineage need not be told apart from its latest version.
    for frame, (lineage, _), version, fitted in zip(asked, frames, versions, found, strict=True):
        if version == len(lineage.said):
            whole = replace(frame, version=None, total_tokens=None)
            assert await db.window.fit(session, TENANT, [whole], NO_LIMIT) == [fitted]
    for frame, seen, fitted in zip(asked, visible, found, strict=True):
        start = fitted.start_version
        shown = Window(
            versions=[message.version for message in fitted.messages],
            token_count=sum(message.token_count for message in fitted.messages),
            truncated=len(fitted.messages) < len(seen),
            from_version=start,
            to_version=None if start is None else fitted.messages[-1].version,
            minimum_budget=fitted.minimum_budget,
        )
        assert shown == window(seen, frame.budget, frame.step, keep_system=frame.keep_system), (frame, seen)


# Small histories, which Hypothesis makes smaller still when it finds a fault.

counts = st.sampled_from([0, 1, 1, 2, 3, 7])
call_ids = st.sampled_from(CALL_IDS)
said = st.one_of(
    st.builds(Said, st.sampled_from(["user", "assistant", "system"]), counts),
    st.builds(Said, st.just("assistant"), counts, st.lists(call_ids, min_size=1, max_size=3).map(tuple)),
    st.builds(Said, st.just("tool"), counts, st.just(()), call_ids),
    st.builds(Said, st.just("tool"), counts, st.just(()), call_ids),
)
place = st.integers(0, 40)
act = st.one_of(
    st.tuples(st.just("append"), place, st.lists(said, min_size=1, max_size=6)),
    st.tuples(st.just("append"), place, st.lists(said, min_size=1, max_size=6)),
    st.tuples(st.just("fork"), place, place),
    st.tuples(st.just("delete"), place, place),
    st.tuples(st.just("restore"), place, place),
)
probe = st.tuples(place, st.none() | place, st.integers(1, 30), st.sampled_from([0, 0, 1, 2, 3, 5, 8]), st.booleans())

Probe = tuple[int, int | None, int, int, bool]


async def perform(histories: Histories, acts: Sequence[tuple[str, int, object]]) -> None:
    """Do what can be done; places count modulo what is there."""
    await histories.create()
    for kind, number, what in acts:
        lineage = histories.lineages[number % len(histories.lineages)]
        match kind, what:
            case "append", list():
                # A message object belongs to one history: Hypothesis may draw one twice.
                await histories.append(lineage, [replace(message) for message in what])
            case "fork", int():
                await histories.fork(lineage, what % (len(lineage.said) + 1))
            case "delete", int() if lineage.said:
                await histories.delete(lineage, what % len(lineage.said) + 1)
            case "restore", int() if lineage.said:
                await histories.restore(lineage, what % len(lineage.said) + 1)


def frame_of(histories: Histories, probe: Probe) -> tuple[Lineage, Frame]:
    number, at, budget, step, keep_system = probe
    lineage = histories.lineages[number % len(histories.lineages)]
    version = len(lineage.said) if at is None else at % (len(lineage.said) + 1)
    return lineage, Frame(lineage.id, version, 0, budget, step, keep_system)


@given(acts=st.lists(act, max_size=14), probes=st.lists(probe, min_size=15, max_size=15))
@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_windows_of_small_histories_are_those_of_the_model(
    database: Database, acts: list[tuple[str, int, object]], probes: list[Probe]
) -> None:
    async with database.transaction(TENANT) as session:
        histories = Histories(session)
        await perform(histories, acts)
        await compare(session, [frame_of(histories, probe) for probe in probes])


# Histories longer than the chunks that are read, by seed.


def speak(dice: random.Random, open_calls: list[str]) -> Said:
    """Say something: calls are answered at once, late, twice, or never, and sometimes nobody made them."""
    count = dice.choice([0, 1, 5, 20, 20, 50, 400])
    kind = dice.random()
    if open_calls and kind < 0.5:
        answered = dice.choice(open_calls[-dice.choice([1, 3, 50]) :])
        if dice.random() < 0.9:
            open_calls.remove(answered)
        return Said("tool", count, (), answered)
    if kind < 0.75:
        calls = tuple(
            dice.choice(CALL_IDS) if dice.random() < 0.1 else f"call {dice.getrandbits(64)}"
            for _ in range(dice.choice([1, 1, 1, 2, 5]))
        )
        open_calls += calls
        return Said("assistant", count, calls)
    if kind < 0.78:
        return Said("tool", count, (), dice.choice(["nobody's", *CALL_IDS]))
    return Said(dice.choice(["user", "assistant", "user", "system"]), count)


async def grow(histories: Histories, dice: random.Random) -> None:
    """Make a tree of a few contexts, each with some dozens of messages, and delete some."""
    await histories.create()
    run = [Said("system", dice.choice([0, 10, 30])) for _ in range(dice.choice([0, 0, 1, 2, 9, 45]))]
    if run:
        await histories.append(histories.lineages[0], run)
    for number in range(dice.randint(1, 6)):
        lineage = histories.lineages[-1]
        if number:
            parent = dice.choice(histories.lineages)
            lineage = await histories.fork(
                parent, len(parent.said) - dice.choice([0, 0, 1, 2, 30]) % (len(parent.said) + 1)
            )
        open_calls = [call for said in lineage.said[-40:] for call in said.calls]
        await histories.append(lineage, [speak(dice, open_calls) for _ in range(dice.choice([1, 5, 40, 90]))])
    for _ in range(dice.choice([0, 0, 1, 5, 25])):
        lineage = dice.choice(histories.lineages)
        await histories.delete(lineage, dice.randint(1, len(lineage.said)))


def any_probe(dice: random.Random) -> Probe:
    at = dice.choice([None, None, dice.randint(0, 500)])
    budget = dice.choice([1, dice.randint(1, 100), dice.randint(1, 2_000), dice.randint(1, 10_000)])
    return dice.randint(0, 100), at, budget, dice.choice([0, 0, 1, 37, 250, 1_000]), dice.random() < 0.7


async def compare_seeds(database: Database, seeds: range, probes: int) -> None:
    for seed in seeds:
        dice = random.Random(seed)
        async with database.transaction(TENANT) as session:
            histories = Histories(session)
            await grow(histories, dice)
            await compare(session, [frame_of(histories, any_probe(dice)) for _ in range(probes)])


async def test_windows_of_long_histories_are_those_of_the_model(database: Database) -> None:
    await compare_seeds(database, range(50), probes=40)


@pytest.mark.long
async def test_a_hundred_thousand_windows_are_those_of_the_model(database: Database) -> None:
    await compare_seeds(database, range(1_000, 3_000), probes=50)


@given(st.lists(said, max_size=25))
def test_the_models_starts_are_where_its_units_begin(history: list[Said]) -> None:
    visible = [replace(message, version=version) for version, message in enumerate(history, 1)]
    begun = [unit[0] for unit in units(visible)]
    starts = [place for place in range(len(visible)) if is_start(visible, place)]
    # Only what no window can hold begins with a TOOL message: nothing stands before it.
    assert starts == [place for place in begun if visible[place].role != "tool"]


# Well-formed histories, as an application has that talks to a provider.


def converse(dice: random.Random, length: int) -> list[Said]:
    """Speak in turns: a model's calls are all answered before anybody says another word."""
    said: list[Said] = []
    while len(said) < length:
        said.append(Said("user", dice.randint(1, 60)))
        for _ in range(dice.choice([0, 1, 1, 2, 5])):
            calls = tuple(f"call {dice.getrandbits(64)}" for _ in range(dice.choice([1, 1, 2, 6])))
            said.append(Said("assistant", dice.randint(1, 60), calls))
            said += [Said("tool", dice.randint(1, 200), (), call) for call in dice.sample(calls, len(calls))]
        said.append(Said("assistant", dice.randint(1, 60)))
    return said


def pending(said: Sequence[Said]) -> list[str]:
    """Name the calls at the tip that wait for their results."""
    place = len(said) - 1
    answered: set[str | None] = set()
    while place >= 0 and said[place].role == "tool":
        answered.add(said[place].answers)
        place -= 1
    return [call for call in said[place].calls if call not in answered] if place >= 0 else []


def flaws(messages: Sequence[Said]) -> list[str]:
    """Name what a provider would refuse; calls at the very end may wait for their results.

    OpenAI: a message of role `tool` must follow a message with `tool_calls`, and an assistant message with `tool_calls`
    must be followed by tool messages that answer each `tool_call_id`. Anthropic: each `tool_result` must have its
    `tool_use` in the message before, and each `tool_use` its `tool_result` in the message after; results of one
    message stand together.
    """
    found: list[str] = []
    waiting: set[str] = set()
    for message in messages:
        if message.role == "tool":
            if message.answers not in waiting:
                found.append(f"{message.version} answers no call of the message before")
            waiting.discard(str(message.answers))
            continue
        if waiting:
            found.append(f"{message.version} comes before the results of {sorted(waiting)}")
        waiting = set(message.calls)
    return found


async def test_providers_take_every_window_of_well_formed_histories(database: Database) -> None:
    for seed in range(40):
        dice = random.Random(seed)
        async with database.transaction(TENANT) as session:
            histories = Histories(session)
            await histories.create()
            await histories.append(histories.lineages[0], [Said("system", 20), *converse(dice, 60)])
            for _ in range(4):
                parent = dice.choice(histories.lineages)
                fork = await histories.fork(parent, dice.randint(0, len(parent.said)))
                # Forked between a call and its results: the results come late, and in the fork.
                results = [Said("tool", dice.randint(1, 200), (), call) for call in pending(fork.said)]
                await histories.append(fork, [*results, *converse(dice, 30)])
            for lineage in histories.lineages:
                assert flaws(lineage.said) == []
                for keep_system in (True, False):
                    frames = [
                        Frame(lineage.id, version, tokens(lineage.said[:version]), budget, step, keep_system)
                        for version in dice.sample(range(1, len(lineage.said) + 1), 10)
                        for budget in (50, 500, dice.randint(1, 3_000))
                        for step in (0, budget // 4)
                    ]
                    for frame, fitted in zip(
                        frames, await db.window.fit(session, TENANT, frames, NO_LIMIT), strict=True
                    ):
                        shown = [lineage.said[message.version - 1] for message in fitted.messages]
                        assert flaws(shown) == [], frame
                        assert tokens(shown) <= frame.budget


def test_the_validator_finds_what_providers_refuse() -> None:
    call, result, user = Said("assistant", 1, ("a", "b")), Said("tool", 1, (), "a"), Said("user", 1)
    other = Said("tool", 1, (), "b")
    assert flaws([user, call, other, result, user]) == []
    assert flaws([user, call, result]) == []  # the tip may wait
    assert flaws([result, user])
    assert flaws([call, result, user])
    assert flaws([call, user, result, other])
    assert flaws([call, result, result, other])
