import json
from argparse import Namespace
from hashlib import sha256
from pathlib import Path

import pytest

from scalequest.errors import UserError
from scalequest.params import Own, Params, read_yaml
from scalequest.runtime.stage import StageRun
from stages.check import check_files, main
from tests.fakes import ROOT, changed, pinned_file


def test_it_is_the_first_stage_and_needs_nothing_that_another_makes():
    """DVC runs stages in the order of the file where no dependency says otherwise."""
    stages = read_yaml(ROOT / "dvc.yaml")["stages"]
    assert next(iter(stages)) == "check"
    assert all(path.endswith(".py") for path in stages["check"]["deps"])


def test_a_users_files_are_compared_with_their_pins(laptop: Params, tmp_path: Path):
    book, pairs, control = (tmp_path / name for name in ("book.jsonl", "pairs.jsonl", "control.jsonl"))
    for file in (book, pairs, control):
        file.write_text('{"question": "2 + 2?"}\n')
    own = Own(questions={"book": pinned_file(book)}, filtered={}, preferences={"sums": pinned_file(pairs)})
    tune = {"data": str(control), "data_sha256": sha256(control.read_bytes()).hexdigest()}
    params = changed(laptop, instruct_tune=tune).model_copy(update={"own": own})
    args = Namespace(metrics=tmp_path / "m.json")
    main(args, StageRun(params))
    assert json.loads(args.metrics.read_text())["own_files"] == 3

    pairs.write_text("other\n")
    with pytest.raises(UserError, match=r"own\.preferences\.sums: .*pairs\.jsonl has sha256"):
        main(args, StageRun(params))
    pairs.unlink()
    with pytest.raises(UserError, match=r"own\.preferences\.sums: .*pairs\.jsonl: no such file"):
        main(args, StageRun(params))
    nothing = Own(questions={}, filtered={}, preferences={})
    with pytest.raises(UserError, match=r"instruct_tune\.data_sha256: .*control\.jsonl has .*, params\.yaml pins 0000"):
        check_files(nothing, str(control), "0" * 64)
    with pytest.raises(UserError, match=r"instruct_tune\.data: absent\.jsonl: no such file"):
        check_files(nothing, "absent.jsonl", "0" * 64)
