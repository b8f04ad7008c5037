"""What an examination finds out: how it stands, one line of what was found, and one of what to do about it."""

from dataclasses import dataclass
from typing import Literal

Status = Literal["ok", "warning", "failed", "skipped"]


@dataclass(frozen=True)
class Finding:
    """One answer. `remedy` is None where there is nothing to do; `found` says of a skipped one because of what."""

    status: Status
    found: str
    remedy: str | None = None


def ok(found: str) -> Finding:
    """Say that there is nothing to do."""
    return Finding("ok", found)


def warning(found: str, remedy: str) -> Finding:
    """Say that it works, but not as it should, or not for long."""
    return Finding("warning", found, remedy)


def failed(found: str, remedy: str) -> Finding:
    """Say that it does not work."""
    return Finding("failed", found, remedy)


def skipped(reason: str) -> Finding:
    """Say that it could not be examined; `reason` goes on after "because"."""
    return Finding("skipped", f"because {reason}")


def refused(error: Exception) -> Finding:
    """Take a refusal apart: its last sentence says what to do."""
    found, _, remedy = str(error).rpartition(". ")
    return failed(f"{found}.", remedy) if found else failed(remedy, "Mend that and try again.")
