"""Profiles: overlays of params.yaml, composed with all comments, and no edit lost on the way."""

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from scalequest.cli import main
from scalequest.errors import UserError
from scalequest.params import Params, read_yaml
from scalequest.run import profile
from scalequest.run.compose import load_values
from scalequest.run.profile import compose_profile, load_profile, profiles, switch
from tests.fakes import ROOT

NAMES = sorted(profiles(ROOT))


def git(folder: Path, *words: str) -> str:
    done = subprocess.run(["git", *words], cwd=folder, capture_output=True, text=True, check=True)
    return done.stdout


def commit(folder: Path, message: str) -> None:
    git(folder, "add", "-A")
    git(folder, "-c", "user.name=T", "-c", "user.email=t@example.org", "commit", "-qm", message)


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A repository with the base and the profiles, committed."""
    folder = tmp_path / "clone"
    shutil.copytree(ROOT / "profiles", folder / "profiles")
    (folder / "params.yaml").write_text(compose_profile("laptop", ROOT))
    git(folder, "init", "-q", "-b", "main")
    commit(folder, "base")
    return folder


def status(folder: Path) -> str:
    return git(folder, "status", "--porcelain")


# ------------------------------------------------------------------------------------------------------- composition


@pytest.mark.parametrize("name", NAMES)
def test_every_profile_composes_to_valid_parameters(name: str):
    assert load_profile(name, ROOT).mix
    assert list(load_values(compose_profile(name, ROOT))) == list(Params.model_fields)


@pytest.mark.parametrize("name", NAMES)
def test_a_profile_says_only_what_differs(name: str):
    overlay = profile.read_overlay(ROOT / "profiles" / f"{name}.yaml")
    below = load_values(compose_profile(overlay.on or "laptop", ROOT))

    def same(values: dict[str, Any], base: Any, key: str) -> list[str]:
        found = []
        for part, value in values.items():
            path = f"{key}.{part}" if key else part
            if path in overlay.replaces or not isinstance(base, dict) or part not in base:
                continue
            if isinstance(value, dict) and value:
                found += same(value, base[part], path)
            elif value == base[part]:
                found.append(path)
        return found

    assert same(overlay.values, below, "") == []


@pytest.mark.parametrize("name", NAMES)
def test_the_banners_of_all_sections_survive(name: str):
    # ruamel's round trip would lose the banner behind each section that is replaced whole
    banners = [line for line in compose_profile("laptop", ROOT).splitlines() if line.startswith("# ----")]
    assert [line for line in compose_profile(name, ROOT).splitlines() if line.startswith("# ----")] == banners
    assert len(banners) > 15


def test_a_profile_may_start_from_another_and_from_a_path(clone: Path):
    own = clone / "mine.yaml"
    own.write_text("profile:\n  summary: mine\n  on: paper-math\nruntime:\n  workers: 4\n")
    params = load_profile("mine.yaml", clone)
    assert (params.runtime.workers, params.runtime.engine, params.filter.n_questions) == (4, "local", 1_000_000)
    (clone / "profiles" / "a.yaml").write_text("profile: {summary: a, on: b}\n")
    (clone / "profiles" / "b.yaml").write_text("profile: {summary: b, on: a}\n")
    with pytest.raises(UserError, match="leads back to itself: a -> b -> a"):
        load_profile("a", clone)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("seed: 3\n", "no key `profile` with a `summary`"),
        ("profile: {summary: x, onn: y}\n", "profile.onn: unknown key. Expected summary, on, replaces"),
        ("profile: {summary: x, replaces: [models]}\n", "the profile sets no mapping 'models'"),
        ("profile: {summary: x}\nsed: 3\n", "sed: unknown parameter; did you mean 'seed'?"),
        ("profile: {summary: x}\nqpo: {betta: 3}\n", "qpo.betta: unknown parameter; did you mean 'beta'?"),
        ("profile: {summary: x}\nqpo: [1\n", "not YAML"),
    ],
)
def test_a_wrong_overlay_is_refused_and_writes_nothing(clone: Path, text: str, expected: str):
    (clone / "profiles" / "wrong.yaml").write_text(text)
    with pytest.raises(UserError) as caught:
        switch("wrong", clone)
    assert expected in str(caught.value)
    assert git(clone, "diff", "params.yaml") == ""


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("paper-mats", "Did you mean 'paper-math'?"),
        ("profiles/gpu135m.yaml", "Did you mean 'gpu-135m'?"),
        (
            "zzz",
            "Expected one of: laptop, gpu-1.5b, gpu-1.5b-programs, gpu-135m, laptop-code, laptop-logic, paper-code, paper-math",
        ),
    ],
)
def test_an_unknown_profile_names_its_neighbour(clone: Path, name: str, expected: str):
    with pytest.raises(UserError) as caught:
        switch(name, clone)
    assert expected in str(caught.value)


# ----------------------------------------------------------------------------------------------- switching and edits


@pytest.mark.parametrize("name", NAMES)
def test_there_and_back_leaves_git_clean(clone: Path, name: str):
    assert switch(name, clone)
    assert status(clone).split() == ["M", "params.yaml"]
    assert read_yaml(clone / "params.yaml") == load_values(compose_profile(name, ROOT))
    assert switch("laptop", clone)
    assert status(clone) == ""


def test_from_profile_to_profile(clone: Path):
    for name in [*NAMES, f"profiles/{NAMES[0]}.yaml"]:
        switch(name, clone)
    assert switch("laptop", clone)
    assert status(clone) == ""


def test_switching_lists_each_value_that_changed(clone: Path):
    lines = switch("paper-math", clone)
    assert "qpo.learning_rate: 0.0002 -> 5e-07" in lines
    assert "mix: [sums] -> [deepseek, qwen]" in lines
    assert any(line.startswith("seeds.chain_sum: ") and line.endswith("removed") for line in lines)
    assert any(line.startswith("seeds.gsm8k_train: ") and line.endswith("added") for line in lines)
    assert switch("paper-math", clone) == []


def test_a_committed_profile_still_leads_back(clone: Path):
    own = (clone / "params.yaml").read_text()
    switch("gpu-135m", clone)
    commit(clone, "a GPU run")
    switch("paper-math", clone)
    commit(clone, "another run")
    switch("laptop", clone)
    assert (clone / "params.yaml").read_text() == own


@pytest.mark.parametrize("first", ["laptop", "gpu-135m"])
def test_edits_are_refused_and_named(clone: Path, first: str):
    switch(first, clone)
    file = clone / "params.yaml"
    edited = file.read_text().replace("  beta: 0.1 ", "  beta: 0.2 ")
    file.write_text(edited)
    with pytest.raises(UserError, match=r"it holds edits that switching would lose:\n  qpo.beta: 0.1 -> 0.2"):
        switch("paper-math", clone)
    with pytest.raises(UserError, match="edits"):
        switch("laptop", clone)
    assert file.read_text() == edited


def test_what_dvc_exp_run_s_writes_is_an_edit(clone: Path):
    from dvc.utils.serialize import modify_yaml  # what `dvc exp run -S qpo.beta=0.2` does to the file

    switch("gpu-135m", clone)
    with modify_yaml(str(clone / "params.yaml")) as params:
        params["qpo"]["beta"] = 0.2
    with pytest.raises(UserError, match=r"switching would lose:\n  qpo.beta: 0.1 -> 0.2\n"):
        switch("laptop", clone)
    assert read_yaml(clone / "params.yaml")["qpo"]["beta"] == 0.2


def test_a_lost_comment_is_an_edit_too(clone: Path):
    file = clone / "params.yaml"
    file.write_text(file.read_text() + "# my remark\n")
    with pytest.raises(UserError, match="comments or layout only"):
        switch("paper-math", clone)


def test_force_keeps_the_edits_as_a_git_object(clone: Path, capsys: pytest.CaptureFixture[str]):
    file = clone / "params.yaml"
    edited = file.read_text().replace("seed: 17", "seed: 99", 1)
    file.write_text(edited)
    switch("gpu-135m", clone, force=True)
    name = capsys.readouterr().err.split("cat-file -p ")[1].split()[0]
    assert git(clone, "cat-file", "-p", name) == edited
    assert read_yaml(file)["seed"] == 17


def test_force_keeps_the_edits_beside_the_file_where_there_is_no_git(clone: Path, capsys: pytest.CaptureFixture[str]):
    shutil.rmtree(clone / ".git")
    file = clone / "params.yaml"
    edited = file.read_text().replace("seed: 17", "seed: 99", 1)
    file.write_text(edited)
    switch("gpu-135m", clone, force=True)
    assert capsys.readouterr().err == f"there is no Git here; the old file is kept: {file}.bak\n"
    assert Path(f"{file}.bak").read_text() == edited


@pytest.mark.parametrize("read", [load_profile, switch])
def test_a_file_that_is_not_utf_8_is_named(clone: Path, read: Any):
    with (clone / "params.yaml").open("ab") as file:
        file.write(b"# caf\xe9\n")
    with pytest.raises(
        UserError, match=r"params\.yaml: not UTF-8 \(byte 0xe9 at position \d+\)\. Expected a file in UTF-8"
    ):
        read("params.yaml" if read is load_profile else "gpu-135m", clone)


def test_a_file_that_no_git_keeps_is_not_called_edited(clone: Path):
    shutil.rmtree(clone / ".git")
    before = (clone / "params.yaml").read_text()
    with pytest.raises(
        UserError, match=r"params.yaml: no commit of Git holds this file, so switching would lose it\. .*--force"
    ):
        switch("gpu-135m", clone)
    assert (clone / "params.yaml").read_text() == before


def test_force_replaces_what_is_no_yaml(clone: Path):
    file = clone / "params.yaml"
    file.write_text("foo: [1\n")
    switch("laptop", clone, force=True)
    assert read_yaml(file)["seed"] == 17


def test_out_to_params_yaml_loses_no_edits(
    clone: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.chdir(clone)
    file = clone / "params.yaml"
    edited = file.read_text().replace("seed: 17", "seed: 99", 1)
    file.write_text(edited)
    with pytest.raises(SystemExit) as caught:
        main(["profile", "gpu-135m", "--out", "params.yaml"])
    assert caught.value.code == 2
    assert "it holds edits that switching would lose" in capsys.readouterr().err
    assert file.read_text() == edited


def test_committed_edits_are_the_new_base(clone: Path):
    file = clone / "params.yaml"
    file.write_text(file.read_text().replace("seed: 17", "seed: 99", 1))
    commit(clone, "my seed")
    switch("gpu-135m", clone)
    assert read_yaml(file)["seed"] == 99
    switch("laptop", clone)
    assert status(clone) == ""


def test_a_copied_overlay_can_be_switched_away_from(clone: Path):
    shutil.copy(clone / "profiles" / "gpu-135m.yaml", clone / "params.yaml")
    with pytest.raises(UserError, match="a profile, which holds only what differs"):
        load_profile("params.yaml", clone)
    switch("laptop", clone)
    assert status(clone) == ""


def test_a_parameter_that_was_just_added_reaches_the_profiles(clone: Path, monkeypatch: pytest.MonkeyPatch):
    # Two files: params.yaml here, and the class in scalequest/params, which the patched check stands for.
    file = clone / "params.yaml"
    file.write_text(file.read_text().replace("seed: 17\n", "seed: 17\nadded: 3\n", 1))
    monkeypatch.setattr(profile, "_is_valid", lambda text: "added: 3" in text)
    assert "added: 3" in compose_profile("paper-math", clone)


def test_without_git_the_file_itself_is_the_base(tmp_path: Path):
    shutil.copytree(ROOT / "profiles", tmp_path / "profiles")
    (tmp_path / "params.yaml").write_text(compose_profile("laptop", ROOT))
    assert load_profile("gpu-135m", tmp_path) == load_profile("gpu-135m", ROOT)
    with pytest.raises(UserError, match="no commit of Git holds this file"):
        switch("gpu-135m", tmp_path)
    (tmp_path / "params.yaml").write_text(profile.mark("gpu-135m", compose_profile("gpu-135m", ROOT)))
    with pytest.raises(UserError, match="no commit of this clone holds the repository's own parameters"):
        switch("laptop", tmp_path)


# ----------------------------------------------------------------------------------------------------------- command


def run(*words: str) -> int:
    with pytest.raises(SystemExit) as caught:
        main(["profile", *words])
    return int(caught.value.code or 0)


def test_the_command_lists_switches_and_marks(
    clone: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.chdir(clone)
    assert run() == 0
    listed = capsys.readouterr().out
    assert listed.startswith("* laptop ")
    assert [line[2:].split()[0] for line in listed.splitlines()] == ["laptop", *NAMES]
    assert run("gpu-135m") == 0
    written = capsys.readouterr().out
    assert "qpo_questions.n_questions: 64 -> 4096" in written
    assert written.splitlines()[-1] == "Next: `scalequest check` names what a run would stop at."
    assert run() == 0
    assert "\n* gpu-135m " in capsys.readouterr().out
    assert run("paper-math", "--out", "other.yaml") == 0
    assert read_yaml(Path("other.yaml"))["mix"] == ["deepseek", "qwen"]
    capsys.readouterr()
    assert run("nothing") == 2
    assert "no such profile" in capsys.readouterr().err
