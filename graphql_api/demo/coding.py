"""Coding sessions of the demo: read, edit, test, explain; and forks where the user edited a message or asked again."""

from dataclasses import dataclass

from strawberry.scalars import JSON

from graphql_api.demo.history import Branch, History, assistant, fork_places, result, system, user
from graphql_api.demo.text import Writer
from schema.message_input import MessageInput, ToolCallInput

SYSTEM = (
    "You are a programming assistant in the repository {company}/{service}. Read before you edit, run the tests after "
    "each edit, and keep diffs small.\n\nConventions: type hints everywhere, no new dependencies, errors say what to "
    "do next."
)


@dataclass(frozen=True)
class Problem:
    """Something to be mended: where, what stands there, how it fails, what it becomes."""

    name: str
    ask: tuple[str, ...]
    file: str
    before: str
    failure: str
    after: str
    moral: str


PROBLEMS = (
    Problem(
        "{verb} every {noun} once",
        (
            "When the worker restarts, the same {noun} is sometimes handled twice. Can you make `{verb}` idempotent?",
            "Customers report that we {verb} a {noun} twice after '{error}'. It is in {service}.",
        ),
        "{service}/{verb}_{noun}.py",
        "def {verb}_{noun}(store, {noun}_id):\n    {noun} = store.get({noun}_id)\n    charge({noun})\n"
        "    {noun}.done = True\n    store.save({noun})\n",
        "E       AssertionError: assert [{many}, {many}] == [{many}]\n"
        "tests/test_{verb}_{noun}.py:{line}: AssertionError\n1 failed, {count} passed in {ratio}s",
        "def {verb}_{noun}(store, {noun}_id):\n    # The key makes the second attempt a read.\n"
        "    with store.claim({noun}_id) as {noun}:\n        if {noun} is None:\n            return\n"
        "        charge({noun}, key=str({noun}_id))\n",
        "The claim is a row of its own, so two workers cannot both hold it, and a crash in between lets it go.",
    ),
    Problem(
        "Flaky test of {service}",
        (
            "tests/test_{noun}s.py fails about one time in {small}. I think it is the clock. Please look.",
            "CI on {day} was red again: '{error}' in the {noun} tests. Works on my machine 🤷",
        ),
        "tests/test_{noun}s.py",
        "def test_{noun}_expires():\n    {noun} = make_{noun}(ttl=0.1)\n    time.sleep(0.1)\n    assert "
        "{noun}.expired\n",
        "FAILED tests/test_{noun}s.py::test_{noun}_expires - assert False\n1 failed, {count} passed in {ratio}s",
        "def test_{noun}_expires(clock):\n    {noun} = make_{noun}(ttl=0.1, clock=clock)\n    clock.advance(0.1)\n"
        "    assert {noun}.expired\n",
        "The test waited for real time and lost by a few microseconds. It now owns the clock and takes no time at all.",
    ),
    Problem(
        "N+1 queries in /{noun}s",
        (
            "GET /{noun}s takes {ms} ms with {count} rows. EXPLAIN looks fine, but there are so many statements!",
            "The list of {noun}s got slow since {commit}. Could you find out what it asks the database?",
        ),
        "{service}/api/{noun}s.ts",
        "export async function list{noun}s(db: Db) {\n  const rows = await db.many('select id, owner_id from "
        "{noun}s');\n"
        "  return Promise.all(rows.map(async row => ({ ...row, owner: await db.owner(row.owner_id) })));\n}\n",
        "  ● list > asks the database twice\n\n    expect(received).toBe(expected)\n    Expected: 2\n    Received: "
        "{count}\n",
        "export async function list{noun}s(db: Db) {\n  const rows = await db.many('select id, owner_id from "
        "{noun}s');\n"
        "  const owners = await db.owners(rows.map(row => row.owner_id));\n"
        "  return rows.map(row => ({ ...row, owner: owners.get(row.owner_id) }));\n}\n",
        "Two statements, whatever the number of rows: {ms} ms became {small} ms here.",
    ),
    Problem(
        "Panic on an empty {noun}",
        (
            "The importer panics when a {noun} has no lines. It should say which file and go on.",
            "thread 'main' panicked at 'index out of bounds' for the file of {company}, {date}. Fix please 🙏",
        ),
        "crates/{service}/src/{noun}.rs",
        "pub fn total(lines: &[Line]) -> Money {\n    let first = &lines[0];\n"
        "    lines.iter().skip(1).fold(first.amount, |sum, line| sum + line.amount)\n}\n",
        "thread 'tests::empty_{noun}' panicked at src/{noun}.rs:{line}:\n"
        "index out of bounds: the len is 0 but the index is 0\ntest result: FAILED. {count} passed; 1 failed",
        "pub fn total(lines: &[Line]) -> Option<Money> {\n    lines.iter().map(|line| line.amount).reduce(|a, b| a + "
        "b)\n}\n",
        "`reduce` has no first element to trip over, and `Option` makes the caller say what an empty {noun} means.",
    ),
    Problem(
        "Index for {noun}s by {colour}",
        (
            "This query runs {ms} ms and there will be ten times as many {noun}s by {month}. What index does it want?",
            "Why does PostgreSQL not use my index on {noun}s (created_at)? {emoji}",
        ),
        "db/queries/{noun}.sql",
        "select n.id, n.total\nfrom {noun}s n\nwhere n.state = 'open'\norder by n.created_at desc\nlimit 20;\n",
        "Limit  (actual time={ms}.1..{ms}.2 rows=20 loops=1)\n  ->  Sort  (top-N heapsort)\n"
        "        ->  Seq Scan on {noun}s n  (rows={many})\n              Filter: (state = 'open')",
        "create index concurrently {noun}s_open_idx\n  on {noun}s (created_at desc)\n  where state = 'open';\n",
        "A partial index in the order of the query: it reads twenty entries and stops, at {many} rows as at ten "
        "times that.",
    ),
)

FOLLOW_UPS = (
    "Add a test for the case that {person} mentioned: the same {noun}, {small} times in one second.",
    "Looks good. Can you write the changelog line, as our users would notice it?",
    "Rename it to `{verb}_{noun}_once`, I keep reading it wrong.",
    "Does this also hold with {small} workers in {region}?",
    "Reviewer {first} asks why this is not a lock. What do I answer?",
)
EDITS = (
    "Actually, do it without touching the database: keep the state in memory and tell me what we lose.",
    "Same thing, but in the smallest possible diff. I have to ship it on {~day}.",
    "Wait, explain it first and change nothing. I want to understand why it fails.",
    "Use a queue instead; {~person} has one in {service} already.",
)
ANSWERS = (
    "Done. {~count} tests pass. {moral}",
    (
        "I changed {~small} lines in `{file}`. {moral}\n\nNot done on purpose: the old rows stay as they are; a "
        "backfill is ticket {~ticket}."
    ),
    "It does, as long as the {noun}s fit on one connection; above {~many} I would measure again.",
)


def write(seed: int, number: int) -> History:
    """Write a session and what was forked from it."""
    key = f"coding-{number}"
    writer = Writer(f"{seed}/{key}")
    problem = writer.one(PROBLEMS)
    model = writer.fill("{model}")
    history = History(
        seed,
        key,
        writer.fill(problem.name),
        kind="coding",
        repository=writer.fill("{company}/{service}"),
        branch=writer.fill("{verb}-{noun}-{commit}"),
    )
    root = history.root
    root.messages += [system(writer.fill(SYSTEM)), user(writer.fill(writer.one(problem.ask)))]
    root.messages += mend(writer, problem, model)
    for question in writer.some(FOLLOW_UPS, 1, 4):
        root.messages += [user(writer.fill(question)), *mend(writer, problem, model)]
    for _ in range(writer.number(1, 5)):
        _edit(writer, history, problem, writer.one(history.branches))
    return history


def _edit(writer: Writer, history: History, problem: Problem, parent: Branch) -> None:
    """Fork before a message of the user and say it otherwise, or after it and have another model answer."""
    lineage = parent.lineage
    place = writer.one(fork_places(lineage))
    model = writer.fill("{~model}")
    if writer.happens(0.3):
        fork = history.fork(parent, place + 1, f"{history.root.name} · answered by {model}", model=model)
    else:
        fork = history.fork(parent, place, f"{history.root.name} · edited")
        fork.messages.append(user(writer.fill(writer.one(EDITS))))
    fork.messages += mend(writer, problem, model)
    if writer.happens(0.5):
        fork.messages += [user(writer.fill(writer.one(FOLLOW_UPS))), *mend(writer, problem, model)]


def mend(writer: Writer, problem: Problem, model: str) -> list[MessageInput]:
    """Write one answer with its tool calls: look, at several files at once; edit and test until it holds; explain."""
    file = writer.fill(problem.file)
    looks = [
        _call(writer, "read_file", path=file),
        *writer.some(
            [
                _call(writer, "search", pattern=writer.fill("{noun}"), path=writer.fill("{service}/")),
                _call(writer, "git_log", path=file, limit=writer.number(3, 10)),
            ],
            0,
            2,
        ),
    ]
    messages = [assistant(writer.one(("Let me look.", "", "I read the code first.")), model, looks)]
    messages += [result(call, _seen(writer, problem, call.name)) for call in looks]
    for attempt in range(writer.number(1, 3), 0, -1):
        edit = _call(writer, "edit_file", path=file, content=writer.fill(problem.after), attempt=attempt)
        test = _call(writer, "run_tests", path="tests/", quiet=True)
        messages += [assistant("", model, [edit]), result(edit, writer.fill("{~small} lines changed"))]
        messages += [
            assistant("Now the tests.", model, [test]),
            result(test, _tested(writer, problem, failed=attempt > 1)),
        ]
    answer = writer.one(ANSWERS).replace("{moral}", problem.moral).replace("{file}", file)
    return [*messages, assistant(writer.fill(answer), model)]


def _call(writer: Writer, name: str, **arguments: str | float) -> ToolCallInput:
    return ToolCallInput(id=writer.call_id(), name=name, arguments=JSON(arguments))


def _seen(writer: Writer, problem: Problem, tool: str) -> str:
    match tool:
        case "read_file":
            return writer.fill(problem.before)
        case "search":
            return "\n".join(
                writer.fill("{service}/{~noun}s.py:{~line}: {~verb}({noun})") for _ in range(writer.number(2, 9))
            )
        case _:
            return "\n".join(writer.fill("{~commit} {~person}: {~verb} {~noun}s") for _ in range(writer.number(2, 9)))


def _tested(writer: Writer, problem: Problem, *, failed: bool) -> str:
    return writer.fill(problem.failure if failed else "{~count} passed in {~ratio}s")
