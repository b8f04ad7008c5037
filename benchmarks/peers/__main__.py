"""Loads a data set, starts each system, checks that all give the same, and prints what each request costs them.

    python -m benchmarks.peers [--keep FOLDER] [--systems forkpoint,limit] [--workloads W1,W2] [--markdown]

Rounds go through all systems in turn, so that whatever else the machine does meets them alike; of the rounds of each
the medians are compared. What counts is the ratios: the absolute figures belong to the machine.
"""

import argparse
import asyncio
import contextlib
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlsplit

import psycopg
from joserfc import jwt
from joserfc.jwk import OctKey

from benchmarks.peers import agreement, dataset, load, report, systems
from benchmarks.peers.load import Load, Run
from benchmarks.peers.systems import NODE_FOLDER, SYSTEMS, Running, System
from benchmarks.peers.workloads import ROUND_DOCUMENTS, WORKLOADS, Workload
from db import embedded, embedded_role, migrate

DATABASE = "peers"
BODIES = 8_000
WARM_SECONDS = 2
Named = TypeVar("Named", systems.System, Workload)


def main() -> None:
    """Read the flags, and go through the steps."""
    flags = _flags()
    if lack := load.missing():
        raise SystemExit(lack)
    chosen = []
    before = [System("before", "before", "forkpoint", systems.FORKPOINT, root=flags.before)] if flags.before else []
    for system in before + _choose(SYSTEMS, flags.systems):
        if lack := system.lacks():
            print(f"skipped: {system.title}, because {lack}")
        else:
            chosen.append(system)
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(_loaded(flags.keep, dataset.Size(flags.contexts, tuple(flags.lengths))))
        url = dataset.renew(server.url, "forkpoint", DATABASE)
        migrate.up(url)
        embedded_role.make(url)
        bound = url.replace(urlsplit(url).username or "", embedded_role.ROLE, 1)
        _prepare(url)
        key = asyncio.run(dataset.make_key(url))
        log = stack.enter_context((server.home / "peers.log").open("wb"))
        started = [
            stack.enter_context(
                systems.running(system, bound if system.bound else url, log, f"Bearer {_credential(system, key)}")
            )
            for system in chosen
        ]
        postmaster = int((server.data_folder / "postmaster.pid").read_text(encoding="ascii").split()[0])
        measure = _Measurement(started, url, postmaster, flags)
        lines: list[report.Line] = []
        try:
            for workload in _choose(WORKLOADS, flags.workloads):
                lines += measure.workload(workload)
        finally:
            memory = {running.system.title: load.resident_megabytes(running.pid) for running in started}
            report.print_table(lines, memory, markdown=flags.markdown)


def _credential(system: System, key: str) -> str:
    """Give what a system is asked with; those that ask for nothing look at it as little as at any other header."""
    secret = system.environment.get("FORKPOINT_JWT_KEY")
    if secret is None:
        return key
    claims = {"iss": "https://issuer.example", "aud": "forkpoint", "exp": int(time.time()) + 86_400}
    claims |= {"tenant": dataset.TENANT_ID, "scope": "write"}
    return jwt.encode({"alg": "HS256"}, claims, OctKey.import_key(secret))


class _Measurement:
    """All runs of all systems."""

    def __init__(self, started: Sequence[Running], url: str, postmaster: int, flags: argparse.Namespace) -> None:
        self._started = started
        self._url = url
        self._postmaster = postmaster
        self._flags = flags
        self._targets = dataset.Targets.read(url)

    def workload(self, workload: Workload) -> Iterator[report.Line]:
        """Check that the systems agree, warm them, and run the rounds."""
        started = [running for running in self._started if running.system.answers(workload)]
        sizes = agreement.check(workload, self._targets, started, self._url)
        many, single = Load(self._flags.connections, self._flags.seconds), Load(1, self._flags.seconds)
        runs: dict[str, list[Run]] = defaultdict(list)
        singles: dict[str, list[Run]] = defaultdict(list)
        plan: list[tuple[Load, dict[str, list[Run]] | None]] = [(Load(many.connections, WARM_SECONDS), None)]
        plan += [(many, runs)] * self._flags.rounds + [(single, singles)] * self._flags.single_rounds
        for seed, (each, into) in enumerate(plan):
            for running in started:
                count = ROUND_DOCUMENTS if workload.inlined else BODIES
                bodies = workload.requests(running.system.dialect, self._targets, seed, count)
                size, once = sizes[running.system.name], workload.inlined
                found = load.run(running, bodies, each, self._postmaster, size, once=once)
                if into is not None:
                    into[running.system.name].append(found)
                    print(
                        f"{workload.name} {each.connections:2} {running.system.title:18} {found.rate:8.0f}/s",
                        flush=True,
                    )
        for running in started:
            name = running.system.name
            yield report.Line(
                workload, running.system, load.median(runs[name]), load.median(singles[name]) if singles else None
            )


@contextlib.contextmanager
def _loaded(keep: Path | None, size: dataset.Size) -> Iterator[embedded.EmbeddedServer]:
    """Start the embedded server with the data set in it."""
    with contextlib.ExitStack() as stack:
        if keep is None:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            folder.chmod(0o755)
            keep = folder / "home"
        server = stack.enter_context(embedded.running(keep))
        done = server.home / "peers.loaded"
        if not done.exists():
            print(f"loading {size.contexts:,} contexts, and long ones of {size.lengths} messages", flush=True)
            migrate.up(server.url)
            asyncio.run(dataset.load(server.url, size))
            done.write_text(f"{size}\n", encoding="utf-8")
        elif done.read_text(encoding="utf-8") != f"{size}\n":
            raise SystemExit(f"{keep} holds another data set: {done.read_text(encoding='utf-8')}Name another folder.")
        yield server


def _prepare(url: str) -> None:
    """Give the copy what PostGraphile needs, and say what durability means here."""
    with psycopg.connect(url, autocommit=True) as connection:
        print(", ".join(report.machine(connection.info.parameter_status("server_version") or "?")))
        connection.execute((NODE_FOLDER / "functions.sql").read_text(encoding="utf-8"))
        for name in ("shared_buffers", "fsync", "synchronous_commit", "full_page_writes"):
            row = connection.execute(f"show {name}").fetchone()
            assert row is not None
            print(f"{name} = {row[0]}")
            if name in {"fsync", "synchronous_commit"} and row[0] != "on":
                raise SystemExit(f"{name} is {row[0]}: appends would not be durable")


def _choose(known: Sequence[Named], names: str | None) -> list[Named]:
    if names is None:
        return list(known)
    by_name = {each.name: each for each in known}
    unknown = [name for name in names.split(",") if name not in by_name]
    if unknown:
        raise SystemExit(f"{unknown[0]} is none of {', '.join(by_name)}")
    return [by_name[name] for name in names.split(",")]


def _flags() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peers", description=__doc__)
    parser.add_argument("--keep", type=Path, help="folder for the loaded server, which the next run uses again")
    parser.add_argument("--contexts", type=int, default=2_000, help="contexts of about 250 messages")
    parser.add_argument("--lengths", type=int, nargs="*", default=[1_000, 10_000, 100_000], help="long contexts")
    parser.add_argument("--before", type=Path, help="another checkout, to be compared with this one")
    parser.add_argument("--systems", help=", ".join(system.name for system in SYSTEMS))
    parser.add_argument("--workloads", help=", ".join(workload.name for workload in WORKLOADS))
    parser.add_argument("--seconds", type=int, default=5, help="of each run")
    parser.add_argument("--rounds", type=int, default=3, help="with many connections")
    parser.add_argument("--single-rounds", type=int, default=1, help="with one connection, for its latency")
    parser.add_argument("--connections", type=int, default=32)
    parser.add_argument("--markdown", action="store_true", help="print the table for a document")
    flags = parser.parse_args()
    if flags.contexts < dataset.CONTEXTS_MIN:
        parser.error(
            f"--contexts is {flags.contexts}. It must be {dataset.CONTEXTS_MIN} or more, to have a chain of forks."
        )
    return flags


if __name__ == "__main__":
    main()
