"""The reference model itself, held to examples that a reader can follow by eye."""

from typing import Any

import pytest

from tests.model import Context, Model, NewMessage, RefusedError, contains


def texts(context: Context) -> list[str]:
    return [message.content for message in context.visible()]


def says(*contents: str) -> list[NewMessage]:
    return [NewMessage("USER", content, 10) for content in contents]


@pytest.fixture
def model() -> Model:
    return Model()


@pytest.fixture
def root(model: Model) -> Context:
    return model.create("root", None, says("a", "b", "c", "d"))


def test_a_fork_reads_its_parent_up_to_the_fork_version_and_then_its_own(model: Model, root: Context) -> None:
    fork = model.fork(root.key, 2, None, None)
    model.append(root.key, says("e"))
    model.append(fork.key, says("x"))
    assert texts(root) == ["a", "b", "c", "d", "e"]
    assert texts(fork) == ["a", "b", "x"]
    assert [(message.holder, message.version) for message in fork.lineage] == [(0, 1), (0, 2), (1, 3)]
    assert (fork.fork_version, fork.latest_version, fork.message_count, fork.total_tokens) == (2, 3, 3, 30)


def test_a_fork_below_its_parents_own_fork_version_keeps_that_parent(model: Model, root: Context) -> None:
    child = model.fork(root.key, 3, None, None)
    grandchild = model.fork(child.key, 1, None, None)
    model.append(grandchild.key, says("y"))
    assert texts(grandchild) == ["a", "y"]
    assert (grandchild.parent, grandchild.ancestors, grandchild.depth) == (child, [child, root], 2)


def test_an_append_after_an_older_version_goes_to_a_fork_made_there(model: Model, root: Context) -> None:
    for expected, holder in ((4, root.key), (4, 1), (0, 2)):
        assert [m.holder for m in model.append(root.key, says("x"), expected=expected, forks=True)] == [holder]
    assert [texts(context) for context in model.stored] == [["a", "b", "c", "d", "x"]] * 2 + [["x"]]


def test_a_fork_at_version_0_is_empty(model: Model, root: Context) -> None:
    fork = model.fork(root.key, 0, None, None)
    assert (fork.fork_version, fork.latest_version, fork.message_count) == (0, 0, 0)


def test_a_fork_is_made_at_the_latest_version_by_default(model: Model, root: Context) -> None:
    model.delete_message(root.key, 4)
    fork = model.fork(root.key, None, None, None)
    assert (fork.fork_version, fork.latest_version, fork.message_count) == (4, 4, 3)


def test_a_deleted_message_leaves_every_context_that_reads_it(model: Model, root: Context) -> None:
    early = model.fork(root.key, 1, None, None)
    late = model.fork(root.key, 3, None, None)
    model.delete_message(late.key, 2)
    model.delete_message(late.key, 2)
    assert [texts(context) for context in (root, early, late)] == [["a", "c", "d"], ["a"], ["a", "c"]]
    assert (root.latest_version, root.message_count, root.total_tokens, root.message(2)) == (4, 3, 30, None)
    model.restore_message(root.key, 2)
    assert texts(late) == ["a", "b", "c"]


def test_a_deleted_context_hides_but_its_forks_go_on_reading(model: Model, root: Context) -> None:
    child = model.fork(root.key, 2, None, None)
    grandchild = model.fork(child.key, 2, None, None)
    model.delete_context(child.key)
    assert (model.context(child.key), model.forks(root.key)) == (None, [])
    assert texts(grandchild) == ["a", "b"]
    assert (grandchild.shown_parent, grandchild.ancestors, grandchild.depth) == (None, [root], 2)
    model.restore_context(child.key)
    assert (grandchild.shown_parent, model.forks(root.key)) == (child, [child])


def test_refusals_carry_the_code_of_the_service(model: Model, root: Context) -> None:
    gone = model.fork(root.key, 1, None, None)
    model.delete_context(gone.key)
    codes = []
    for refused in (
        lambda: model.append(None, says("x")),
        lambda: model.append(gone.key, says("x")),
        lambda: model.delete_context(gone.key),
        lambda: model.fork(root.key, 5, None, None),
        lambda: model.fork(root.key, -1, None, None),
        lambda: model.delete_message(root.key, 0),
        lambda: model.restore_message(root.key, 5),
        lambda: model.append(root.key, says("x"), expected=5, forks=True),
        lambda: root.messages(first=1, last=1),
        lambda: root.messages(first=-1),
        lambda: model.append(root.key, says("x"), expected=3),
    ):
        with pytest.raises(RefusedError) as raised:
            refused()
        codes.append(raised.value.code)
    assert codes == ["NOT_FOUND"] * 3 + ["BAD_USER_INPUT"] * 7 + ["CONFLICT"]


@pytest.mark.parametrize(
    ("arguments", "versions", "around"),
    [
        ({}, [1, 3, 4], (False, False)),
        ({"first": 2}, [1, 3], (False, True)),
        ({"first": 2, "after": 2}, [3, 4], (True, False)),
        ({"first": 1, "after": 1}, [3], (True, True)),
        ({"last": 2}, [3, 4], (True, False)),
        ({"last": 1, "before": 4}, [3], (True, True)),
        ({"first": 5, "after": 1, "before": 4}, [3], (True, True)),
        ({"first": 0}, [], (False, True)),
        ({"last": 0}, [], (True, False)),
        ({"first": 1, "after": 4}, [], (True, False)),
        ({"last": 1, "before": 1}, [], (False, True)),
        ({"first": 1, "after": 3, "before": 4}, [], (True, True)),
        ({"last": 1, "after": 3, "before": 4}, [], (True, True)),
    ],
)
def test_pages_say_what_lies_around_them(
    model: Model, root: Context, arguments: dict[str, Any], versions: list[int], around: tuple[bool, bool]
) -> None:
    model.delete_message(root.key, 2)
    page = root.messages(**arguments)
    assert [message.version for message in page.messages] == versions
    assert (page.has_previous, page.has_next, page.total_count) == (*around, 3)


def test_pages_of_some_roles_count_only_those(model: Model) -> None:
    context = model.create(None, None, [NewMessage(role, role, 1) for role in ("SYSTEM", "USER", "TOOL", "USER")])
    page = context.messages(first=1, roles=["USER"])
    assert ([message.version for message in page.messages], page.total_count) == ([2], 2)
    assert (page.has_previous, page.has_next) == (False, True)
    assert context.messages(roles=[]).total_count == 0


def test_contexts_meet_all_filters(model: Model, root: Context) -> None:
    fork = model.fork(root.key, 1, "Fork of ROOT", {"a": 1, "b": [1, 2]})
    model.create(None, None, [])
    gone = model.create("gone root", None, [])
    model.delete_context(gone.key)
    assert model.contexts(name_contains="Root") == [root, fork]
    assert model.contexts(name_contains="root", roots_only=True, include_deleted=True) == [root, gone]
    assert model.contexts(parent_key=root.key) == [fork]
    assert model.contexts(metadata_contains={"b": [2]}) == [fork]


def test_containment_tells_true_from_1_and_looks_inside() -> None:
    assert contains({"a": {"b": [1, {"c": None}]}, "d": 1}, {"a": {"b": [{"c": None}]}})
    assert not contains({"a": 1}, {"a": True})
    assert not contains({"a": True}, {"a": 1})
    assert not contains({"a": 1}, {"b": 1})
    assert not contains({"a": [1]}, {"a": {}})
