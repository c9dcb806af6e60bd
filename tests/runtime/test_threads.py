import os
import subprocess
import sys
from hashlib import sha256
from pathlib import Path

import pytest

from scalequest.runtime.threads import SPINS, limit_spinning
from tests.fakes import ROOT


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({"HOME": "/"}, {"HOME": "/", "GOMP_SPINCOUNT": SPINS}),
        ({"GOMP_SPINCOUNT": "infinite"}, {"GOMP_SPINCOUNT": "infinite"}),
        ({"OMP_WAIT_POLICY": "ACTIVE"}, {"OMP_WAIT_POLICY": "ACTIVE"}),
    ],
    ids=["unset", "the_users_count", "the_users_policy"],
)
def test_idle_threads_sleep_soon_unless_the_user_decides(before: dict[str, str], after: dict[str, str]):
    limit_spinning(before)
    assert before == after


STAGE = """
import os, sys
from scalequest.runtime.stage import run_stage
def main(args, run):
    assert "torch" not in sys.modules
    args.out.write_text(os.environ["GOMP_SPINCOUNT"])
run_stage(main, "A stage.", paths=("out",))
"""


def test_a_stage_sets_it_before_torch_is_there(tmp_path: Path):
    environment = {k: v for k, v in os.environ.items() if k not in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")}
    command = [sys.executable, "-c", STAGE, "--out", str(tmp_path / "out")]
    subprocess.run(command, check=True, cwd=ROOT, env=environment)
    assert (tmp_path / "out").read_text() == SPINS


TRAIN = """
import sys
from pathlib import Path
import torch
from scalequest.models.weights import load_chat
from scalequest.run.profile import load_profile
from scalequest.runtime.stage import StageRun
from scalequest.training.job import train
from scalequest.training.sft import SFT
from stages.qft import question_example
from tests.training.test_job import QUESTIONS, settings
model, out = map(Path, sys.argv[1:])
torch.set_num_threads(2)
examples = [question_example(load_chat(model), q) for q in QUESTIONS]
train(StageRun(load_profile()), SFT(), model, out, examples, settings())
"""


@pytest.mark.slow
def test_the_bytes_of_a_training_stay(model: Path, tmp_path: Path):
    made = set()
    for number, spins in enumerate((SPINS, "1000000000")):
        command = [sys.executable, "-c", TRAIN, str(model), str(tmp_path / str(number))]
        environment = os.environ | {"GOMP_SPINCOUNT": spins, "OMP_NUM_THREADS": "2"}
        subprocess.run(command, check=True, cwd=ROOT, env=environment)
        made.add(sha256((tmp_path / str(number) / "model.safetensors").read_bytes()).hexdigest())
    assert len(made) == 1
