"""Finding objects by id: `context`, `node` and `nodes`."""

from tests.client import Api
from tests.schema.calls import UNKNOWN, append, create, delete, delete_message, fork, refusal, say

NOT_AN_ID = "is not an id. Ids look like 0198c0de-7d0e-7000-8000-000000000000."
NODES = """query ($ids: [ID!]!) { nodes(ids: $ids) {
  __typename id ... on Context { name } ... on Message { content context { id } }
} }"""


async def test_nodes_come_in_the_order_of_their_ids_with_nulls_where_there_is_none(api: Api) -> None:
    root = await create(api, name="root")
    appended = await append(api, root["id"], say("kept"), say("gone"))
    kept, gone = [message["id"] for message in appended["messages"]]
    deleted = await fork(api, root["id"])
    await delete(api, deleted["id"])
    await delete_message(api, root["id"], 2)
    context = {"__typename": "Context", "id": root["id"], "name": "root"}
    message = {"__typename": "Message", "id": kept, "content": "kept", "context": {"id": root["id"]}}
    cases = {
        kept: message,
        UNKNOWN: None,
        root["id"]: context,
        gone: None,
        deleted["id"]: None,
        root["id"].upper(): context,
        kept.upper(): message,
        "00000000-0000-0000-0000-000000000000": None,
        "ffffffff-ffff-ffff-ffff-ffffffffffff": None,
    }
    assert (await api(NODES, ids=[*cases, kept, kept]))["nodes"] == [*cases.values(), message, message]
    assert (await api(NODES, ids=[]))["nodes"] == []
    single = NODES.replace("[ID!]!", "ID!").replace("nodes(ids: $ids)", "node(id: $ids)")
    assert {node_id: (await api(single, ids=node_id))["node"] for node_id in cases} == cases


async def test_nodes_takes_a_thousand_ids(api: Api) -> None:
    root = await create(api)
    found = (await api(NODES, ids=[root["id"], *[UNKNOWN] * 998, root["id"]]))["nodes"]
    assert (len(found), found[0], found[1]) == (1000, found[999], None)
    expected = (
        "LIMIT_EXCEEDED",
        "ids holds 1001 ids. It may hold 1000 at most (FORKPOINT_PAGE_SIZE_MAX); ask several times.",
    )
    assert await refusal(api(NODES, ids=[root["id"]] * 1001)) == expected


async def test_what_is_written_like_no_id_is_refused_by_its_place(api: Api) -> None:
    short = UNKNOWN.replace("-", "")
    for bad in (
        "",
        "1",
        "\0",
        "é",
        short,
        f"{{{UNKNOWN}}}",
        f"{UNKNOWN}\n",
        f" {UNKNOWN}",
        UNKNOWN[:-1] + "g",
        "\u0660" * 36,
    ):
        for field in ("context", "node"):
            sent = api(f"query ($id: ID!) {{ {field}(id: $id) {{ id }} }}", id=bad)
            assert await refusal(sent) == ("BAD_USER_INPUT", f"id {NOT_AN_ID}")
        assert await refusal(api(NODES, ids=[UNKNOWN, UNKNOWN, bad])) == ("BAD_USER_INPUT", f"ids[2] {NOT_AN_ID}")
    assert await refusal(api("{ context(id: 5) { id } }")) == ("BAD_USER_INPUT", f"id {NOT_AN_ID}")
    code, _ = await refusal(api("query ($id: ID!) { node(id: $id) { id } }", id=None))
    assert code == "BAD_USER_INPUT"
    code, _ = await refusal(api("{ node(id: null) { id } }"))
    assert code == "GRAPHQL_VALIDATION_FAILED"


async def test_a_context_is_found_by_its_id_and_by_no_other(api: Api) -> None:
    root = await create(api, say(), name="root")
    document = "query ($id: ID!) { context(id: $id) { name messages { nodes { id } } } }"
    found = (await api(document, id=root["id"].upper()))["context"]
    assert found["name"] == "root"
    message_id = found["messages"]["nodes"][0]["id"]
    for other in (UNKNOWN, message_id):
        assert (await api(document, id=other))["context"] is None
    await delete(api, root["id"])
    assert (await api(document, id=root["id"]))["context"] is None
