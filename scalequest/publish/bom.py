"""A CycloneDX bill of materials (ML-BOM): models, seeds and packages that the data set or the student was made from.

A hub model is named by its commit, ``pkg:huggingface/ORG/NAME@COMMIT``; dependency scanners and registries read that.
https://cyclonedx.org/capabilities/mlbom/
"""

import uuid
from typing import Any

from scalequest import cli
from scalequest.publish.cards import PAPER_URL, UNKNOWN, Facts, Source
from scalequest.publish.sources import package_url

SPECIFICATION = "1.6"
TARGET = "target"


def bill(facts: Facts) -> dict[str, Any]:
    """The bill of one published output: ``facts.chain``'s target, a model folder or a table."""
    target = facts.chain["target"]
    is_model = target["path"].startswith("models/")
    components = [_component(source) for source in facts.sources] + list(_packages(facts))
    made: dict[str, Any] = {
        "type": "machine-learning-model" if is_model else "data",
        "bom-ref": TARGET,
        "name": facts.name,
        "version": facts.revision.split()[-1] or UNKNOWN,
        # Of a folder DVC's hash is the MD5 of its list of files.
        "hashes": [{"alg": "MD5", "content": target["md5"].removesuffix(".dir")}],
        "externalReferences": [{"type": "documentation", "url": PAPER_URL}]
        + ([{"type": "vcs", "url": facts.origin}] if facts.origin else []),
    }
    if is_model:
        made["modelCard"] = _model_card(facts)
        made["properties"] = [{"name": f"scalequest:{key}", "value": str(value)} for key, value in facts.params.items() if key.startswith("instruct_tune.")]  # fmt: skip
    else:
        made["data"] = [{"type": "dataset", "name": facts.name, "description": "Synthetic questions with one answer each"}]  # fmt: skip
    return {
        "$schema": f"http://cyclonedx.org/schema/bom-{SPECIFICATION}.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": SPECIFICATION,
        # The same output has the same bill.
        "serialNumber": f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, target['md5'] + facts.revision)}",
        "version": 1,
        "metadata": {
            "timestamp": facts.date,
            "tools": {"components": [{"type": "application", "name": "scalequest", "version": cli.version()}]},
            "component": made,
        },
        "components": components,
        "dependencies": [{"ref": TARGET, "dependsOn": [item["bom-ref"] for item in components]}],
    }


def _component(source: Source) -> dict[str, Any]:
    # One model may have two roles, and one package two sets of seeds: the role makes the reference unique.
    made: dict[str, Any] = {
        "type": "machine-learning-model" if source.is_model else "data",
        "bom-ref": f"source:{source.name}",
        "name": source.source,
        "description": source.use,
    }
    if source.purl:
        made["purl"] = source.purl
    if source.licence != UNKNOWN:
        made["licenses"] = [{"license": {"name": source.licence}}]
    if source.place.startswith("https://"):
        made["externalReferences"] = [{"type": "distribution", "url": source.place}]
    return made


def _packages(facts: Facts) -> list[dict[str, Any]]:
    """The packages that any stage of the chain ran with, each version once."""
    lines = dict.fromkeys(line for stage in facts.chain["stages"] for line in stage["environment"] if "==" in line)
    return [
        {
            "type": "library",
            "bom-ref": package_url(name, version),
            "name": name,
            "version": version,
            "purl": package_url(name, version),
        }
        for name, version in (line.split("==", 1) for line in lines)
    ]


def _model_card(facts: Facts) -> dict[str, Any]:
    scores = facts.scores.get("student", {})
    return {
        "modelParameters": {
            "approach": {"type": "supervised"},
            "task": "text-generation",
            "datasets": [
                {
                    "type": "dataset",
                    "name": item["path"],
                    "description": f"MD5 in dvc.lock: {item['md5']}",
                }
                for item in facts.chain["stages"][0]["inputs"]
                if item["path"].startswith("data/")
            ],
        },
        "quantitativeAnalysis": {
            "performanceMetrics": [
                {
                    "type": "accuracy",
                    "slice": f"{task}, {values['n']} items",
                    "value": f"{values['flexible']:.4f}",
                    "confidenceInterval": {
                        "lowerBound": f"{values['flexible'] - 1.96 * values['flexible_stderr']:.4f}",
                        "upperBound": f"{values['flexible'] + 1.96 * values['flexible_stderr']:.4f}",
                    },
                }
                for task, values in scores.items()
            ]
        },
        "considerations": {
            "technicalLimitations": ["No person checked the answers that it was trained on.", "One run with one seed."]
        },
    }
