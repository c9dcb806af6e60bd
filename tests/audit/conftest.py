from pathlib import Path

import pytest

from tests.audit.pipeline import Pipeline


@pytest.fixture
def pipeline(tmp_path: Path) -> Pipeline:
    """A finished, committed run."""
    made = Pipeline(tmp_path / "repository")
    made.lock()
    made.commit()
    return made
