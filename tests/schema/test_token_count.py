"""Token counting: exact, offline, and finished whatever the text."""

import asyncio
import base64
import faulthandler
import hashlib
import os
import random
import subprocess
import sys
from collections.abc import Callable, Coroutine, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from pathlib import Path
from types import FunctionType
from typing import Any

import pytest
import tiktoken
from hypothesis import given, settings
from hypothesis import strategies as st

from schema import token_count
from schema.token_count import CHUNK_CHARS, PATTERNS, SEAM, SEAM_SEARCH_CHARS, TokenCounter, split

ENCODINGS = ["cl100k_base", "o200k_base"]
MIB = 1 << 20

# Characters that the patterns treat each in a way of its own: white space of many kinds, contractions, letters with and
# without case, marks, digits, slashes, what Python and Rust class differently.
ODD = [
    *(
        " ",
        "  ",
        "\t",
        "\n",
        "\r\n",
        "\x0b",
        "\x1c",
        "\x85",
        "\u00a0",
        "\u1680",
        "\u2028",
        "\u3000",
        "\ufeff",
        "\u200d",
    ),
    *("'s", "'LL", "'\u017f", "a", "A", "zebra", "É", "ǅ", "ʰ", "\u0301", "中", "ก", "😀", "1", "234", "Ⅷ", "²", "ⓐ"),
    *(".", "^", "/", "//", "_", "\x01", "<|endoftext|>"),
]
TEXTS = st.one_of(st.text(), st.lists(st.sampled_from(ODD), max_size=30).map("".join))


def tiktoken_spec(name: str) -> tuple[dict[str, Any], str]:
    """Run tiktoken's own constructor, with our loader for its downloader: an Encoding's arguments, the pinned hash."""
    hashes: list[str] = []

    def load(_url: str, expected_hash: str) -> dict[bytes, int]:
        hashes.append(expected_hash)
        lines = (line.split() for line in token_count.read_table(name).splitlines())
        return {base64.b64decode(token): int(rank) for token, rank in lines}

    module = import_module("tiktoken_ext.openai_public")
    spec: dict[str, Any] = FunctionType(getattr(module, name).__code__, {**vars(module), "load_tiktoken_bpe": load})()
    return spec, hashes[0]


@pytest.fixture(scope="module")
def counters() -> Mapping[str, TokenCounter]:
    made = {name: TokenCounter(name) for name in ENCODINGS}
    for counter in made.values():
        counter.load()
    return made


@pytest.fixture(scope="module")
def oracles() -> Mapping[str, Callable[[str], list[int]]]:
    return {name: tiktoken.Encoding(**tiktoken_spec(name)[0]).encode_ordinary for name in ENCODINGS}


@pytest.fixture
def hang_guard() -> Iterator[None]:
    """End the process if one test takes two minutes: code in Rust hears neither exceptions nor a pytest timeout."""
    faulthandler.dump_traceback_later(120, exit=True)
    yield
    faulthandler.cancel_dump_traceback_later()


@pytest.mark.parametrize(
    ("text", "cl100k", "o200k"),
    [
        ("", 0, 0),
        ("hello world", 2, 2),
        ("tiktoken is great!", 6, 6),
        ("antidisestablishmentarianism", 6, 6),
        ("お誕生日おめでとう", 9, 8),
        ("<|endoftext|>", 7, 7),
        ("\x00", 1, 1),
        ("😀", 2, 1),
    ],
)
def test_known_counts(counters: Mapping[str, TokenCounter], text: str, cl100k: int, o200k: int) -> None:
    assert [counters[name].count(text) for name in ENCODINGS] == [cl100k, o200k]


@pytest.mark.parametrize("name", ENCODINGS)
def test_tables_and_patterns_are_those_that_tiktoken_pins(name: str) -> None:
    spec, pinned = tiktoken_spec(name)
    assert hashlib.sha256(token_count.read_table(name)).hexdigest() == pinned
    assert spec["pat_str"] == PATTERNS[name]
    assert list(spec["mergeable_ranks"].values()) == list(range(len(spec["mergeable_ranks"])))


@pytest.mark.parametrize("name", ["", "gpt2", "o200k_harmony", "../o200k_base"])
def test_another_encoding_is_refused_with_the_choices(name: str) -> None:
    with pytest.raises(ValueError, match=r"Choose one of cl100k_base, o200k_base\."):
        TokenCounter(name)


@pytest.mark.parametrize("name", ENCODINGS)
@settings(deadline=None)
@given(text=TEXTS)
def test_counts_are_tiktokens(
    counters: Mapping[str, TokenCounter], oracles: Mapping[str, Callable[[str], list[int]]], name: str, text: str
) -> None:
    assert counters[name].count(text) == len(oracles[name](text))


@pytest.mark.parametrize("name", ENCODINGS)
@settings(deadline=None)
@given(text=TEXTS)
def test_cutting_at_any_seam_changes_no_token(
    oracles: Mapping[str, Callable[[str], list[int]]], name: str, text: str
) -> None:
    encode = oracles[name]
    for seam in SEAM.finditer(text):
        assert encode(text[: seam.start()]) + encode(text[seam.start() :]) == encode(text)


@settings(deadline=None)
@given(text=TEXTS, chunk_chars=st.integers(1, 10), search_chars=st.integers(0, 10))
def test_chunks_are_the_text_and_end_at_the_first_seam_in_reach(text: str, chunk_chars: int, search_chars: int) -> None:
    chunks = list(split(text, chunk_chars, search_chars))
    assert "".join(chunks) == text
    end = 0
    for chunk in chunks[:-1]:
        earliest = end + chunk_chars
        end += len(chunk)
        seams = [seam.start() for seam in SEAM.finditer(text) if 0 <= seam.start() - earliest < search_chars]
        assert end == min(seams, default=earliest)
    assert len(chunks[-1]) <= chunk_chars


@pytest.mark.parametrize("name", ENCODINGS)
@pytest.mark.parametrize(
    "line",
    [
        "The quick brown fox jumps over 13 lazy dogs, doesn't it? ",
        '\t{"key": [1, 2.5, null]},\r\n',
        "春眠不覺曉。處處聞啼鳥。\n",
    ],
)
def test_long_text_with_spaces_or_lines_counts_exactly_as_in_one_piece(
    counters: Mapping[str, TokenCounter], oracles: Mapping[str, Callable[[str], list[int]]], name: str, line: str
) -> None:
    text = line * (3 * CHUNK_CHARS // len(line))
    assert counters[name].count(text) == len(oracles[name](text))


@pytest.mark.parametrize("name", ENCODINGS)
def test_long_text_without_a_seam_counts_nearly_as_in_one_piece(
    counters: Mapping[str, TokenCounter], oracles: Mapping[str, Callable[[str], list[int]]], name: str
) -> None:
    text = base64.b64encode(random.Random(1).randbytes(300_000)).decode()
    cuts = len(list(split(text))) - 1
    assert cuts == 6
    assert abs(counters[name].count(text) - len(oracles[name](text))) <= 3 * cuts


@pytest.mark.parametrize("name", ENCODINGS)
@pytest.mark.parametrize("around", [-1, 0, 1, SEAM_SEARCH_CHARS])
def test_the_chunk_limit_itself_is_no_edge(counters: Mapping[str, TokenCounter], name: str, around: int) -> None:
    # Eight letters a are one token in both encodings.
    assert counters[name].count("a" * 8) == 1
    letters = CHUNK_CHARS + around
    assert 0 <= counters[name].count("a" * letters) - letters // 8 <= 3


# Left alone, tiktoken 0.14 panics on the first six beyond 1,000,000 characters, in one encoding or both.
ENDLESS = {
    "spaces": " ",
    "tabs": "\t",
    "vertical tabs": "\x0b",
    "no-break spaces": "\u00a0",
    "ideographic spaces": "\u3000",
    "spaces then a letter": None,
    "newlines": "\n",
    "space and newline": " \n",
    "a": "a",
    "A": "A",
    "^": "^",
    "/": "/",
    "'": "'",
    "1": "1",
    "emoji": "😀",
    "combining mark": "\u0301",
    "joiner": "\u200d",
    "ideograph": "中",
    "U+0000": "\x00",
    "lone surrogate": "\ud83d",
}


@pytest.mark.usefixtures("hang_guard")
@pytest.mark.parametrize("name", ENCODINGS)
@pytest.mark.parametrize("endless", ENDLESS)
def test_endless_runs_are_counted(counters: Mapping[str, TokenCounter], name: str, endless: str) -> None:
    unit = ENDLESS[endless]
    if unit is None:
        text = " " * 1_100_000 + "x"
    elif unit.isspace():
        text = unit * 1_100_000
    else:
        text = unit * (MIB // len(unit.encode(errors="surrogatepass")))
    assert 0 < counters[name].count(text) <= len(text.encode(errors="surrogatepass"))


@pytest.mark.usefixtures("hang_guard")
@pytest.mark.parametrize(
    "make",
    [
        pytest.param(lambda _: " " * (8 * MIB - 1) + "x", id="spaces then a letter"),
        pytest.param(lambda chars: "".join(chars.choices("abcdefghijklmnopqrstuvwxyz", k=MIB)) * 8, id="letters"),
    ],
)
def test_eight_mebibytes_of_the_worst_are_counted(
    counters: Mapping[str, TokenCounter], make: Callable[[random.Random], str]
) -> None:
    text = make(random.Random(1))
    assert 0 < counters["o200k_base"].count(text) <= 8 * MIB


@pytest.mark.usefixtures("hang_guard")
@pytest.mark.parametrize("name", ENCODINGS)
def test_characters_at_random_are_counted(counters: Mapping[str, TokenCounter], name: str) -> None:
    # Lone surrogates included.
    text = "".join(map(chr, random.Random(1).choices(range(0x110000), k=300_000)))
    assert 0 < counters[name].count(text) <= len(text.encode(errors="surrogatepass"))


@settings(deadline=None, max_examples=30)
@given(texts=st.lists(st.one_of(st.text(max_size=20), st.just("long " * 2000)), max_size=5))
async def test_count_all_counts_each_in_order(counters: Mapping[str, TokenCounter], texts: list[str]) -> None:
    counter = counters["cl100k_base"]
    assert await counter.count_all(texts) == [counter.count(text) for text in texts]


def finish_at_once(counting: Coroutine[Any, Any, list[int]]) -> list[int]:
    """Run a coroutine that never waits."""
    with pytest.raises(StopIteration) as stop:
        counting.send(None)
    counts: list[int] = stop.value.value
    return counts


async def test_a_small_batch_is_counted_without_waiting() -> None:
    counter = TokenCounter("cl100k_base")
    assert await counter.count_all(["hello world"]) == [2]
    assert finish_at_once(counter.count_all(["hello world", ""])) == [2, 0]


@pytest.mark.parametrize("texts", [[" hello" * 400_000], ["hello"] * 50_000], ids=["one long text", "many short texts"])
async def test_a_large_batch_leaves_the_event_loop_free(counters: Mapping[str, TokenCounter], texts: list[str]) -> None:
    counting = asyncio.create_task(counters["cl100k_base"].count_all(texts))
    turns = 0
    while not counting.done():
        await asyncio.sleep(0.001)
        turns += 1
    assert sum(counting.result()) == sum(text.count("hello") for text in texts)
    assert turns > 2


async def test_the_table_is_loaded_beside_the_event_loop() -> None:
    counter = TokenCounter("cl100k_base")
    counting = asyncio.create_task(counter.count_all(["hello"]))
    await asyncio.sleep(0)
    assert not counting.done()
    assert await counting == [1]


def test_the_table_is_loaded_once_by_however_many_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    reads: list[str] = []
    read_table = token_count.read_table

    def read(encoding: str) -> bytes:
        reads.append(encoding)
        return read_table(encoding)

    monkeypatch.setattr(token_count, "read_table", read)
    token_count._encoding.cache_clear()  # noqa: SLF001 - another test may have loaded it
    counter = TokenCounter("cl100k_base")
    assert reads == []
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(counter.count, ["hello world"] * 8)) == [2] * 8
    counter.load()
    assert reads == ["cl100k_base"]


OFFLINE = """
import socket
from random import Random

def refuse(*arguments, **options):
    raise OSError("no network here")

socket.socket.connect = socket.socket.connect_ex = socket.getaddrinfo = refuse

from schema.token_count import TokenCounter

texts = ["hello world", "<|endoftext|>", "".join(Random(1).choices("ab \\n.", k=100_000)), "ab" * 50_000]
for name in ("cl100k_base", "o200k_base"):
    counter = TokenCounter(name)
    print([counter.count(text) for text in texts])
"""


def test_without_a_network_every_process_counts_the_same(tmp_path: Path) -> None:
    root = Path(token_count.__file__).parents[1]
    answers = {
        subprocess.run(
            [sys.executable, "-c", OFFLINE],
            cwd=root,
            env={**os.environ, "TIKTOKEN_CACHE_DIR": str(tmp_path), "PYTHONHASHSEED": seed},
            check=True,
            capture_output=True,
            text=True,
            timeout=120,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(answers) == 1
    assert answers.pop().startswith("[2, 7, ")
    assert list(tmp_path.iterdir()) == []
