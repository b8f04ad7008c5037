"""Encoders write what is in rows, under whatever names a document gives."""

import builtins
import enum
import json
import keyword
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, NamedTuple

import orjson
import pytest
import strawberry
from graphql import TypeNameMetaFieldDef
from hypothesis import given
from hypothesis import strategies as st
from strawberry.scalars import JSON
from strawberry.schema.config import StrawberryConfig

from schema.collect import Unplanned
from schema.encoder import make_encoder, write_json, write_leaf
from schema.scalar import DateTime, Json, read_moment, write_moment
from tests.schema.planning import plan_of


@strawberry.enum
class Colour(enum.Enum):
    RED = "red"
    BLUE = 2


@strawberry.type
class Thing:
    id: strawberry.ID
    class_: str | None = strawberry.field(name="class")
    from_here: int = strawberry.field(name="None")
    colour: Colour | None
    made_at: datetime
    gone_at: datetime | None
    value: JSON
    names: list[str]

    @strawberry.field
    def computed(self) -> int:
        return 1


class Row(NamedTuple):
    """A thing as the store has it."""

    id: str = "1"
    class_: str | None = "c"
    from_here: int = 3
    colour: Any = "red"
    made_at: datetime = datetime(2026, 1, 1, tzinfo=UTC)
    gone_at: datetime | None = None
    value: Any = b'{"a":1E+2}'


SCHEMA = strawberry.Schema(Thing, config=StrawberryConfig(scalar_map={datetime: DateTime, JSON: Json}))
FIELDS = SCHEMA._schema.type_map["Thing"].fields  # type: ignore[attr-defined] # noqa: SLF001 - an object type


def encode(names: Mapping[str, str | None], *rows: Row, **values: list[Any]) -> str:
    """Write rows: of fields by response name, None for one that takes the values of a step."""
    plain = {
        name: write_leaf(TypeNameMetaFieldDef if field == "__typename" else FIELDS[field])
        for name, field in names.items()
        if field is not None
    }
    encoder = make_encoder("Thing", list(names), plain)
    stepped = [values[name] for name, field in names.items() if field is None]
    return orjson.dumps(encoder(rows, stepped), option=orjson.OPT_UTC_Z).decode()


def test_rows_are_written_as_they_are_asked() -> None:
    names = {
        "value": "value", "id": "id", "class": "class", "None": "None", "colour": "colour", "madeAt": "madeAt",
        "goneAt": "goneAt", "__typename": "__typename",
    }  # fmt: skip
    assert encode(names, Row(), Row(colour=Colour.BLUE, class_=None, value={"b": [None]})) == (
        '[{"value":{"a":1E+2},"id":"1","class":"c","None":3,"colour":"RED","madeAt":"2026-01-01T00:00:00.000000Z",'
        '"goneAt":null,"__typename":"Thing"},'
        '{"value":{"b":[null]},"id":"1","class":null,"None":3,"colour":"BLUE","madeAt":"2026-01-01T00:00:00.000000Z",'
        '"goneAt":null,"__typename":"Thing"}]'
    )


def test_values_of_steps_stand_where_they_were_asked() -> None:
    names = {"b": None, "id": "id", "a": None}
    found = encode(names, Row(), Row(id="2"), a=[1, 2], b=[["x"], None])
    assert found == '[{"b":["x"],"id":"1","a":1},{"b":null,"id":"2","a":2}]'
    assert encode({"b": None}, b=[]) == "[]"
    assert encode({}, Row(), Row()) == "[{},{}]"


INNER = ["o", "v0", "v1", "objects", "values", "encode", "zip", "type_name", "write_moment", "write_json", "t",
         "names_Colour", "orjson", "__builtins__", "__class__", "self", "_", "print", "exec"]  # fmt: skip
NAMES = st.sampled_from([*keyword.kwlist, *keyword.softkwlist, *INNER, *dir(builtins)]).filter(str.isascii)


@given(
    st.dictionaries(
        NAMES | st.from_regex(r"[_A-Za-z][_0-9A-Za-z]{0,5}", fullmatch=True),
        st.sampled_from([None, *(name for name in FIELDS if name not in {"names", "computed"}), "__typename"]),
        max_size=12,
    )
)
def test_any_name_of_a_document_is_only_a_name(names: dict[str, str | None]) -> None:
    row = Row(made_at=datetime(1, 1, 1, 0, 0, 0, 1, tzinfo=UTC))
    expected = {
        "id": "1", "class": "c", "None": 3, "colour": "RED", "madeAt": "0001-01-01T00:00:00.000001Z", "goneAt": None,
        "value": {"a": 100.0}, "__typename": "Thing",
    }  # fmt: skip
    (found,) = json.loads(encode(names, row, **{name: [name] for name, field in names.items() if field is None}))
    assert found == {name: name if field is None else expected[field] for name, field in names.items()}
    assert list(found) == list(names)


@pytest.mark.parametrize("name", [*keyword.kwlist, *INNER])
def test_an_alias_may_be_any_name(name: str) -> None:
    text = f"{{ {name}: contexts {{ {name}: nodes {{ {name}: parent {{ {name}: metadata }} }} }} }}"
    selection = plan_of(text).root
    for _ in range(2):
        ((_, branch),) = selection.branches
        (field,) = branch.fields
        assert branch.encode([None], [["below"]]) == [{name: "below"}]
        assert field.below is not None
        selection = field.below


@given(st.datetimes(timezones=st.just(UTC)))
def test_a_moment_is_written_as_resolvers_write_it(moment: datetime) -> None:
    ((_, written),) = json.loads(encode({"at": "madeAt"}, Row(made_at=moment)))[0].items()
    assert written == write_moment(moment)
    assert read_moment(written) == moment


@pytest.mark.parametrize(
    ("moment", "written"),
    [
        (datetime(1, 1, 1, tzinfo=UTC), "0001-01-01T00:00:00.000000Z"),
        (datetime(1, 1, 1, 0, 0, 0, 1, tzinfo=UTC), "0001-01-01T00:00:00.000001Z"),
        (datetime(999, 12, 31, 23, 59, 59, 120_000, tzinfo=UTC), "0999-12-31T23:59:59.120000Z"),
        (datetime(9999, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC), "9999-12-31T23:59:59.999999Z"),
        (datetime(2000, 2, 29, tzinfo=UTC), "2000-02-29T00:00:00.000000Z"),
    ],
)
def test_moments_at_the_ends_of_time_have_all_their_digits(moment: datetime, written: str) -> None:
    assert encode({"at": "madeAt"}, Row(made_at=moment)) == f'[{{"at":"{written}"}}]'
    assert encode({"at": "goneAt"}, Row()) == '[{"at":null}]'


@given(st.recursive(st.none() | st.text() | st.integers(-(2**53), 2**53), st.lists, max_leaves=5))
def test_json_passes_as_text_or_as_value(value: Any) -> None:
    try:
        text = orjson.dumps(value)
    except orjson.JSONEncodeError:  # a lone surrogate
        return
    assert orjson.dumps(write_json(text)) == orjson.dumps(write_json(value)) == text


def test_an_enum_that_is_not_one_is_an_error() -> None:
    with pytest.raises(KeyError):
        encode({"colour": "colour"}, Row(colour="green"))


@pytest.mark.parametrize("name", ["computed", "names"])
def test_what_is_no_plain_attribute_has_no_plan_here(name: str) -> None:
    with pytest.raises(Unplanned):
        write_leaf(FIELDS[name])
