"""How tests are spread over processes: one by one, but those together that share what is costly to make."""

import re
from functools import cache
from pathlib import Path

from xdist.scheduler import LoadScopeScheduling  # type: ignore[import-untyped] # it has no types

ROOT = Path(__file__).parents[1]
WORKERS_MAX = 8

# What a file makes once for its tests, every process that ran one of them would make again.
SHARES = re.compile(r'^@pytest\.fixture\(scope="module"\)$', re.MULTILINE)
# Files whose tests share something besides: the database with long histories of tests/db/conftest.py.
WITH_WORLD = {"tests/db/test_batch_plans.py", "tests/db/test_live_plans.py", "tests/db/test_plans.py"}


def workers(chosen: list[str], cores: int) -> int:
    """Say how many processes shall run what was chosen: 0 is this one, which files named one by one need not wait for.

    Tests wait for servers and programs as much as they compute, so one process more than there are cores pays.
    """
    files = [Path(argument.partition("::")[0]) for argument in chosen]
    return 0 if all(file.is_file() for file in files) else min(cores + 1, WORKERS_MAX)


class Scheduling(LoadScopeScheduling):  # type: ignore[misc] # the same
    """Gives a process that runs out of work the next test, or all those that belong together, the largest first."""

    def _split_scope(self, nodeid: str) -> str:
        """Name the tests that this one belongs to."""
        return unit(nodeid.partition("::")[0]) or nodeid


@cache
def unit(file: str) -> str | None:
    """Name what keeps the tests of a file together, if anything does."""
    if file in WITH_WORLD:
        return "world"
    return file if SHARES.search((ROOT / file).read_text(encoding="utf-8")) else None
