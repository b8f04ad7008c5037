"""The table: medians of the rounds, for the terminal or for a document."""

import os
import platform
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import orjson
from rich.console import Console
from rich.table import Table

from benchmarks.peers.load import Run
from benchmarks.peers.systems import NODE_FOLDER, System, node
from benchmarks.peers.workloads import Workload

COLUMNS = [
    "",
    "system",
    "requests/s",
    "x PostGraphile",
    "x limit",
    "p50 ms",
    "p99 ms",
    "p50 of 1, ms",
    "CPU µs",
    "PostgreSQL µs",
]


@dataclass(frozen=True)
class Line:
    """A workload on a system: many connections, and one."""

    workload: Workload
    system: System
    many: Run
    single: Run | None


def machine(postgresql: str) -> list[str]:
    """Describe what the figures belong to: the processor, the memory, and the versions of all that takes part."""
    found = [
        f"{os.cpu_count()} cores ({_value('/proc/cpuinfo', 'model name')})",
        f"{int(_value('/proc/meminfo', 'MemTotal').split()[0]) / 2**20:.0f} GiB of memory",
        f"{platform.system()} {platform.release().split('-')[0]}",
        f"PostgreSQL {postgresql}",
        f"Python {platform.python_version()}",
    ]
    package = NODE_FOLDER / "node_modules" / "postgraphile" / "package.json"
    if package.exists() and node():
        found.append(f"PostGraphile {orjson.loads(package.read_bytes())['version']}")
        found.append(f"node {_first_line(node(), '--version')}")
    return [*found, _first_line("wrk", "--version")]


def _value(path: str, name: str) -> str:
    for line in Path(path).read_text(encoding="utf-8").splitlines():
        if line.startswith(name):
            return line.partition(":")[2].strip()
    return "0"


def _first_line(*command: str) -> str:
    # wrk tells its version, and fails for want of an address.
    finished = subprocess.run(command, capture_output=True, check=False, text=True)
    return " ".join(finished.stdout.splitlines()[0].split()[:2])


def rows(lines: Sequence[Line]) -> list[list[str]]:
    """Write the cells."""
    rates = {(line.workload.name, line.system.name): line.many.rate for line in lines}

    def ratio(line: Line, name: str) -> str:
        rate = rates.get((line.workload.name, name))
        return f"{line.many.rate / rate:.2f}" if rate else "-"

    found = []
    for number, line in enumerate(lines):
        begins = number == 0 or lines[number - 1].workload is not line.workload
        found.append(
            [
                line.workload.name if begins else "",
                line.system.title,
                f"{line.many.rate:,.0f}",
                ratio(line, "postgraphile"),
                ratio(line, "limit"),
                f"{line.many.p50:.1f}",
                f"{line.many.p99:.1f}",
                f"{line.single.p50:.2f}" if line.single else "-",
                f"{line.many.server_cpu:,.0f}",
                f"{line.many.postgres_cpu:,.0f}",
            ]
        )
    return found


def print_table(lines: Sequence[Line], memory: dict[str, float], *, markdown: bool) -> None:
    """Print all that was measured."""
    if markdown:
        print("| " + " | ".join(COLUMNS) + " |")
        print("|---|---|" + "---:|" * (len(COLUMNS) - 2))
        for row in rows(lines):
            print("| " + " | ".join(row) + " |")
    else:
        table = Table(*COLUMNS)
        for column in table.columns[2:]:
            column.justify = "right"
        for number, row in enumerate(rows(lines)):
            if number and row[0]:
                table.add_section()
            table.add_row(*row)
        Console(width=140).print(table)
    print()
    print("memory after the runs: " + ", ".join(f"{name} {megabytes:.0f} MB" for name, megabytes in memory.items()))
    for workload in dict.fromkeys(line.workload.name + ": " + line.workload.title for line in lines):
        print(workload)
