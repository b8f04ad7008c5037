"""Agents of the demo: a task, rounds of tool calls in parallel, results in any order, errors and second attempts."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from graphql_api.demo.history import History, assistant, result, system, user
from graphql_api.demo.text import Writer
from schema.message_input import MessageInput, ToolCallInput
from schema.storable import json_text

# How often a tool fails, and is called again in the next round.
FAILURE = 0.12
FAILURES = (
    '{"error": "{~error}"}',
    "HTTP 429 Too Many Requests, retry after {~small} s",
    (
        'Traceback (most recent call last):\n  File "/srv/tools/client.py", line {~line}, in fetch\n'
        "    response.raise_for_status()\nHTTPError: 503 Service Unavailable for {~host}"
    ),
)


@dataclass(frozen=True)
class Tool:
    """What an agent may call: templates of its arguments and of what comes back."""

    name: str
    arguments: Mapping[str, Any]
    results: tuple[Any, ...]


@dataclass(frozen=True)
class Trade:
    """What an agent is for."""

    name: str
    system: str
    tasks: tuple[str, ...]
    thoughts: tuple[str, ...]
    tools: tuple[Tool, ...]
    reports: tuple[str, ...]


RESEARCH = Trade(
    "Research: {topic}",
    "You are a research assistant. Search widely, read what you cite, and say what you could not verify. Write for "
    "{company}.",
    (
        "What is known about {topic}? Two pages at most, with sources, and the numbers in a table.",
        "Compare {topic} in {city} and {~city}. I need it on {day}.",
        "Find three recent studies on {topic} and tell me where they disagree.",
    ),
    (
        "I start broad and then read the two best sources.",
        "The first hits repeat one press release. I look for the study behind it.",
        "Both sources give {percent} %, but of different things. Checking the definitions.",
        "",
    ),
    (
        Tool(
            "web_search",
            {"query": "{topic} {~city} study", "limit": "{~small}"},
            (
                [
                    {"title": "{topic}: what {~count} households tell us", "source": "{~source}", "date": "{~iso}"},
                    {"title": "A second look at {topic}", "source": "{~source}", "date": "{~iso}"},
                    {"title": "{~city} tries it out", "source": "{~source}", "date": "{~iso}"},
                ],
                [],
            ),
        ),
        Tool(
            "read_page",
            {"url": "https://example.org/{~commit}", "max_chars": "{~many}"},
            (
                (
                    "{~source}, {~date}. In {~city}, {~percent} % of the {~count} participants kept to it after a "
                    "year. The authors, led by {~person}, put the cost at {~amount} € a head and warn that the sample "
                    "was small. A follow-up with {~many} people is under way."
                ),
                (
                    "The page is behind a paywall. Abstract: we measured {topic} in {~small} cities over {~small} "
                    "winters and found an effect of {~ratio} (95 % interval {~ratio} to {~ratio})."
                ),
            ),
        ),
        Tool("calculate", {"expression": "{~many} / {~count} * {~ratio}"}, ("{~ratio}", "{~count}")),
        Tool(
            "save_note",
            {"title": "{topic}, part {~small}", "tags": ["{~city}", "draft"]},
            ({"ok": True, "id": "{~commit}"},),
        ),
    ),
    (
        (
            "**Short answer**: it works, less than hoped. In {city} the effect was {ratio}, elsewhere {~ratio}.\n\n"
            "| place | people | effect |\n|---|---|---|\n| {city} | {~count} | {ratio} |\n| {~city} | {~many} | "
            "{~ratio} |\n\n"
            "I could not verify the cost of {amount} €: the only source is a press release."
        ),
        (
            "Three findings stand on two or more sources, one on a single one ({source}). The disagreement comes from "
            "how dropouts are counted: with them it is {percent} %, without them {~percent} %."
        ),
    ),
)

OPERATIONS = Trade(
    "{ticket} {service}: {error}",
    "You are on call for {company}. Look before you touch: read metrics, logs and the last deployments, and ask before "
    "anything that cannot be undone.",
    (
        "Pager: {service} in {region} answers {percent} % of requests with 5xx since {clock}.",
        "p99 of {service} went from 40 ms to {ms} ms after commit {commit}. Find out why.",
        "{host} reports '{error}'. Is it only this one?",
    ),
    (
        "Three things at once: metrics, logs, deployments.",
        "The errors start {small} minutes after the deployment of {commit}. That may be chance, so I compare regions.",
        "Only {host} is affected. Looking at its neighbours before I blame the code.",
        "",
    ),
    (
        Tool(
            "query_metrics",
            {"service": "{service}", "region": "{~region}", "metric": "http_5xx_ratio", "minutes": 30},
            (
                {"points": [["{~clock}", "{~ratio}"], ["{~clock}", "{~ratio}"], ["{~clock}", "{~ratio}"]], "unit": "%"},
                {"points": [], "note": "no data for {~host}"},
            ),
        ),
        Tool(
            "search_logs",
            {"query": "service={service} level=error", "host": "{~host}", "limit": 3},
            (
                (
                    "{~iso}T{~clock}:07Z {~host} ERROR {error} (attempt {~small}, {~ms} ms)\n"
                    "{~iso}T{~clock}:09Z {~host} ERROR {error} (attempt {~small}, {~ms} ms)\n"
                    "{~iso}T{~clock}:31Z {~host} WARN  giving up after {~small} attempts"
                ),
                "no lines match",
            ),
        ),
        Tool(
            "list_deployments",
            {"service": "{service}", "since": "{~iso}"},
            ([{"commit": "{commit}", "by": "{~person}", "at": "{clock}"}, {"commit": "{~commit}", "by": "{~person}"}],),
        ),
        Tool(
            "describe_host", {"host": "{~host}"}, ({"cpu": "{~percent}", "disk": "{~percent}", "region": "{~region}"},)
        ),
        Tool("open_files", {"host": "{~host}", "process": "{service}"}, ({"open": "{~many}", "limit": 65536},)),
    ),
    (
        (
            "Cause: since {commit} each retry opens a connection and never closes it; {host} ran into its limit first. "
            "I rolled {region} back at {~clock}, errors are at 0.{small} %. Follow-up {~ticket} closes them in a "
            "`finally`."
        ),
        (
            "Not the deployment: a certificate in {region} expired at {clock}. Renewed, and {~ticket} adds an alarm "
            "thirty days ahead. {count} requests failed, all of them were retried by their callers."
        ),
    ),
)

TRAVEL = Trade(
    "{small} days in {city}",
    "You plan journeys. Prefer trains under eight hours, name prices with their date, and never book without a yes.",
    (
        "Plan {small} days in {city} for two, starting on {date}, at most {many} all in. We like food and old trams.",
        "I have to be in {city} on {day} at {clock}. What is the calmest way from {~city}? {emoji}",
    ),
    (
        "Ways there, a place to sleep, and the weather, all at once.",
        "The {airline} connection is tight. Looking for a later one.",
        "",
    ),
    (
        Tool(
            "search_trains",
            {"from": "{~city}", "to": "{city}", "date": "{~iso}"},
            ([{"departs": "{~clock}", "arrives": "{~clock}", "changes": "{~small}", "price": "{~amount}"}], []),
        ),
        Tool(
            "search_flights",
            {"from": "{~city}", "to": "{city}", "date": "{~iso}", "bags": 1},
            (
                [
                    {"flight": "{~flight}", "airline": "{~airline}", "price": "{~amount}"},
                    {"flight": "{~flight}", "airline": "{airline}", "price": "{~amount}"},
                ],
            ),
        ),
        Tool(
            "search_hotels",
            {"city": "{city}", "nights": "{small}", "guests": 2},
            ([{"name": "Hotel {~colour}", "price": "{~amount}", "rating": "{~ratio}"}, {"name": "Pension {~first}"}],),
        ),
        Tool("get_weather", {"city": "{city}", "date": "{~iso}"}, ({"high": "{~celsius}", "rain": "{~percent}"},)),
        Tool(
            "find_restaurant", {"city": "{city}", "dish": "{~dish}"}, ({"name": "Chez {~first}", "opens": "{~clock}"},)
        ),
    ),
    (
        (
            "Day 1: arrive at {clock}, walk the old town, {dish} at Chez {first}. Day 2: tram 28 to its last stop and "
            "back on foot. Day 3: rain at {percent} %, so the museum. Together {amount} € without the way there. Shall "
            "I hold the room until {day}?"
        ),
        "The calmest way: the {~clock} train, one change with {count} minutes to spare. It costs {amount} € today. 🚆",
    ),
)

TRADES = (RESEARCH, OPERATIONS, TRAVEL)
AGAIN = (
    "Thanks. And what changes if we wait until {~month}?",
    "Good. Do the same for {~city}, please.",
    "I don't believe the {~percent} %. Check that one again.",
    "Perfect {~emoji} One more thing: who should know about this?",
)


def write(seed: int, number: int) -> History:
    """Write an agent's work."""
    key = f"agent-{number}"
    writer = Writer(f"{seed}/{key}")
    trade = writer.one(TRADES)
    model = writer.fill("{model}")
    history = History(seed, key, writer.fill(trade.name), kind="agent", owner=writer.fill("{person}"), model=model)
    root = history.root
    root.messages.append(system(writer.fill(trade.system)))
    root.messages += task(writer, trade, model)
    for question in writer.some(AGAIN, 0, 3):
        root.messages.append(user(writer.fill(question)))
        root.messages += work(writer, trade, model)
    if writer.happens(0.25):
        other = writer.one(("atlas-2-large", "corvid-70b"))
        again = history.fork(root, 2, f"{root.name} · again with {other}", model=other)
        again.messages += work(writer, trade, other)
    return history


def task(writer: Writer, trade: Trade, model: str) -> list[MessageInput]:
    """Write a task and the work on it."""
    return [user(writer.fill(writer.one(trade.tasks))), *work(writer, trade, model)]


def work(writer: Writer, trade: Trade, model: str) -> list[MessageInput]:
    """Write rounds of tool calls, each answered in full before the next, and the report."""
    messages: list[MessageInput] = []
    failed: list[Tool] = []
    rounds = writer.number(1, 5)
    while rounds > 0 or failed:
        rounds -= 1
        tools = [*failed, *writer.some(trade.tools, 0 if failed else 1, 3)]
        failed = []
        calls = [
            (tool, ToolCallInput(id=writer.call_id(), name=tool.name, arguments=_arguments(writer, tool)))
            for tool in tools
        ]
        messages.append(assistant(writer.fill(writer.one(trade.thoughts)), model, [call for _, call in calls]))
        for tool, call in writer.some(calls, len(calls), len(calls)):  # as they come back
            if writer.happens(FAILURE):
                failed.append(tool)
                messages.append(result(call, writer.fill(writer.one(FAILURES))))
            else:
                messages.append(result(call, _answer(writer, tool)))
    return [*messages, assistant(writer.fill(writer.one(trade.reports)), model)]


def _arguments(writer: Writer, tool: Tool) -> Any:
    return writer.fill_json(tool.arguments)


def _answer(writer: Writer, tool: Tool) -> str:
    answer = writer.fill_json(writer.one(tool.results))
    return answer if isinstance(answer, str) else json_text(answer)
