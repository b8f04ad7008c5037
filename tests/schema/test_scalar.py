"""Values at the edge: moments and ids, read strictly and written in one form."""

from datetime import UTC, datetime, timedelta, timezone
from enum import Enum
from uuid import UUID

import pytest
import strawberry

from schema.errors import BadUserInput
from schema.scalar import DateTime, member, read_id

WRITE, READ = DateTime.serialize, DateTime.parse_value
NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)


def test_a_moment_is_written_in_utc_to_the_microsecond() -> None:
    assert WRITE is not None
    east = timezone(timedelta(hours=5, minutes=30))
    cases = {
        NOON: "2026-11-23T12:00:00.000000Z",
        NOON.astimezone(east) + timedelta(microseconds=1): "2026-11-23T12:00:00.000001Z",
        datetime(1970, 1, 1, 3, tzinfo=east): "1969-12-31T21:30:00.000000Z",
        datetime.max.replace(tzinfo=UTC): "9999-12-31T23:59:59.999999Z",
    }
    assert {moment: WRITE(moment) for moment in cases} == cases


def test_a_moment_is_read_with_any_offset_and_comes_back_equal() -> None:
    assert READ is not None
    assert WRITE is not None
    same = ["2026-11-23T12:00:00Z", "2026-11-23T12:00:00.000000+00:00", "2026-11-23T17:30:00+05:30"]
    same += ["2026-11-23T00:00:00-12:00", "20261123T120000Z", "2026-11-23 12:00:00Z"]
    assert [READ(text) for text in same] == [NOON] * len(same)
    assert {READ(text).utcoffset() for text in same} == {timedelta(0)}
    for moment in (NOON, datetime.min.replace(tzinfo=UTC) + timedelta(days=400_000), datetime.max.replace(tzinfo=UTC)):
        assert READ(WRITE(moment)) == moment


@pytest.mark.parametrize(
    "value",
    [
        "",
        "now",
        "2026-11-23",
        "2026-11-23T12:00:00",  # which time zone?
        "2026-02-30T12:00:00Z",
        "2026-11-23T25:00:00Z",
        "0000-01-01T00:00:00Z",
        "10000-01-01T00:00:00Z",
        "0001-01-01T00:00:00+00:01",  # before the year 1 in UTC
        "9999-12-31T23:59:59-00:01",  # after the year 9999 in UTC
        "\0",
        "\ud800",
        "1" * 100_000,
        0,
        1.5,
        True,
        None,
        ["2026-11-23T12:00:00Z"],
    ],
)
def test_what_is_no_moment_is_refused(value: object) -> None:
    assert READ is not None
    with pytest.raises(BadUserInput, match=r"DateTime is written as in .*Z: ISO 8601 with a time zone\."):
        READ(value)


def test_an_id_is_a_uuid_with_hyphens_in_either_case() -> None:
    text = "0198c0de-7d0e-7000-8000-00000000000f"
    assert read_id(text, "id") == read_id(text.upper(), "id") == UUID(text)


@pytest.mark.parametrize(
    "value",
    [
        "",
        "x",
        "0198c0de7d0e7000800000000000000f",
        "{0198c0de-7d0e-7000-8000-00000000000f}",
        "0198c0de-7d0e-7000-8000-00000000000f\n",
        "0198c0de-7d0e-7000-8000-00000000000\uff10",
        "-" * 36,
        "9" * 1_000_000,
        "\0",
        "\ud800",
    ],
)
def test_what_is_no_id_is_refused_by_its_place(value: str) -> None:
    with pytest.raises(BadUserInput) as refused:
        read_id(value, "ids[3]")
    assert refused.value.message == "ids[3] is not an id. Ids look like 0198c0de-7d0e-7000-8000-000000000000."


def test_a_member_of_an_enum_keeps_its_value_and_has_a_description() -> None:
    @strawberry.enum(description="A colour.")
    class Colour(Enum):
        RED = member("red", "As roses are.")

    assert [(colour.name, colour.value) for colour in Colour] == [("RED", "red")]
    definition = strawberry.Schema(query=_query_of(Colour)).as_str()
    assert '"""As roses are."""\n  RED' in definition


def _query_of(colour: type[Enum]) -> type:
    def resolve() -> colour:  # type: ignore[valid-type]
        return next(iter(colour))

    return strawberry.type(type("Query", (), {"colour": strawberry.field(resolver=resolve)}))
