"""Runs programs of npm packages with the node that the test requirements bring."""

import asyncio
import os
import sys
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "examples"
BIN = Path(sys.executable).parent
SECONDS_MAX = 120.0


async def run_node(
    *arguments: str | Path, cwd: Path = EXAMPLES, env: Mapping[str, str] | None = None, seconds: float = SECONDS_MAX
) -> str:
    """Run node in a folder, and give what it wrote to standard output.

    Raises: AssertionError with all that it wrote, when it fails or takes too long.
    """
    process = await asyncio.create_subprocess_exec(
        str(BIN / "node"),
        *map(str, arguments),
        cwd=cwd,
        env={**os.environ, "PATH": f"{BIN}{os.pathsep}{os.environ.get('PATH', '')}", **(env or {})},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        output, errors = await asyncio.wait_for(process.communicate(), seconds)
    except TimeoutError:
        process.kill()
        output, errors = await process.communicate()
        raise AssertionError(f"more than {seconds} s\n{output.decode()}\n{errors.decode()}") from None
    assert process.returncode == 0, f"{output.decode()}\n{errors.decode()}"
    return output.decode()
