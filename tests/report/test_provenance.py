from scalequest.params import JsonlSource, Params
from tests.fakes import changed
from tests.report.finished import (
    Folder,
    row,
    section,
)


def with_gsm8k(params: Params, tasks: list[str]) -> Params:
    files = {task: JsonlSource(kind="jsonl", path="gsm8k.jsonl", n=None, sha256=None) for task in tasks}
    return changed(params, benchmarks=files | params.benchmarks, evaluate={"tasks": tasks})


def test_gsm_symbolic_seeds_forbid_a_gsm8k_score(folder: Folder) -> None:
    markdown, page = folder.run()
    assert "this run must not quote a GSM8K score as clean" in section(markdown, "Contamination notice")
    assert "this run must not quote a GSM8K score as clean" in page


def test_a_contaminated_gsm8k_score_is_marked_wherever_it_stands(folder: Folder) -> None:
    folder.params = with_gsm8k(folder.params, ["gsm8k_flexible", "embedded_sums"])
    markdown, page = folder.run()
    for text in (section(markdown, "Contamination notice"), section(markdown, "Results"), page):
        assert "`gsm8k_flexible`" in text or "<code>gsm8k_flexible</code>" in text
        assert "must not be quoted as clean" in text


def test_clean_seeds_need_no_notice_on_gsm8k(folder: Folder) -> None:
    folder.params = with_gsm8k(folder.params, ["gsm8k"])
    clean = {name: source for name, source in folder.params.seeds.items() if name != "gsm_symbolic"}
    folder.params = changed(folder.params, seeds=clean)
    text = section(folder.run()[0], "Contamination notice")
    assert "GSM8K" not in text
    assert "1 shared a run of 13 words" in text


def test_what_seeds_share_with_a_benchmark_is_shown(folder: Folder) -> None:
    assert "share words with a seed" not in folder.run()[0]
    example = {"seed": "math/3", "item": "math500/9", "span": "a | b"}
    shared = {"items": 58, "items_frac": 0.116, "seeds": 70, "examples": [example]}
    folder.change("seeds", shared_with_benchmarks={"math500": shared, "gsm8k": shared | {"items": 0, "examples": []}})
    text = section(folder.run()[0], "Contamination notice")
    assert row(text, "`math500`")[1:] == ["58", "11.6", "70", "`math/3` and `math500/9`: `a \\| b`"]
    assert row(text, "`gsm8k`")[1:] == ["0", "11.6", "70", ""]


def test_set_phrases_that_were_not_looked_for_are_counted(folder: Folder) -> None:
    assert "set phrases" not in folder.run()[0]
    folder.change("screen", set_phrases={"runs_of_items": 2, "runs_of_seeds": 3, "items": 4, "examples": {}})
    assert "Not looked for were 5 runs of 4 items" in section(folder.run()[0], "Contamination notice")


def test_tasks_of_the_seeds_kind_are_named(folder: Folder) -> None:
    # embedded_sums draws from chain_sum and embedded_stories from gsm_symbolic, as seeds do; a file is of no such kind.
    folder.params = with_gsm8k(folder.params, ["gsm8k", "embedded_stories"])
    text = section(folder.run()[0], "Contamination notice")
    assert "The items of `embedded_stories` come from the same generating programs as seeds do" in text


def test_decontamination_that_is_off_is_told(folder: Folder) -> None:
    folder.params = changed(folder.params, screen={"decontaminate_ngram": 0})
    folder.change("seeds", shared_with_benchmarks=None)
    text = section(folder.run()[0], "Contamination notice")
    assert "Decontamination is off" in text
    assert "neither questions nor seeds were compared with the benchmarks" in text
    assert "such seeds" not in text


def test_settings_are_the_whole_file_but_runtime(folder: Folder) -> None:
    text = section(folder.run()[0], "Settings")
    assert row(text, "`qpo.beta`")[1] == "`0.1`"
    assert row(text, "`generate.from`")[1] == "`qpo`"
    assert row(text, "`reward_select.min_reward`")[1] == "`null`"
    assert row(text, "`seeds.gsm_symbolic.templates`")[1] == "`even`"
    assert "`runtime." not in text
