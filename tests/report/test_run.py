import re

import pytest

from scalequest.errors import UserError
from tests.report.finished import (
    Folder,
)


@pytest.mark.parametrize(
    ("name", "command"),
    [("judge", "dvc repro judge"), ("qft/sums", "dvc repro qft@sums")],
)
def test_missing_metrics_name_the_stage_to_run(folder: Folder, name: str, command: str) -> None:
    (folder.args.metrics / f"{name}.json").unlink()
    with pytest.raises(UserError, match=re.escape(command)):
        folder.run()


def test_missing_scores_name_the_stage_to_run(folder: Folder) -> None:
    for path in folder.args.scores.iterdir():
        path.unlink()
    with pytest.raises(UserError, match="dvc repro evaluate evaluate_student"):
        folder.run()
