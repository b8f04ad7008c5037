"""Forkpoint: a store for LLM contexts that fork, served over GraphQL."""

import sys
from pathlib import Path

__version__ = "0.1.0"

# A wheel carries `schema` and `db` inside this package, because PyPI's `schema` library owns that top-level name.
# There they come first; in a checkout the folder does not exist and the packages are found as they lie.
_BUNDLE = Path(__file__).parent / "_bundle"
if _BUNDLE.is_dir():
    sys.path.insert(0, str(_BUNDLE))
