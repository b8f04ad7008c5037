"""Examines an installation from its settings to its disk, and says of each fault what mends it.

Each check is a finding and none of them raises: what keeps one from being made is told by another, before it.
"""

import ipaddress
import json
import os
import shutil
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from difflib import get_close_matches
from pathlib import Path

from pydantic import ValidationError
from pydantic_settings import DotEnvSettingsSource, EnvSettingsSource

from db import checkup, embedded, preflight
from db.dbmate import MigrateError
from db.finding import Finding, Status, failed, ok, refused, skipped, warning
from graphql_api.auth import is_open
from graphql_api.settings import Settings, refusals, row_security_of, variable
from schema.token_count import TokenCounter

CHECKS = ("settings", "url", *checkup.CHECKS, "limits", "tokenizer", "disk")
# What no other check can be made without.
FIRST = ("settings", "url", "reachability")

MIB = 1024 * 1024
BYTES_AS_JSON_MAX = 6  # \u0000 is what a byte may become
KNOWN_TEXT = "Fork the context at version 42: naïve café, 東京タワー, 🍴🍴!\n\n\tdef f(x):  return x ** 2\n"
KNOWN_COUNTS = {"o200k_base": 33, "cl100k_base": 39}
COLOURS: dict[Status, str] = {"ok": "32", "warning": "33", "failed": "31", "skipped": "2"}
_REINSTALL = "Install forkpoint again: `pip install --force-reinstall --no-deps forkpoint`."


@dataclass(frozen=True)
class Check:
    """One line of the report. `remedy` is None when the status is ok, or skipped: then `found` names who has it."""

    name: str
    status: Status
    found: str
    remedy: str | None


def run(*, as_json: bool, workers: int = 1) -> int:
    """Examine, print, and give the exit status: 0 when nothing failed, 1 when something did."""
    checks = examine(workers=workers)
    if as_json:
        text = json.dumps({"status": overall(checks), "checks": [asdict(check) for check in checks]}, indent=2)
    else:
        coloured = sys.stdout.isatty() and "NO_COLOR" not in os.environ and os.environ.get("TERM") != "dumb"
        text = "\n".join(_report(checks, coloured=coloured))
    # The names in a database may be any, the terminal's encoding too.
    encoding = sys.stdout.encoding or "utf-8"
    sys.stdout.write(f"{text}\n".encode(encoding, "backslashreplace").decode(encoding))
    sys.stdout.flush()
    return 1 if overall(checks) == "failed" else 0


def overall(checks: list[Check]) -> Status:
    """Give the worst status; what was skipped counts by the check that it was skipped for."""
    found = {check.status for check in checks}
    return "failed" if "failed" in found else "warning" if "warning" in found else "ok"


def examine(
    *,
    workers: int = 1,
    disk_bytes_low: int = 1024 * MIB,
    disk_bytes_min: int = 100 * MIB,
    clock_seconds_max: float = 5.0,
) -> list[Check]:
    """Examine what the environment describes; where it names no database, the embedded one, started for as long.

    `workers` is how many processes are going to serve. Nothing is written to the database.
    Shape: one check for each name in CHECKS, in that order.
    """
    found: dict[str, Finding] = {}
    found["settings"], settings = _read_settings()
    if settings is not None:
        found["limits"] = _limits(settings)
        found["tokenizer"] = _tokenizer(settings)
        wanted = checkup.Wanted(
            migrate_url=settings.migrate_url.get_secret_value()
            if settings.migrate_url and settings.database_url
            else None,
            migrated_when_served=settings.database_url is None,
            workers=workers,
            pool_size_min=min(settings.pool_size_min, settings.pool_size_max),
            pool_size_max=settings.pool_size_max,
            lane_size=settings.fast_lane_connections and settings.fast_lane_connections + settings.append_connections,
            clock_seconds_max=clock_seconds_max,
            row_security=row_security_of(settings),
        )
        if settings.database_url is None:
            found |= _examine_embedded(settings.home, wanted, disk_bytes_low, disk_bytes_min)
        else:
            found |= _examine_own(settings.database_url.get_secret_value(), wanted)
    cause = next((name for name in FIRST if name in found and found[name].status == "failed"), "another check")
    left_out = skipped(f"{cause} failed")
    return [
        Check(name, each.status, each.found, each.remedy) for name in CHECKS for each in [found.get(name, left_out)]
    ]


def _read_settings() -> tuple[Finding, Settings | None]:
    try:
        settings = Settings()
        given = EnvSettingsSource(Settings).env_vars.keys() | DotEnvSettingsSource(Settings).env_vars.keys()
    except ValidationError as error:
        wrong = dict(refusals(error))
        found = "; ".join(f"{name}: {message[:1].lower()}{message[1:]}" for name, message in wrong.items())
        return failed(f"{found}.", f"Correct {', '.join(wrong)} in the environment or in .env."), None
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or "it is no text in UTF-8"
        return failed(f"The file .env cannot be read: {reason}.", "Mend it, or take it away."), None
    chosen = len(settings.model_fields_set)
    known = {variable(name) for name in Settings.model_fields}
    unknown = sorted({name.upper() for name in given if name.upper().startswith("FORKPOINT_")} - known)
    if unknown:
        bare = {name.removeprefix("FORKPOINT_"): name for name in known}
        likely = [bare[match] for name in unknown for match in get_close_matches(name[len("FORKPOINT_") :], bare, n=1)]
        remedy = f"Write {', '.join(likely)}, or take it away." if likely else "Take it away."
        return warning(f"{', '.join(unknown)} is no setting and is passed over.", remedy), settings
    return ok(f"All can be read: {chosen} set, {len(known) - chosen} by default."), settings


def _examine_own(url: str, wanted: checkup.Wanted) -> dict[str, Finding]:
    found = {"disk": ok("Not examined: the database is not the embedded one.")}
    try:
        place = preflight.place_of(url)
    except MigrateError as error:
        return found | {"url": refused(error)}
    return found | {"url": ok(f"DATABASE_URL names {place}.")} | checkup.examine(url, wanted)


def _examine_embedded(home: Path, wanted: checkup.Wanted, low: int, least: int) -> dict[str, Finding]:
    found = {"url": ok("DATABASE_URL is not set, so the embedded server is used.")}
    try:
        with embedded.running(home) as server:
            return found | {"disk": _disk(server.home, low, least)} | checkup.examine(server.url, wanted)
    except embedded.EmbeddedError as error:
        return found | {"disk": _disk(home, low, least), "reachability": refused(error)}


def _disk(home: Path, low: int, least: int) -> Finding:
    home = home.expanduser().resolve()
    folder = next(place for place in (home, *home.parents) if place.exists())
    free = shutil.disk_usage(folder).free
    if free >= low:
        return ok(f"{free // MIB:,} MiB are free for {home}.")
    found = f"Only {free // MIB:,} MiB are free for {home}."
    remedy = f"Free {(low - free) // MIB + 1:,} MiB there, or name a folder on another disk in FORKPOINT_HOME."
    return failed(found, remedy) if free < least else warning(found, remedy)


def _tokenizer(settings: Settings) -> Finding:
    name = settings.token_encoding
    try:
        counted = TokenCounter(name).count(KNOWN_TEXT)
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # noqa: BLE001 - tiktoken panics on a spoilt table with what is no Exception
        return failed(f"The vocabulary {name} cannot be used ({type(error).__name__}).", _REINSTALL)
    if counted != KNOWN_COUNTS[name]:
        return failed(
            f"The vocabulary {name} counts {counted} tokens where there are {KNOWN_COUNTS[name]}.", _REINSTALL
        )
    return ok(f"The vocabulary {name} counts as it should.")


def _limits(settings: Settings) -> Finding:
    """Look for settings that contradict each other; the worst of them gives the status."""
    found = list(_contradictions(settings))
    if not found:
        return ok("No settings contradict each other.")
    status: Status = "failed" if any(each.status == "failed" for each in found) else "warning"
    return Finding(status, " ".join(each.found for each in found), " ".join(each.remedy or "" for each in found))


def _contradictions(settings: Settings) -> Iterator[Finding]:
    if settings.migrate_url and not settings.database_url:
        yield failed(
            "FORKPOINT_MIGRATE_URL is set without DATABASE_URL: one database would be migrated and another one served.",
            "Set DATABASE_URL as well, or take FORKPOINT_MIGRATE_URL away.",
        )
    if settings.pool_size_min > settings.pool_size_max:
        yield warning(
            f"FORKPOINT_POOL_SIZE_MIN ({settings.pool_size_min}) is above FORKPOINT_POOL_SIZE_MAX "
            f"({settings.pool_size_max}).",
            f"Set FORKPOINT_POOL_SIZE_MIN={settings.pool_size_max} or less.",
        )
    if settings.trusted_documents_only and settings.trusted_documents is None:
        yield failed(
            "FORKPOINT_TRUSTED_DOCUMENTS_ONLY is set without FORKPOINT_TRUSTED_DOCUMENTS: the service does not start.",
            "Set FORKPOINT_TRUSTED_DOCUMENTS as well, or take FORKPOINT_TRUSTED_DOCUMENTS_ONLY away.",
        )
    yield from _contradicting_times(settings)
    needed = BYTES_AS_JSON_MAX * settings.append_bytes_max
    if settings.body_bytes_max < needed:
        yield warning(
            f"FORKPOINT_BODY_BYTES_MAX ({settings.body_bytes_max}) refuses what FORKPOINT_APPEND_BYTES_MAX "
            f"({settings.append_bytes_max}) allows: escaped in JSON, text grows up to {BYTES_AS_JSON_MAX} times.",
            f"Set FORKPOINT_BODY_BYTES_MAX={needed + 2 * MIB}.",
        )
    if is_open(settings) and not _is_loopback(settings.host):
        found = warning if settings.allow_unauthenticated else failed
        yield found(
            f"FORKPOINT_HOST ({settings.host}) lets other machines in, and there is no authentication.",
            "Set FORKPOINT_AUTHENTICATION=keys or jwt, or FORKPOINT_HOST=127.0.0.1.",
        )


def _contradicting_times(settings: Settings) -> Iterator[Finding]:
    chosen = {"mutation_seconds", "shutdown_seconds"} & settings.model_fields_set
    # By default a shutdown cuts the longest statements off, on purpose: few run so long, and they leave nothing behind.
    if chosen and settings.mutation_seconds > settings.shutdown_seconds:
        yield warning(
            f"FORKPOINT_MUTATION_SECONDS ({settings.mutation_seconds:g}) is above FORKPOINT_SHUTDOWN_SECONDS "
            f"({settings.shutdown_seconds:g}): a shutdown cuts statements off that may still run.",
            f"Set FORKPOINT_SHUTDOWN_SECONDS={settings.mutation_seconds:g}.",
        )
    if settings.health_seconds > settings.query_seconds:
        yield warning(
            f"FORKPOINT_HEALTH_SECONDS ({settings.health_seconds:g}) is above FORKPOINT_QUERY_SECONDS "
            f"({settings.query_seconds:g}): a database too slow for any request would count as healthy.",
            f"Set FORKPOINT_HEALTH_SECONDS={settings.query_seconds:g} or less.",
        )


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _report(checks: list[Check], *, coloured: bool) -> Iterator[str]:
    name_width, status_width = (max(map(len, names)) for names in (CHECKS, COLOURS))
    for check in checks:
        word = f"{check.status:{status_width}}"
        shown = f"\x1b[{COLOURS[check.status]}m{word}\x1b[0m" if coloured else word
        found = f"({check.found})" if check.status == "skipped" else check.found
        yield f"{shown}  {check.name:{name_width}}  {found}"
        if check.remedy is not None:
            yield f"{'':{status_width + name_width + 4}}-> {check.remedy}"
    counts = {status: sum(check.status == status for check in checks) for status in ("failed", "warning")}
    yield ""
    yield f"{counts['failed']} failed, {counts['warning']} to be warned of." if any(counts.values()) else "All is well."
