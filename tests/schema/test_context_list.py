"""Lists of contexts: filters, orders, and paging while contexts change."""

import asyncio
import json
from itertools import product
from typing import Any

import psycopg

from tests.client import Api
from tests.schema.calls import UNKNOWN, Json, append, create, delete, fork, post, refusal, say, update

DOCUMENT = """query ($first: Int = 1000, $after: String, $filter: ContextFilter, $orderBy: ContextOrder) {
  contexts(first: $first, after: $after, filter: $filter, orderBy: $orderBy) {
    nodes { id name createdAt updatedAt } totalCount pageInfo { hasNextPage endCursor }
  }
}"""

# Names in the order of their code points, which is also the order of their bytes in UTF-8.
NAMES = ["", "A", "Z", "a", "a ", "a%", "a_", "aa", "b\\", "z", "É", "é", "\uff5a", "😀", "\U0010ffff" * 255]


async def listed(api: Api, **filter_: Any) -> set[str]:
    """Give the names that a filter chooses, and check that they are counted."""
    found = (await api(DOCUMENT, filter=filter_))["contexts"]
    names = {context["name"] for context in found["nodes"]}
    assert found["totalCount"] == len(found["nodes"])
    return names


async def pages(api: Api, first: int, **given: Any) -> list[list[Json]]:
    found: list[list[Json]] = []
    after = None
    while True:
        page = (await api(DOCUMENT, first=first, after=after, **given))["contexts"]
        found.append(page["nodes"])
        if not page["pageInfo"]["hasNextPage"]:
            return found
        after = page["pageInfo"]["endCursor"]


async def test_a_name_contains_text_whatever_its_case_and_its_signs(api: Api) -> None:
    names = ["Plan 100%", "plan_b", "PLAN\\c", "Straße", "ÉCOLE", "quote'\"", "", "100", "planxb"]
    for name in names:
        await create(api, name=name)
    await create(api)  # without a name it contains nothing, but the empty text filters nothing
    expected = {
        "plan": {"Plan 100%", "plan_b", "PLAN\\c", "planxb"},
        "PLAN": {"Plan 100%", "plan_b", "PLAN\\c", "planxb"},
        "%": {"Plan 100%"},
        "0%": {"Plan 100%"},
        "plan_": {"plan_b"},
        "_": {"plan_b"},
        "\\": {"PLAN\\c"},
        "\\C": {"PLAN\\c"},
        "RASS": set(),
        "aße": {"Straße"},
        "école": {"ÉCOLE"},
        "'\"": {"quote'\""},
        ".*": set(),
        "": {*names, None},
        " ": {"Plan 100%"},
        "x" * 10_000: set(),
    }
    assert {text: await listed(api, nameContains=text) for text in expected} == expected


async def test_metadata_contains_a_json_object(api: Api) -> None:
    for name, metadata in {
        "a": {"user": {"id": 1, "tags": ["x", "y"]}, "n": 1.0},
        "b": {"user": {"id": 2}, "flag": None},
        "c": {},
    }.items():
        await create(api, name=name, metadata=metadata)
    cases: list[tuple[Json, set[str]]] = [
        ({}, {"a", "b", "c"}),
        ({"user": {}}, {"a", "b"}),
        ({"user": {"id": 1}}, {"a"}),
        ({"user": {"id": "1"}}, set()),
        ({"user": {"tags": ["y"]}}, {"a"}),
        ({"user": {"tags": ["y", "x", "x"]}}, {"a"}),
        ({"n": 1}, {"a"}),
        ({"flag": None}, {"b"}),
        ({"id": 1}, set()),
        ({"user": {"id": 10**900}}, set()),
        ({"'; drop table contexts; --": 1}, set()),
    ]
    for contained, names in cases:
        assert await listed(api, metadataContains=contained) == names


async def test_filters_hold_together(api: Api) -> None:
    root = await create(api, name="root")
    other = await create(api, name="other")
    child = await fork(api, root["id"], name="child")
    await fork(api, child["id"], name="grandchild")
    await fork(api, other["id"], name="other child", metadata={"a": 1})
    gone = await fork(api, root["id"], name="gone")
    await delete(api, gone["id"])
    everything = {"root", "other", "child", "grandchild", "other child"}
    cases: list[tuple[Json, set[str]]] = [
        ({}, everything),
        ({"rootsOnly": False, "includeDeleted": False}, everything),
        ({"rootsOnly": True}, {"root", "other"}),
        ({"parentId": root["id"]}, {"child"}),
        ({"parentId": root["id"].upper(), "includeDeleted": True}, {"child", "gone"}),
        ({"parentId": root["id"], "rootsOnly": True}, set()),
        ({"parentId": UNKNOWN}, set()),
        ({"includeDeleted": True}, everything | {"gone"}),
        ({"includeDeleted": True, "rootsOnly": True}, {"root", "other"}),
        ({"nameContains": "child", "metadataContains": {"a": 1}, "parentId": other["id"]}, {"other child"}),
        (dict.fromkeys(("nameContains", "metadataContains", "rootsOnly", "parentId", "updatedSince")), everything),
    ]
    for given, names in cases:
        assert await listed(api, **given) == names, given
    await delete(api, root["id"])
    assert await listed(api, parentId=root["id"]) == {"child"}
    assert await listed(api, includeDeleted=True, updatedSince=gone["createdAt"]) == {"root", "gone"}


async def test_updated_since_is_inclusive_and_knows_time_zones(api: Api, database_url: str) -> None:
    for name in ("earlier", "at", "later"):
        await create(api, name=name)
    with psycopg.connect(database_url) as connection:
        for name, moment in {"earlier": "11:59:59.999999", "at": "12:00:00", "later": "12:00:00.000001"}.items():
            connection.execute(
                "update contexts set updated_at = %s::timestamptz where name = %s", (f"2026-11-23T{moment}Z", name)
            )
    for moment in ("2026-11-23T12:00:00Z", "2026-11-23T14:00:00+02:00", "2026-11-23T06:30:00.000000-05:30"):
        assert await listed(api, updatedSince=moment) == {"at", "later"}
    assert await listed(api, updatedSince="0001-01-01T00:00:00Z") == {"earlier", "at", "later"}
    assert await listed(api, updatedSince="9999-12-31T23:59:59.999999Z") == set()


async def test_filters_that_mean_nothing_are_refused(api: Api) -> None:
    nul, half = "holds U+0000 at character 1", "holds U+D800, half a surrogate pair, at character 1"
    cases: list[tuple[Json, str]] = [
        ({"nameContains": "\0"}, f"filter.nameContains {nul}"),
        ({"nameContains": "\ud800"}, f"filter.nameContains {half}"),
        ({"metadataContains": {"a": "\0"}}, f"filter.metadataContains.a {nul}"),
        ({"metadataContains": {"\ud800": 1}}, f"The key '\\ud800' of filter.metadataContains {half}"),
        ({"metadataContains": []}, "filter.metadataContains is an array. Send a JSON object"),
        ({"metadataContains": "a"}, "filter.metadataContains is a string. Send a JSON object"),
        ({"parentId": "\0"}, "filter.parentId is not an id."),
        ({"updatedSince": "2026-11-23"}, "Variable '$filter' has invalid value at .updatedSince:"),
        ({"updatedSince": "2026-11-23T12:00:00"}, "Variable '$filter' has invalid value at .updatedSince:"),
        ({"updatedSince": 0}, "Variable '$filter' has invalid value at .updatedSince:"),
        ({"updatedSince": "0001-01-01T00:00:00+01:00"}, "Variable '$filter' has invalid value at .updatedSince:"),
    ]
    for given, start in cases:
        code, text = await refusal(post(api, DOCUMENT, json.dumps({"filter": given})))
        assert (code, text[: len(start)]) == ("BAD_USER_INPUT", start)
    code, _ = await refusal(api('{ contexts(filter: {updatedSince: "yesterday"}) { totalCount } }'))
    assert code == "GRAPHQL_VALIDATION_FAILED"


async def test_a_moment_that_is_refused_is_told_what_would_be_right(api: Api) -> None:
    for moment in ("2026-11-23", "yesterday"):
        _, text = await refusal(api(DOCUMENT, filter={"updatedSince": moment}))
        assert "ISO 8601 with a time zone" in text


async def test_every_order_lists_all_contexts_once_in_either_direction_whatever_the_page(api: Api) -> None:
    """Equal contexts are ordered by id; without a name is ordered like an empty one."""
    contexts = [await create(api, name=name) for name in [*reversed(NAMES), None, "a", "a"]]
    for context in contexts[::3]:
        await append(api, context["id"], say())
    keys = {"NAME": "name", "CREATED_AT": "createdAt", "UPDATED_AT": "updatedAt"}
    for (field, key), direction in product(keys.items(), ("ASC", "DESC")):
        order = {"field": field, "direction": direction}
        (whole,) = await pages(api, 1000, orderBy=order)
        # Python compares strings by code point, too.
        expected = sorted(whole, key=lambda c: (c[key] or "", c["id"]), reverse=direction == "DESC")
        assert whole == expected
        assert len(whole) == len(contexts)
        for first in (1, 4):
            assert [c for page in await pages(api, first, orderBy=order) for c in page] == whole
    by_name = await pages(api, 1000, orderBy={"field": "NAME", "direction": "ASC"})
    assert list(dict.fromkeys(context["name"] or "" for context in by_name[0])) == NAMES


async def test_without_an_order_the_newest_change_comes_first(api: Api) -> None:
    first, *_ = [await create(api, name=name) for name in ("1", "2", "3")]
    await update(api, first["id"], name="1")
    names = [context["name"] for (page,) in [await pages(api, 9)] for context in page]
    assert names == ["1", "3", "2"]
    for order in (None, {}, {"field": "UPDATED_AT"}, {"direction": "DESC"}):
        assert [context["name"] for (page,) in [await pages(api, 9, orderBy=order)] for context in page] == names
    by_name = [context["name"] for (page,) in [await pages(api, 9, orderBy={"field": "NAME"})] for context in page]
    assert by_name == ["3", "2", "1"]


async def test_a_null_part_of_an_order_is_the_same_as_an_absent_one(api: Api) -> None:
    context = await create(api)
    for order in ({"field": None}, {"direction": None}, {"field": None, "direction": None}):
        (page,) = await pages(api, 9, orderBy=order)
        assert [found["id"] for found in page] == [context["id"]]


async def test_paging_beside_writers_never_repeats_or_misses_what_keeps_its_place(api: Api) -> None:
    """By creation nothing moves at all; by change whatever moves away was seen before it moved, or is seen after."""
    ids = [(await create(api, name=f"{n:02}"))["id"] for n in range(40)]
    writing = True

    async def write() -> None:
        index = 0
        while writing:
            await append(api, ids[index % 40], say())
            await create(api, name="new")
            index += 7
            await asyncio.sleep(0)

    writer = asyncio.create_task(write())
    try:
        for field, direction in (("CREATED_AT", "ASC"), ("CREATED_AT", "DESC"), ("NAME", "ASC"), ("NAME", "DESC")):
            found = [c for page in await pages(api, 7, orderBy={"field": field, "direction": direction}) for c in page]
            seen = [context["id"] for context in found]
            assert len(seen) == len(set(seen))
            old = [context_id for context_id in seen if context_id in set(ids)]
            assert old == (ids if direction == "ASC" else ids[::-1])
        newest_first = [c["id"] for page in await pages(api, 7) for c in page]
        assert len(newest_first) == len(set(newest_first))
    finally:
        writing = False
        await writer
