"""Pages: their arguments, their cursors and what they say of themselves. The pages of messages, forks and contexts."""

import base64
import json
from functools import partial
from typing import Any

from tests.client import Api
from tests.schema.calls import Json, append, create, delete, delete_message, fork, refusal, say

ARGUMENTS = "$first: Int $after: String $last: Int $before: String $roles: [Role!]"
PAGE = """
  edges { cursor node { version } } nodes { version } totalCount
  pageInfo { hasNextPage hasPreviousPage startCursor endCursor }
"""
MESSAGES = f"""query ($id: ID! {ARGUMENTS}) {{ context(id: $id) {{
  messages(first: $first, after: $after, last: $last, before: $before, roles: $roles) {{ {PAGE} }} }} }}"""
FORKS = """query ($id: ID! $first: Int $after: String) { context(id: $id) { forks(first: $first, after: $after) {
  edges { cursor node { id } } nodes { id } totalCount pageInfo { hasNextPage hasPreviousPage startCursor endCursor }
} } }"""
CONTEXTS = """query ($first: Int $after: String $orderBy: ContextOrder) {
  contexts(first: $first, after: $after, orderBy: $orderBy) {
    edges { cursor node { id } } nodes { id } totalCount pageInfo { hasNextPage hasPreviousPage startCursor endCursor }
  }
}"""


def checked(page: Json) -> Json:
    """Hold a page to itself: nodes are those of the edges, and the cursors are those of the first and the last."""
    cursors = [edge["cursor"] for edge in page["edges"]]
    assert [edge["node"] for edge in page["edges"]] == page["nodes"]
    assert (page["pageInfo"]["startCursor"], page["pageInfo"]["endCursor"]) == (
        (cursors[0], cursors[-1]) if cursors else (None, None)
    )
    return page


async def messages(api: Api, context_id: str, **given: Any) -> Json:
    return checked((await api(MESSAGES, id=context_id, **given))["context"]["messages"])


async def forks(api: Api, context_id: str, **given: Any) -> Json:
    return checked((await api(FORKS, id=context_id, **given))["context"]["forks"])


async def contexts(api: Api, **given: Any) -> Json:
    return checked((await api(CONTEXTS, **given))["contexts"])


def outline(page: Json) -> tuple[list[int], bool, bool, int]:
    """Give the versions, hasPreviousPage, hasNextPage, totalCount."""
    info = page["pageInfo"]
    versions = [node["version"] for node in page["nodes"]]
    return versions, info["hasPreviousPage"], info["hasNextPage"], page["totalCount"]


def write(*parts: Any) -> str:
    """Write a cursor as the service does; callers should not."""
    return base64.urlsafe_b64encode(json.dumps(parts).encode()).decode().rstrip("=")


async def test_without_first_and_last_a_page_has_fifty(api: Api) -> None:
    context_id = (await create(api, *[say()] * 60))["id"]
    for given in ({}, {"first": None, "last": None, "after": None, "before": None, "roles": None}):
        assert outline(await messages(api, context_id, **given)) == (list(range(1, 51)), False, True, 60)
    for _ in range(51):
        await fork(api, context_id)
    for page in (await forks(api, context_id), await contexts(api)):
        assert len(page["nodes"]) == 50
        assert page["pageInfo"]["hasNextPage"]
    defaults = await api("{ contexts { nodes { forks { nodes { id } } messages { nodes { id } } } } }")
    assert len(defaults["contexts"]["nodes"]) == 50


async def test_a_page_is_counted_from_either_end_and_ascends_by_version(api: Api) -> None:
    """On either side a page knows of what lies beyond it, also beyond a cursor that ends it."""
    root = await create(api, say(), say(), say())
    forked = await fork(api, root["id"], 2)
    await append(api, forked["id"], say(), say(), say())
    context_id = forked["id"]
    all_pages = await messages(api, context_id)
    cursor = {edge["node"]["version"]: edge["cursor"] for edge in all_pages["edges"]}
    cases: list[tuple[Json, tuple[list[int], bool, bool]]] = [
        ({"first": 2}, ([1, 2], False, True)),
        ({"first": 5}, ([1, 2, 3, 4, 5], False, False)),
        ({"first": 1000}, ([1, 2, 3, 4, 5], False, False)),
        ({"last": 2}, ([4, 5], True, False)),
        ({"last": 1000}, ([1, 2, 3, 4, 5], False, False)),
        ({"first": 2, "after": cursor[1]}, ([2, 3], True, True)),
        ({"first": 2, "after": cursor[3]}, ([4, 5], True, False)),
        ({"first": 2, "after": cursor[5]}, ([], True, False)),
        ({"last": 2, "before": cursor[5]}, ([3, 4], True, True)),
        ({"last": 2, "before": cursor[3]}, ([1, 2], False, True)),
        ({"last": 2, "before": cursor[1]}, ([], False, True)),
        ({"after": cursor[1], "before": cursor[5]}, ([2, 3, 4], True, True)),
        ({"first": 1, "after": cursor[1], "before": cursor[5]}, ([2], True, True)),
        ({"last": 1, "after": cursor[1], "before": cursor[5]}, ([4], True, True)),
        ({"last": 3, "after": cursor[1], "before": cursor[5]}, ([2, 3, 4], True, True)),
        ({"after": cursor[4], "before": cursor[2]}, ([], True, True)),
        ({"first": 0}, ([], False, True)),
        ({"last": 0}, ([], True, False)),
        ({"first": 0, "after": cursor[5]}, ([], True, False)),
    ]
    for given, (versions, previous, following) in cases:
        assert outline(await messages(api, context_id, **given)) == (versions, previous, following, 5), given


async def test_an_empty_connection_says_so(api: Api) -> None:
    context_id = (await create(api))["id"]
    given: Json
    for given in ({}, {"first": 0}, {"last": 0}, {"last": 3}, {"roles": []}, {"roles": ["USER"]}):
        assert outline(await messages(api, context_id, **given)) == ([], False, False, 0)
    page = await forks(api, context_id)
    assert (page["totalCount"], page["pageInfo"]["hasNextPage"], page["pageInfo"]["hasPreviousPage"]) == (
        0,
        False,
        False,
    )


async def test_deleted_messages_take_no_room_on_a_page(api: Api) -> None:
    context_id = (await create(api, *[say()] * 12))["id"]
    cursor = {edge["node"]["version"]: edge["cursor"] for edge in (await messages(api, context_id))["edges"]}
    for version in (1, 3, 4, 5, 6, 7, 8, 9, 12):
        await delete_message(api, context_id, version)
    assert outline(await messages(api, context_id, first=2)) == ([2, 10], False, True, 3)
    assert outline(await messages(api, context_id, last=2)) == ([10, 11], True, False, 3)
    # A cursor marks its place also when its message is deleted.
    assert outline(await messages(api, context_id, first=1, after=cursor[4])) == ([10], True, True, 3)
    assert outline(await messages(api, context_id, last=1, before=cursor[12])) == ([11], True, False, 3)
    assert outline(await messages(api, context_id, last=1, before=cursor[2])) == ([], False, True, 3)


async def test_roles_thin_out_the_pages_and_the_count(api: Api) -> None:
    root = await create(api, say(role="SYSTEM"), *[say()] * 150, say(role="ASSISTANT"))
    forked = await fork(api, root["id"])
    await append(api, forked["id"], *[say()] * 150, say(role="TOOL", toolCallId="c1"), say(role="ASSISTANT"))
    await delete_message(api, root["id"], 152)
    context_id = forked["id"]
    cases: list[tuple[Json, tuple[list[int], bool, bool, int]]] = [
        ({"roles": ["SYSTEM", "TOOL"]}, ([1, 303], False, False, 2)),
        ({"roles": ["TOOL", "SYSTEM", "TOOL"], "first": 1}, ([1], False, True, 2)),
        ({"roles": ["SYSTEM", "TOOL"], "last": 1}, ([303], True, False, 2)),
        ({"roles": ["ASSISTANT"]}, ([304], False, False, 1)),
        ({"roles": []}, ([], False, False, 0)),
        ({"roles": ["USER", "ASSISTANT", "SYSTEM", "TOOL"], "last": 2}, ([303, 304], True, False, 303)),
    ]
    for given, expected in cases:
        assert outline(await messages(api, context_id, **given)) == expected, given
    cursor = (await messages(api, context_id, roles=["SYSTEM"]))["pageInfo"]["endCursor"]
    assert outline(await messages(api, context_id, roles=["TOOL"], after=cursor)) == ([303], False, False, 1)
    assert outline(await messages(api, context_id, first=1, after=cursor)) == ([2], True, True, 303)


async def test_cursors_survive_appends_and_later_deletions(api: Api) -> None:
    context_id = (await create(api, *[say()] * 4))["id"]
    page = await messages(api, context_id, first=2)
    await append(api, context_id, say(), say())
    await delete_message(api, context_id, 2)
    following = await messages(api, context_id, first=2, after=page["pageInfo"]["endCursor"])
    assert outline(following) == ([3, 4], True, True, 5)
    assert outline(await messages(api, context_id, after=following["pageInfo"]["endCursor"])) == (
        [5, 6],
        True,
        False,
        5,
    )


async def test_forks_are_paged_oldest_first_without_the_deleted_ones(api: Api) -> None:
    root = await create(api)
    ids = [(await fork(api, root["id"]))["id"] for _ in range(5)]
    first = await forks(api, root["id"], first=2)
    await delete(api, ids[1])  # the cursor still marks its place
    second = await forks(api, root["id"], first=2, after=first["pageInfo"]["endCursor"])
    third = await forks(api, root["id"], first=2, after=second["pageInfo"]["endCursor"])
    found = [[context["id"] for context in page["nodes"]] for page in (first, second, third)]
    assert found == [ids[:2], ids[2:4], ids[4:]]
    info = [(page["pageInfo"]["hasPreviousPage"], page["pageInfo"]["hasNextPage"]) for page in (first, second, third)]
    assert info == [(False, True), (True, True), (True, False)]
    assert [page["totalCount"] for page in (first, second, third)] == [5, 4, 4]


async def test_sizes_have_bounds(api: Api) -> None:
    root = await create(api, say())
    await fork(api, root["id"])
    both = "first and last are both given. Give one of them."
    assert await refusal(messages(api, root["id"], first=1, last=1)) == ("BAD_USER_INPUT", both)
    assert await refusal(messages(api, root["id"], first=0, last=0)) == ("BAD_USER_INPUT", both)
    for name, value in (("first", -1), ("last", -(2**31))):
        expected = ("BAD_USER_INPUT", f"{name} is {value}. It must be 0 or more.")
        assert await refusal(messages(api, root["id"], **{name: value})) == expected
    for name, value in (("first", 1001), ("last", 2**31 - 1)):
        rest = "It may be 1000 at most (FORKPOINT_PAGE_SIZE_MAX); page with cursors for more."
        expected = ("LIMIT_EXCEEDED", f"{name} is {value}. {rest}")
        assert await refusal(messages(api, root["id"], **{name: value})) == expected
    for call in (partial(forks, api, root["id"]), partial(contexts, api)):
        assert await refusal(call(first=-1)) == ("BAD_USER_INPUT", "first is -1. It must be 0 or more.")
        assert (await refusal(call(first=1001)))[0] == "LIMIT_EXCEEDED"
        page = await call(first=0)
        assert (page["nodes"], page["pageInfo"]["hasNextPage"], page["totalCount"] > 0) == ([], True, True)
        assert len((await call(first=1000))["nodes"]) > 0


async def test_a_cursor_belongs_to_its_connection_and_order(api: Api) -> None:
    one, other = await create(api, say(), say()), await create(api, say(), say())
    for _ in range(2):
        await fork(api, one["id"])
    by_name, by_creation = {"field": "NAME", "direction": "ASC"}, {"field": "CREATED_AT", "direction": "ASC"}
    cursors = {
        "messages": (await messages(api, one["id"], first=1))["pageInfo"]["endCursor"],
        "forks": (await forks(api, one["id"], first=1))["pageInfo"]["endCursor"],
        "contexts": (await contexts(api, first=1))["pageInfo"]["endCursor"],
        "by name": (await contexts(api, first=1, orderBy=by_name))["pageInfo"]["endCursor"],
        "by creation": (await contexts(api, first=1, orderBy=by_creation))["pageInfo"]["endCursor"],
    }
    backwards = {"field": "CREATED_AT", "direction": "DESC"}
    accepted = {}
    for name, cursor in cursors.items():
        calls = {
            "messages": messages(api, one["id"], after=cursor),
            "messages before": messages(api, one["id"], before=cursor),
            "messages of another": messages(api, other["id"], after=cursor),
            "forks": forks(api, one["id"], after=cursor),
            "forks of another": forks(api, other["id"], after=cursor),
            "contexts": contexts(api, after=cursor),
            "by name": contexts(api, after=cursor, orderBy=by_name),
            "by creation": contexts(api, after=cursor, orderBy=by_creation),
            "by creation, backwards": contexts(api, after=cursor, orderBy=backwards),
        }
        fitting = {"messages": ["messages", "messages before"]}.get(name, [name])
        for other_name, call in calls.items():
            if other_name in fitting:
                accepted[other_name] = await call
            else:
                code, text = await refusal(call)
                assert code == "BAD_USER_INPUT"
                assert text.split()[0] in {"after", "before"}
    assert accepted.keys() == {"messages", "messages before", "forks", "contexts", "by name", "by creation"}


async def test_what_is_no_cursor_is_refused(api: Api) -> None:
    context_id = (await create(api, say(), say()))["id"]
    short = context_id.replace("-", "")
    moment = 1_700_000_000_000_000
    good = (await messages(api, context_id, first=1))["pageInfo"]["endCursor"]
    garbage = [
        "",
        " ",
        "=",
        "\0",
        "é",
        "😀",
        "null",
        "A" * 100_000,
        good + "A",
        good[:-2],
        f"{good}=",
        f" {good}",
        "W10",
        "//",
    ]
    garbage += [write(*parts) for parts in ((), (None,), ("messages",), ("messages", short), ("messages", [short], 1))]
    versions: list[Any] = [0, -1, 2**31, 2**63, 2**64, 10**30, 1.0, 1e300, True, None, "1", [1], {}]
    garbage += [write("messages", short, version) for version in versions]
    garbage += [write("messages", other, 1) for other in (context_id, short.upper(), "", "\0")]
    garbage += [base64.urlsafe_b64encode(raw).decode() for raw in (b"[" * 5000, b"\xff", b'["messages"', b'"\\ud800"')]
    for cursor in garbage:
        for argument in ("after", "before"):
            if cursor.rstrip("=") == good:
                continue
            code, text = await refusal(messages(api, context_id, **{argument: cursor}))
            assert (code, text.split()[0]) == ("BAD_USER_INPUT", argument), cursor
    name, order = f"forks {short}", "contexts updated_at desc"
    places: list[tuple[Any, ...]] = [
        (2**62, short),
        (-(2**63), short),
        (253_402_300_800_000_000, short),
        (float(moment), short),
        (True, short),
        (moment, "x"),
        (moment, ""),
        (moment, short + "0"),
        (moment, "\0"),
        (moment,),
        (moment, short, 1),
    ]
    for place in places:
        assert (await refusal(forks(api, context_id, after=write(name, *place))))[0] == "BAD_USER_INPUT", place
        assert (await refusal(contexts(api, after=write(order, *place))))[0] == "BAD_USER_INPUT", place
    by_name = {"field": "NAME", "direction": "ASC"}
    for place in (("\0", short), (0, short), (None, short), ("a", "x"), ("a", None)):
        sent = contexts(api, orderBy=by_name, after=write("contexts name asc", *place))
        assert (await refusal(sent))[0] == "BAD_USER_INPUT", place


async def test_a_forged_cursor_beyond_the_end_is_an_empty_page(api: Api) -> None:
    context_id = (await create(api, say(), say()))["id"]
    short = context_id.replace("-", "")
    for version in (3, 2**31 - 2):
        page = await messages(api, context_id, after=write("messages", short, version))
        assert outline(page) == ([], True, False, 2)
        page = await messages(api, context_id, last=1, before=write("messages", short, version))
        assert outline(page) == ([2], True, False, 2)
    for moment in (-62_135_596_800_000_000, 253_402_300_799_999_999):
        for direction in ("asc", "desc"):
            order = {"field": "UPDATED_AT", "direction": direction.upper()}
            cursor = write(f"contexts updated_at {direction}", moment, short)
            page = await contexts(api, after=cursor, orderBy=order)
            assert len(page["nodes"]) == ((moment < 0) == (direction == "asc"))


async def test_a_forged_cursor_of_the_largest_version_is_an_empty_page_too(api: Api) -> None:
    context_id = (await create(api, say(), say()))["id"]
    page = await messages(api, context_id, after=write("messages", context_id.replace("-", ""), 2**31 - 1))
    assert outline(page) == ([], True, False, 2)
