import json
from argparse import Namespace
from pathlib import Path

from scalequest.params import Params
from scalequest.runtime.stage import StageRun
from stages.solver import main
from tests.fakes import changed


def test_method_none_takes_the_fetched_model_as_it_is(tmp_path: Path, laptop: Params):
    base = tmp_path / "base"
    base.mkdir()
    (base / "config.json").write_text("{}")
    # No seeds, no trainer: what would be needed to train is not there.
    args = Namespace(
        base=base, seeds=tmp_path / "none", out=tmp_path / "out", metrics=tmp_path / "m.json", plot=tmp_path / "p.csv"
    )
    main(args, StageRun(changed(laptop, solver={"method": "none"})))
    assert (tmp_path / "out" / "config.json").read_text() == "{}"
    assert json.loads((tmp_path / "m.json").read_text()) == {"examples": 0}
    # The plot is an output of the stage: there, and without a step.
    assert (tmp_path / "p.csv").read_text() == "step,loss,grad_norm,learning_rate\n"
