"""Counts the tokens of texts offline, for any text, in bounded time and memory.

The rank tables lie beside this module in `ranks/`, because tiktoken downloads them at first use and a service must
start without a network. They are byte for byte the files that tiktoken pins by SHA-256, compressed with xz.

Left alone, tiktoken 0.14 panics on a run of more than 1,000,000 white-space characters (with an exception that is no
`Exception`), wants 9 seconds and 750 MB for 8 MiB of random letters without a space, and holds the interpreter lock
for up to 0.2 seconds while it builds eight million integers. So a long text is counted in chunks of 64 Ki characters.
Same text, same count, in every process.
"""

import asyncio
import lzma
import re
import threading
from binascii import a2b_base64
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path

from tiktoken import Encoding

FOLDER = Path(__file__).parent / "ranks"

# How each encoding splits text into pieces before it merges bytes. tiktoken has them in `tiktoken_ext.openai_public`,
# inside functions that download, so they are repeated here and a test compares them.
PATTERNS = {
    "cl100k_base": (
        r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+| ?[^\s\p{L}\p{N}]++[\r\n]*+"
        r"|\s++$|\s*[\r\n]|\s+(?!\S)|\s"
    ),
    "o200k_base": (
        r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
        r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
        r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    ),
}

# Places that no piece of either pattern goes across, whatever stands around them, so that counting both sides apart
# gives exactly the count of the whole: before a space or tab, where no white space precedes it; and after a line break,
# where neither white space nor a slash follows (o200k_base keeps line breaks and slashes with the punctuation before).
SEAM = re.compile(r"(?<=\S)(?=[ \t])|(?<=[\r\n])(?=[^\s/])")

# A fifteenth of what makes tiktoken panic. 8 MiB of one letter take 1.2 s in such chunks and 4.7 s in one piece;
# smaller chunks gain little (8 Ki: 0.9 s), and texts up to this length are counted by tiktoken undivided.
CHUNK_CHARS = 65_536

# How far beyond CHUNK_CHARS a seam is looked for before the text is cut where it stands.
SEAM_SEARCH_CHARS = 4_096

# Up to this cost a batch is counted on the event loop: 0.2 ms for English, 1.6 ms for emoji. A thread adds 0.1 ms.
LOOP_CHARS_MAX = 8_192

# What a call costs beside its characters, 1 µs in characters of English: many tiny texts are a large batch, too.
CALL_CHARS = 40


class TokenCounter:
    """Counts tokens as one encoding makes them, `o200k_base` or `cl100k_base`.

    Making one costs nothing: the table is loaded by `load`, or else by the first count. Safe to share between threads.

    Raises: ValueError for another encoding.
    """

    def __init__(self, encoding: str) -> None:
        if encoding not in PATTERNS:
            raise ValueError(f"{encoding!r} is not a token encoding. Choose one of {', '.join(sorted(PATTERNS))}.")
        self.encoding = encoding
        self._loaded: Encoding | None = None
        self._loading = threading.Lock()

    def load(self) -> None:
        """Load the table now, once: o200k_base takes 0.25 s and 50 MB, cl100k_base 0.1 s and 30 MB.

        A service calls `await asyncio.to_thread(counter.load)` at its start, so that no request waits for it.
        """
        self._ready()

    def count(self, text: str) -> int:
        """Count the tokens of any text; what looks like a special token (`<|endoftext|>`) is text like any other.

        Exactly tiktoken's count up to CHUNK_CHARS characters, and beyond it wherever chunks end at a SEAM. A text
        without one within SEAM_SEARCH_CHARS (base64, an endless word) is cut where it stands, which can change the
        count by a few tokens a chunk: 1 MiB of base64 counts 715,452 instead of 715,448. A lone surrogate counts as
        U+FFFD.
        """
        encoding = self._ready()
        if len(text) <= CHUNK_CHARS:
            return len(encoding.encode_ordinary(text))
        return sum(len(encoding.encode_ordinary(chunk)) for chunk in split(text))

    async def count_all(self, texts: Sequence[str]) -> list[int]:
        """Count each text, in order, without holding up the event loop: a large batch is counted in a worker thread."""
        cost = sum(map(len, texts)) + CALL_CHARS * len(texts)
        if self._loaded is not None and cost <= LOOP_CHARS_MAX:
            return self._count_each(texts)
        return await asyncio.to_thread(self._count_each, texts)

    def _count_each(self, texts: Sequence[str]) -> list[int]:
        return [self.count(text) for text in texts]

    def _ready(self) -> Encoding:
        if self._loaded is None:
            with self._loading:
                if self._loaded is None:
                    self._loaded = _encoding(self.encoding)
        return self._loaded


def split(text: str, chunk_chars: int = CHUNK_CHARS, search_chars: int = SEAM_SEARCH_CHARS) -> Iterator[str]:
    """Cut a text into chunks that together are the text.

    Shape: each chunk but the last has at least `chunk_chars` characters. It ends at the first seam from there on when
    one lies less than `search_chars` further; otherwise it has exactly `chunk_chars`.
    """
    start = 0
    while len(text) - start > chunk_chars:
        earliest = start + chunk_chars
        seam = SEAM.search(text, earliest, earliest + search_chars)
        end = seam.start() if seam else earliest
        yield text[start:end]
        start = end
    yield text[start:]


def read_table(encoding: str) -> bytes:
    """Give the rank table as tiktoken distributes it: lines of a token in base64, a space and its rank, by rank."""
    return lzma.decompress((FOLDER / f"{encoding}.tiktoken.xz").read_bytes())


@cache
def _encoding(name: str) -> Encoding:
    # Ranks count up from 0 without a gap (a test compares), and counting the lines halves the time of parsing them.
    ranks = {a2b_base64(token): rank for rank, token in enumerate(read_table(name).split()[::2])}
    # Special tokens never matter to encode_ordinary.
    encoding = Encoding(name, pat_str=PATTERNS[name], mergeable_ranks=ranks, special_tokens={})
    # Counting works on the copy in Rust. tiktoken keeps ours for listing tokens, which we never do: emptied, it gives
    # back 35 MB (o200k_base).
    ranks.clear()
    return encoding
