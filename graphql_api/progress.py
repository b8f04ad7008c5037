"""Shows how far a long command has come: a bar on a terminal, a few lines elsewhere."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskProgressColumn, TextColumn

# Without a terminal, so many lines tell of the progress.
LINES = 4

# Told what is done, and of how much.
Report = Callable[[int, int], None]


@contextmanager
def progress(title: str, *, aside: bool = False) -> Iterator[Report]:
    """Give what is to be told of the progress; `aside` shows it on standard error, where the output is data."""
    console = Console(stderr=aside)
    if not console.is_terminal:
        yield _lines(title, aside=aside)
        return
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), MofNCompleteColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task(title, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def _lines(title: str, *, aside: bool) -> Report:
    told = 0

    def report(done: int, total: int) -> None:
        nonlocal told
        if total and done * LINES // total > told:
            told = done * LINES // total
            typer.echo(f"{title}: {done:,} of {total:,}", err=aside)

    return report
