"""What readers see first: README, docs, descriptions and help texts say what is true, in the words of CONTRIBUTING.md."""

import ast
import io
import json
import re
import statistics
import subprocess
import sys
import tokenize
from pathlib import Path
from typing import Any

import pytest

from benchmarks.students import mean, read_shares
from scalequest import cli
from scalequest.io import read_json
from scalequest.params import read_yaml
from tests.fakes import ROOT

PAGES = sorted(
    path
    for path in (*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), ROOT / "data" / "README.md", ROOT / "models" / "README.md")
    if path.name != "LOG.md"
)  # fmt: skip
# Records of what was done: their lines of the first days are wider.
RECORDS = [
    ROOT / "LOG.md",
    ROOT / "benchmarks" / "README.md",
    *sorted((ROOT / "reports" / "results").glob("*/README.md")),
]
YAML_FILES = [
    "dvc.yaml",
    "params.yaml",
    *(f"{folder}/{p.name}" for folder in ("profiles", "experiments") for p in sorted((ROOT / folder).glob("*.yaml"))),
]
# "Three tokens a second": per second.
A_FOR_PER = re.compile(
    r"\b(?:tokens|rows|questions|sequences|comparisons|lines|seconds|minutes|hours|samples|answers|requests|one|two|three|[\d.,]*\d"
    r" [a-z]+s) an? (?:second|minute|hour|day|question|row|line|step|stage|shard|run|problem|example|request|process|seed|GPU)\b"
)
# Names of commands of earlier versions, where a page may quote them.
FORMER = {"CHANGELOG.md": {"repro"}}
RESULTS = ROOT / "reports" / "results" / "gpu-135m"


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def prose(text: str) -> list[str]:
    """The lines of a page outside of code blocks and tables."""
    inside, lines = False, []
    for line in text.splitlines():
        if line.startswith("```"):
            inside = not inside
        elif not inside and not line.lstrip().startswith("|"):
            lines.append(line)
    return lines


# ------------------------------------------------------------------------------------------------------------ README


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 130


@pytest.mark.parametrize(("model", "label"), [("base", "base"), ("student", "student")])
def test_the_headline_scores_are_the_committed_ones(model: str, label: str):
    score = json.loads((RESULTS / "scores" / f"{model}.json").read_text())["gsm8k"]
    wanted = f"{100 * score['flexible']:.1f} ± {100 * score['flexible_stderr']:.1f}"
    [row] = [line for line in (ROOT / "README.md").read_text().splitlines() if f"SmolLM2-135M, {label}" in line]
    assert wanted in row
    assert f"{score['n']:,} of" in (ROOT / "README.md").read_text()


def test_the_headline_rows_are_the_committed_ones():
    text = (ROOT / "README.md").read_text()
    kept = json.loads((RESULTS / "metrics.json").read_text())["metrics"]["reward_select"]["kept"]
    [student_row] = [line for line in text.splitlines() if "135M, student" in line]
    assert f"{kept:,}" in student_row


@pytest.mark.parametrize(
    ("cell", "label", "rows"),
    [
        ("more/students/human", "control", "14,011"),
        ("more/students/answers_22956", "taught by 1.5B", "22,956"),
        ("programs", "answers with programs", "30,291"),
    ],
)
def test_the_headlines_of_the_runs_with_a_teacher_are_the_committed_ones(cell: str, label: str, rows: str):
    folder = ROOT / "reports" / "results" / "gpu-1.5b"
    scores = [
        json.loads(file.read_text())["gsm8k"] for file in sorted((folder / cell / "scores").glob("student*.json"))
    ]
    text = (ROOT / "README.md").read_text()
    [row] = [line for line in text.splitlines() if f"135M, {label}" in line]
    assert len(scores) == 3
    assert f"{100 * statistics.mean(score['flexible'] for score in scores):.1f} ± " in row
    assert all(f"on {score['n']}," in text for score in scores)
    assert rows in row
    assert f"| {rows} |" in (folder / "README.md").read_text().replace("**", "")


def test_the_readme_names_every_stage():
    listed = set(
        re.findall(r"`([a-z_]+)`", (ROOT / "README.md").read_text().split("The stages in order:")[1].split("##")[0])
    )
    assert listed == set(read_yaml(ROOT / "dvc.yaml")["stages"])


@pytest.mark.parametrize("folder", ["data", "models"])
def test_the_pages_in_data_and_models_name_every_output(folder: str):
    table = re.findall(r"^\| (`.*?) \|", (ROOT / folder / "README.md").read_text(), re.MULTILINE)
    named = {name.split("/")[0].split("*")[0].rstrip("_") for cell in table for name in re.findall(r"`([^`]+)`", cell)}
    written = set()
    for stage in read_yaml(ROOT / "dvc.yaml")["stages"].values():
        for out in stage.get("do", stage).get("outs", []):
            path = out if isinstance(out, str) else next(iter(out))
            top, _, rest = path.partition("/")
            if top == folder:
                written.add(rest.split("/")[0].replace("${key}", "student"))
    assert named == written


def test_the_picture_shows_the_committed_results():
    """Drawn anew from them, its charts by the report's own functions."""
    done = subprocess.run([sys.executable, "docs/picture.py", "--check"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    drawn = (ROOT / "docs" / "overview.svg").read_text()
    for words in ("52,224", "8,192 (−34,762)", "4,295 (−3,897)", "1.4 ± 0.4", "7.5 ± 0.7", "9.0 ± 0.8", "13.3 ± 1.0"):
        assert f">{words}</text>" in drawn


TEACHER = ROOT / "reports" / "results" / "gpu-1.5b"


@pytest.mark.parametrize("student", read_json(TEACHER / "students.json"), ids=lambda student: str(student["rows"]))
def test_the_students_of_the_picture_have_the_mean_of_their_scores(student: dict[str, Any]):
    found = [read_json(file)["gsm8k"] for file in sorted((TEACHER / student["scores"]).glob("student*.json"))]
    assert len(found) == student["seeds"]
    assert {score["n"] for score in found} == {student["items"]}
    assert student["gsm8k"] == pytest.approx(100 * statistics.mean(score["flexible"] for score in found), abs=0.05)
    shares = read_shares(TEACHER / "more" / "marks.csv")["gsm8k", "test"][student["marks"]]
    assert len(shares) == student["items"]
    assert tuple(round(value, 1) for value in mean(shares)) == (student["gsm8k"], student["standard_error"])
    assert f"{student['gsm8k']} ± {student['standard_error']} %" in (TEACHER / "README.md").read_text()
    assert f"| {student['rows']:,} |" in (TEACHER / "README.md").read_text().replace("**", "")


@pytest.mark.parametrize("task", ["gsm8k", "math500"])
@pytest.mark.parametrize(
    ("column", "scores"), [("base", "programs"), ("text", "more/students/answers_22956"), ("programs", "programs")]
)
def test_the_marks_beside_programs_have_the_means_of_the_scores(task: str, column: str, scores: str):
    kind = "base" if column == "base" else "student"
    found = [read_json(file)[task] for file in sorted((TEACHER / scores / "scores").glob(f"{kind}*.json"))]
    shares = read_shares(TEACHER / "programs" / "marks.csv")[task, "test"][column]
    assert {score["n"] for score in found} == {len(shares)}
    # Scores are rounded to six digits.
    assert statistics.mean(shares) == pytest.approx(statistics.mean(score["flexible"] for score in found), abs=1e-6)
    value, error = mean(shares)
    assert f"{value:.1f} ± {error:.1f} %" in (TEACHER / "README.md").read_text()


@pytest.mark.parametrize("page", [*PAGES, *RECORDS], ids=name)
def test_links_lead_somewhere(page: Path):
    for target in re.findall(r"\]\(([^)#\s]+)(?:#[\w-]+)?\)", page.read_text()):
        if "://" not in target:
            assert (page.parent / target).exists(), f"{name(page)} links to {target}"


@pytest.mark.parametrize("page", [*PAGES, *RECORDS], ids=name)
def test_commands_in_the_documents_exist(page: Path):
    for command in re.findall(
        r"\bscalequest ([a-z]+)\b", "\n".join(re.findall(r"`[^`]*`|```.*?```", page.read_text(), re.DOTALL))
    ):
        assert command in {*cli.COMMANDS, "help"} | FORMER.get(name(page), set()), f"{name(page)}: scalequest {command}"
    for module in re.findall(r"python -m (scalequest[\w.]*)", page.read_text()):
        assert page.name == "CHANGELOG.md", f"{name(page)}: {module} is called by `scalequest`"


# ------------------------------------------------------------------------------------------------------------- prose


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_no_line_is_over_120_characters(page: Path):
    # Wider are only the tables of choices in docs/evaluation.md and of features in docs/comparison.md.
    text = page.read_text()
    lines = prose(text) if page.name in ("comparison.md", "evaluation.md") else text.splitlines()
    assert [line for line in lines if len(line) > 120] == []


@pytest.mark.parametrize("file", YAML_FILES)
def test_no_line_of_parameters_and_pipeline_is_over_120_characters(file: str):
    assert [line for line in (ROOT / file).read_text().splitlines() if len(line) > 120] == []


def words() -> list[str]:
    """The words of CONTRIBUTING.md's list that are wrong here."""
    table = (ROOT / "CONTRIBUTING.md").read_text().split("<!-- words:begin -->")[1].split("<!-- words:end -->")[0]
    rows = [line.split("|")[1] for line in table.splitlines() if line.startswith("|")]
    return [word for row in rows for word in re.findall(r"`([^`]+)`", row)]


def found_in(text: str) -> list[str]:
    """The sentences, shortened, that hold a wrong word."""
    flat = re.sub(r"\s+", " ", re.sub(r"\n\s*#?\s*", " ", text))
    hits = []
    for word in words():
        for match in re.finditer(rf"\b{re.escape(word)}\b", flat, re.IGNORECASE):
            hits.append(f"{word}: ...{flat[max(0, match.start() - 40) : match.end() + 30]}...")
    return hits + [f"a for per: {match[0]}" for match in A_FOR_PER.finditer(flat)]


def test_the_list_finds_what_it_should():
    assert len(words()) > 20
    assert found_in("This is reckoned\n# from so many rows.") == [
        "reckoned: ...This is reckoned from so many rows....",
        "so many: ...This is reckoned from so many rows....",
    ]
    assert found_in("The amendment is not told-off; told.") == [
        "told: ...The amendment is not told-off; told....",
        "told: ...The amendment is not told-off; told....",
    ]
    assert found_in("a recommendation, a storytelling") == []
    assert found_in("It writes 3 lines a stage") == ["a for per: 3 lines a stage"]
    assert found_in("It draws 40 tokens a minute") == ["a for per: 40 tokens a minute"]
    assert found_in("Give each stage a second GPU; three rows, a question. On a GPU, so a run ends.") == []


@pytest.mark.parametrize("page", [p for p in [*PAGES, *RECORDS] if p.name != "CONTRIBUTING.md"], ids=name)
def test_pages_use_plain_words(page: Path):
    assert found_in(re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)) == []


@pytest.mark.parametrize("file", ["Makefile", *YAML_FILES])
def test_descriptions_and_comments_use_plain_words(file: str):
    assert found_in((ROOT / file).read_text()) == []


@pytest.mark.parametrize("command", cli.COMMANDS)
def test_help_texts_use_plain_words(command: str, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit):
        cli.main([command, "--help"])
    assert found_in(capsys.readouterr().out + cli.COMMANDS[command].help) == []


def error_texts(file: Path) -> str:
    """The strings of a module that are raised as a UserError, or yielded as lines of one."""
    found = []
    for node in ast.walk(ast.parse(file.read_text())):
        raised = isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "UserError"
        if raised or (isinstance(node, ast.Yield) and isinstance(node.value, ast.JoinedStr)):
            texts = [
                part.value for part in ast.walk(node) if isinstance(part, ast.Constant) and isinstance(part.value, str)
            ]
            found.append("".join(texts))
    return "\n\n".join(found)


def test_error_texts_are_found(tmp_path: Path):
    file = tmp_path / "m.py"
    file.write_text('def f(x):\n    yield f"{x}: told"\n    raise UserError(f"{x}: reckoned " "so many")\n')
    assert set(error_texts(file).split("\n\n")) == {": told", ": reckoned so many"}


@pytest.mark.parametrize(
    "file", sorted([*(ROOT / "scalequest").rglob("*.py"), *(ROOT / "stages").glob("*.py")]), ids=name
)
def test_error_messages_use_plain_words(file: Path):
    assert found_in(error_texts(file)) == []


@pytest.mark.parametrize(
    "file", sorted([*(ROOT / "scalequest").rglob("*.py"), *(ROOT / "stages").glob("*.py")]), ids=name
)
def test_docstrings_begin_in_plain_words(file: Path):
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef)
    documented = [node for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, kinds)]
    firsts = [text.splitlines()[0] for node in documented if (text := ast.get_docstring(node))]
    assert found_in("\n\n".join(firsts)) == []


@pytest.mark.parametrize("stage", sorted((ROOT / "stages").glob("[a-z]*.py")), ids=lambda p: p.stem)
def test_stages_explain_themselves_in_plain_words(stage: Path):
    first = next(
        t for t in tokenize.generate_tokens(io.StringIO(stage.read_text()).readline) if t.type == tokenize.STRING
    )
    assert found_in(first.string) == []


@pytest.mark.parametrize("name", ["135m", "1.5b", "deterministic"])
def test_the_training_table_has_the_numbers_of_the_measurement(name: str):
    text = (ROOT / "benchmarks" / "README.md").read_text().split("## Training")[1]
    found = read_json(ROOT / "benchmarks" / f"train-h100-{name}.json")
    assert f"--steps {found['steps']} --rounds {found['rounds']}" in text
    assert f"--out train-h100-{name}.json" in text
    for way in found["ways"].values():
        for run in way.get("runs", [way]):
            assert f"{run['tokens_per_s']:,}" in text
        if "runs" not in way:
            assert f"| {100 * way['share_of_peak']:.1f} % | {way['peak_gib']} |" in text
