"""How tests are spread over processes."""

import re
from pathlib import Path

from tests import parallel

ROOT = Path(__file__).parents[1]


def test_folders_run_in_one_process_more_than_there_are_cores_and_files_in_none() -> None:
    chosen = [["tests"], ["tests/db", __file__], [__file__], [f"{__file__}::test_it", __file__]]
    assert [parallel.workers(each, cores=2) for each in chosen] == [3, 3, 0, 0]
    assert parallel.workers(["tests"], cores=96) == parallel.WORKERS_MAX


def test_what_shares_something_costly_stays_together() -> None:
    assert [parallel.unit(f"tests/{name}.py") for name in ("test_wheel", "test_model")] == ["tests/test_wheel.py", None]
    using = {path for path in ROOT.glob("tests/db/test_*.py") if re.search(r"\bWorld\b", path.read_text())}
    assert {str(path.relative_to(ROOT)) for path in using} == parallel.WITH_WORLD
