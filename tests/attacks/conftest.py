"""The service that is attacked, started once as operators start it, and what holds during and after an attack."""

from collections.abc import Iterator

import pytest

from tests.attacks.victim import Honest, Victim
from tests.conftest import copied
from tests.program import folder_for_all, serving

MIB = 1024 * 1024
# Above what it has after its start. Most of it is one body of the largest size, and what is read from it.
MEMORY_GROWTH_MAX = 400 * MIB
MEMORY_KEPT_MAX = 200 * MIB


@pytest.fixture(scope="session")
def victim(postgres: str, template: str) -> Iterator[Victim]:
    """Serve with the settings of production. Only this knows how that is done."""
    with (
        copied(postgres, template) as url,
        folder_for_all() as folder,
        serving(folder, DATABASE_URL=url) as program,
    ):
        victim = Victim(program, program.address(), url)
        honest = Honest(victim)
        for _ in range(20):
            honest.look()
        yield victim
        honest.close()
        victim.client.close()


@pytest.fixture(scope="session")
def fresh(victim: Victim) -> tuple[int, int]:
    """Memory and descriptors of a service that was used a little."""
    return victim.memory(), victim.descriptors()


@pytest.fixture(scope="session")
def honest(victim: Victim) -> Iterator[Honest]:
    """Ask honestly."""
    honest = Honest(victim)
    yield honest
    honest.close()


@pytest.fixture(autouse=True)
def besieged(victim: Victim, honest: Honest, fresh: tuple[int, int]) -> Iterator[None]:
    """Check, of every attack, that others are served meanwhile, and that the service is afterwards what it was."""
    victim.forget_peak()
    said = len(victim.program.said())
    with honest.asking():
        yield
    assert victim.program.process.poll() is None
    assert victim.memory("VmHWM") < fresh[0] + MEMORY_GROWTH_MAX
    assert victim.memory() < fresh[0] + MEMORY_KEPT_MAX
    assert victim.half_written() == []
    log = victim.program.said()[said:]
    assert "Traceback" not in log
    assert '"level":"error"' not in log


@pytest.fixture
def nothing_written(victim: Victim, honest: Honest) -> Iterator[None]:
    """Check that an attack writes nothing."""
    before = victim.rows(honest.id)
    yield
    assert victim.rows(honest.id) == before


@pytest.fixture
def honest_id(honest: Honest) -> str:
    """Give the id of a context that is there."""
    return honest.id
