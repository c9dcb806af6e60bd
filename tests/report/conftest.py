from pathlib import Path

import pytest

from scalequest.params import Params
from tests.report.finished import Folder


@pytest.fixture
def folder(tmp_path: Path, laptop: Params) -> Folder:
    """A finished run."""
    return Folder(tmp_path, laptop)
