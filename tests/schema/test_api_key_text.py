"""API keys as text: written in one way, read strictly, and refused without an error whatever else is sent."""

import string
from uuid import UUID

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from schema import api_key_text
from schema.api_key_text import KeyName, has_shape, hash_of, make, read_name

ALPHABET = string.ascii_letters + string.digits + "-_"
KEY_ID = UUID("0198c0de-7d0e-7000-8000-000000000000")
tenants = st.text(string.ascii_letters + string.digits + "._~:@|/+=-", min_size=1, max_size=128)


@given(tenants, st.uuids())
def test_a_key_tells_its_tenant_and_its_id_and_has_the_shape_of_one(tenant_id: str, key_id: UUID) -> None:
    key = make(tenant_id, key_id)
    assert has_shape(key)
    assert read_name(key) == KeyName(tenant_id, key_id)
    assert len(hash_of(key)) == 32


def test_no_two_keys_are_the_same() -> None:
    assert len({make("default", KEY_ID) for _ in range(1_000)}) == 1_000


@given(st.text() | st.from_regex(r"fpk_[\w-]{0,200}\.[\w-]{21,23}\.[\w-]{42,44}", fullmatch=True))
@example("fpk_" + "A" * 1_000_000)
@example("fpk_ZGVmYXVsdA.AZjA3n0OcACAAAAAAAAAAA." + "\ud800" * 43)
@example("fpk_ZGVmYXVsdA.AZjA3n0OcACAAAAAAAAAAA." + "A" * 43 + "\n")
@example("fpk_ZGVmYXVsdA.AZjA3n0OcACAAAAAAAAAAA." + "\u0661" * 43)
@example("fpk_Kg.AZjA3n0OcACAAAAAAAAAAA." + "A" * 43)  # the tenant `*`
@example("fpk__w.AZjA3n0OcACAAAAAAAAAAA." + "A" * 43)  # no UTF-8
def test_what_make_does_not_write_is_no_key_and_no_error(text: str) -> None:
    name = read_name(text)
    if name is None:
        return
    # Random text may happen to be a key. Then it is the only text for its three parts.
    assert has_shape(text)
    assert text.split(".")[:2] == make(*name).split(".")[:2]


@pytest.mark.parametrize("part", range(3))
def test_bits_that_say_nothing_make_another_text_and_no_key(part: int) -> None:
    parts = make("ab", KEY_ID).removeprefix("fpk_").split(".")  # none of the three fills its last character
    last = ALPHABET.index(parts[part][-1])
    order = string.ascii_uppercase + string.ascii_lowercase + string.digits + "-_"
    parts[part] = parts[part][:-1] + order[order.index(ALPHABET[last]) ^ 1]
    text = "fpk_" + ".".join(parts)
    assert has_shape(text)
    assert read_name(text) is None


def test_the_longest_tenant_fits_and_no_longer_text_has_the_shape() -> None:
    key = make("t" * 128, KEY_ID)
    assert read_name(key) == KeyName("t" * 128, KEY_ID)
    assert not has_shape(api_key_text.MARK + "A" * 172 + key[key.index(".") :])
