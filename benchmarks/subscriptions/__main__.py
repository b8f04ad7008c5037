"""What live readers cost: idle ones, active ones beside two named alternatives, the doorbell, and many of one context.

    python -m benchmarks.subscriptions [--only idle,active,highest,doorbell,fan-out] [--seconds 10] [--rounds 3]

The service, started as its users start it, PostgreSQL (embedded), writers and readers share this machine. Variants take
turns, and medians are compared. What counts is the ratios: the absolute figures belong to the machine. Each run ends
with a check that every reader was told every message once, in order.
"""

import argparse
import contextlib
import resource
import statistics
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import psycopg
import uvloop

from benchmarks.peers import report
from benchmarks.subscriptions import idle, traffic
from benchmarks.subscriptions.service import MUTE, RESOLVED, RINGING, Running, System, running
from benchmarks.subscriptions.traffic import Followers, Pollers, Run, Subscribers, Thread, percentile
from db import embedded, migrate

FILES_MIN = 8_192
CONTEXTS = 200
RATE = 500
WRITERS = 64
DOORBELL_WRITERS = 32
TURNS = 5
TURN_SECONDS = 2.0
RATES = range(500, 5_000, 250)
FAN_OUT = 500
FAN_OUT_RATE = 50
# Who is further behind than this, or was slower than so much of what was asked, does not keep up.
BEHIND_SECONDS_MAX = 1.0
RATE_SHARE_MIN = 0.98

NOBODY = "nobody listens"
Follow = Callable[[Sequence[Thread]], Followers] | None
VARIANTS: dict[str, tuple[System, Follow]] = {
    NOBODY: (RINGING, None),
    "subscriptions": (RINGING, Subscribers),
    "without plans": (RESOLVED, Subscribers),
    "polling": (RINGING, Pollers),
}


def main() -> None:
    """Read the flags, and go through the parts."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.subscriptions", description=__doc__)
    parser.add_argument("--only", default=",".join(PARTS), help="some of these parts")
    parser.add_argument("--seconds", type=float, default=10, help="of each run")
    parser.add_argument("--idle-seconds", type=float, default=60)
    parser.add_argument("--rounds", type=int, default=3)
    flags = parser.parse_args()
    if unknown := set(flags.only.split(",")) - set(PARTS):
        parser.error(f"{', '.join(unknown)}: there is {', '.join(PARTS)}")
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(FILES_MIN, min(hard, 65_536)), hard))
    with _server() as benchmark:
        for part in flags.only.split(","):
            PARTS[part](benchmark, flags)


class _Benchmark:
    """The server that all parts use."""

    def __init__(self, server: embedded.EmbeddedServer) -> None:
        self.url = server.url
        self.log = server.home / "log"
        self._postmaster = int((server.data_folder / "postmaster.pid").read_text(encoding="ascii").split()[0])

    def running(self, system: System) -> contextlib.AbstractContextManager[Running]:
        return running(system, self.url, self._postmaster)

    def run(self, system: System, follow: Follow, seconds: float, rate: float | None, writers: int = WRITERS) -> Run:
        """Start a service anew, with contexts of its own, and load it."""

        async def load(service: Running) -> Run:
            threads = await traffic.create(service.port, CONTEXTS)
            followers = follow(threads) if follow else None
            return await traffic.run(service, threads, followers, seconds, rate=rate, writers=writers)

        with self.running(system) as service:
            return uvloop.run(load(service))


@contextlib.contextmanager
def _server() -> Iterator[_Benchmark]:
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        with embedded.running(Path(folder) / "home") as server:
            migrate.up(server.url)
            with psycopg.connect(server.url) as connection:
                print(", ".join(report.machine(connection.info.parameter_status("server_version") or "?")[:5]))
            yield _Benchmark(server)


def _idle(benchmark: _Benchmark, flags: argparse.Namespace) -> None:
    for sockets, sharing in ((2_000, 1), (20, 100)):
        with benchmark.running(RINGING) as service:
            uvloop.run(
                idle.measure(
                    service, benchmark.url, benchmark.log, sockets=sockets, sharing=sharing, seconds=flags.idle_seconds
                )
            )


def _active(benchmark: _Benchmark, flags: argparse.Namespace) -> None:
    runs: dict[str, list[Run]] = defaultdict(list)
    for _ in range(flags.rounds):
        for name, (system, follow) in VARIANTS.items():
            runs[name].append(benchmark.run(system, follow, flags.seconds, RATE))
    print(f"\n{CONTEXTS} readers of {CONTEXTS} contexts, {RATE} appends a second")
    quiet = runs[NOBODY]
    for name, each in runs.items():
        print(_line(name, each))
        if each is not quiet:
            service = _median(each, _service_each) - _median(quiet, _service_each)
            postgres = _median(each, _postgres_each) - _median(quiet, _postgres_each)
            print(f"  {'':22} for each one told: service {service * 1e6:+.0f} µs, PostgreSQL {postgres * 1e6:+.0f} µs")


def _service_each(run: Run) -> float:
    return run.service / run.written


def _postgres_each(run: Run) -> float:
    return run.postgres / run.written


def _highest(benchmark: _Benchmark, flags: argparse.Namespace) -> None:
    print("\nThe highest rate that readers keep up with")
    for name, (system, follow) in VARIANTS.items():
        best: Run | None = None
        for rate in RATES:
            # Whatever else the machine does must meet every try.
            for _ in range(flags.rounds):
                run = benchmark.run(system, follow, flags.seconds, rate)
                if run.rate >= RATE_SHARE_MIN * rate and run.behind <= BEHIND_SECONDS_MAX:
                    best = run
                    break
            else:
                break
        print(_line(name, [best]) if best else f"  {name:22} below {RATES[0]}", flush=True)


def _doorbell(benchmark: _Benchmark, flags: argparse.Namespace) -> None:
    """Write by turns to a service that rings and to one that does not: the disk's moods meet both."""
    rates: dict[str, list[float]] = defaultdict(list)
    costs: dict[str, list[float]] = defaultdict(list)

    async def load(services: Sequence[tuple[System, Running]]) -> None:
        threads = await traffic.create(services[0][1].port, CONTEXTS)
        for turn in range(1 + flags.rounds * TURNS):
            for system, service in services if turn % 2 else services[::-1]:
                run = await traffic.run(
                    service, threads, None, TURN_SECONDS, rate=None, writers=DOORBELL_WRITERS, warm_seconds=0.2
                )
                if turn:  # the first is for warming up
                    rates[system.title].append(run.rate)
                    costs[system.title].append((run.service + run.postgres) / run.written * 1e6)

    with benchmark.running(RINGING) as ringing, benchmark.running(MUTE) as mute:
        uvloop.run(load([(RINGING, ringing), (MUTE, mute)]))
    print(f"\nAppends of {DOORBELL_WRITERS} writers to {CONTEXTS} contexts, by turns")
    for title, each in rates.items():
        print(f"  {title:22} {statistics.median(each):6.0f} a second, {statistics.median(costs[title]):.0f} µs of CPU")
    for what, found in (("appends a second", rates), ("CPU", costs)):
        ratios = [with_it / without for with_it, without in zip(found[RINGING.title], found[MUTE.title], strict=True)]
        low, middle, high = statistics.quantiles(ratios, n=4)
        print(f"  with / without, {what}: {middle:.3f} (half of the turns from {low:.3f} to {high:.3f})")


def _fan_out(benchmark: _Benchmark, flags: argparse.Namespace) -> None:
    async def load(service: Running, rate: float) -> Run:
        threads = await traffic.create(service.port, 1)
        readers = Subscribers(threads * FAN_OUT)
        return await traffic.run(service, threads, readers, flags.seconds, rate=rate, writers=8)

    print(f"\n{FAN_OUT} readers of one context")
    for rate in (FAN_OUT_RATE / 5, FAN_OUT_RATE / 2, FAN_OUT_RATE):
        with benchmark.running(RINGING) as service:
            print(_line(f"{rate:.0f} appends a second", [uvloop.run(load(service, rate))]), flush=True)


def _median(runs: Sequence[Run], what: Callable[[Run], float]) -> float:
    return statistics.median(what(run) for run in runs)


def _percentiles(runs: Sequence[Run], what: Callable[[Run], Sequence[float]], *shares: float) -> list[float]:
    return [statistics.median(percentile(what(run), share) for run in runs) for share in shares]


def _line(name: str, runs: Sequence[Run]) -> str:
    """Write the medians of some runs."""
    written = _percentiles(runs, lambda run: run.append_latencies, 0.5, 0.99)
    parts = [
        f"  {name:22} {_median(runs, lambda run: run.rate):6.0f} appends/s",
        "answered in {:.1f} p50, {:.1f} p99 ms".format(*written),
    ]
    if runs[0].told:
        shares = _percentiles(runs, lambda run: run.latencies, 0.5, 0.95, 0.99, 1.0)
        parts += [
            f"told {_median(runs, lambda run: run.told / run.seconds):.0f}/s",
            "after {:.1f} p50, {:.1f} p95, {:.1f} p99, {:.0f} max ms".format(*shares),
            f"at the end {_median(runs, lambda run: run.behind) * 1000:.0f} ms behind",
        ]
    service = _median(runs, lambda run: run.service / run.seconds)
    postgres = _median(runs, lambda run: run.postgres / run.seconds)
    clients = _median(runs, lambda run: run.clients / run.seconds)
    return "; ".join([*parts, f"cores: service {service:.2f}, PostgreSQL {postgres:.2f}, clients {clients:.2f}"])


PARTS: dict[str, Callable[[_Benchmark, argparse.Namespace], None]] = {
    "idle": _idle,
    "active": _active,
    "highest": _highest,
    "doorbell": _doorbell,
    "fan-out": _fan_out,
}

if __name__ == "__main__":
    main()
