"""What tests of this folder share: a log that tells everything."""

import pytest
import structlog


@pytest.fixture(autouse=True)
def _log_of_every_level() -> None:
    """Forget the level that an application chose in an earlier test."""
    structlog.reset_defaults()
