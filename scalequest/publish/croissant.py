"""The data set in the Croissant format 1.1, with provenance (PROV-O) and the terms of responsible AI (RAI 1.0).

``mlcroissant`` and the hub's search read it: files with their SHA-256, each table's columns, and what every stage used.
https://docs.mlcommons.org/croissant/docs/croissant-spec-1.1.html
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from scalequest.io import file_hash
from scalequest.publish.cards import UNKNOWN, Facts, choice, licence
from scalequest.publish.dataset import Config

CROISSANT, RAI = "http://mlcommons.org/croissant/1.1", "http://mlcommons.org/croissant/RAI/1.0"
# The standard context of version 1.1, word for word, and the two vocabularies that are used besides.
CONTEXT: dict[str, Any] = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    **{name: f"cr:{name}" for name in (
        "arrayShape", "citeAs", "column", "containedIn", "equivalentProperty", "extract", "field", "fileObject", "fileProperty",
        "fileSet", "format", "includes", "isArray", "isLiveDataset", "jsonPath", "key", "md5", "parentField", "path", "recordSet",
        "references", "regex", "repeated", "replace", "samplingRate", "separator", "source", "subField", "transform",
    )},
    "conformsTo": "dct:conformsTo",
    "cr": "http://mlcommons.org/croissant/",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "dct": "http://purl.org/dc/terms/",
    "description": {"@container": "@language"},
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "name": {"@container": "@language"},
    "prov": "http://www.w3.org/ns/prov#",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "sc": "https://schema.org/",
}  # fmt: skip
CITATION = (
    "@inproceedings{ding2025scalequest, title={Unleashing LLM Reasoning Capability via Scalable Question Synthesis from "
    "Scratch}, author={Ding, Yuyang and others}, booktitle={ACL}, year={2025}, url={https://arxiv.org/abs/2410.18693}}"
)
# Configurations with one row per id: a question may have several training rows, and a rewrite for each direction.
UNIQUE = ("responses", "ledger")
# A URL-safe form of the hub's licence ids; the hub's own Croissant files have the same address.
LICENCE_PAGE = "https://choosealicense.com/licenses"


def croissant(facts: Facts, folder: Path, configs: Sequence[Config], dataset: str) -> dict[str, Any]:
    """The metadata of a published folder as JSON-LD.

    Args:
        facts: of the data set.
        folder: with the tables of ``configs``.
        configs: what was written there.
        dataset: its name on the hub, ``ORG/NAME``, or empty.
    """
    stated = licence(facts.sources)
    known = stated["license"] != "other"
    return {
        "@context": CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": [CROISSANT, RAI],
        "name": facts.name,
        "description": f"{facts.metrics.get('reward_select', {}).get('kept', 0):,} synthetic questions with one answer each, "
        "made by the ScaleQuest method. No person checked the answers.",
        "url": f"https://huggingface.co/datasets/{dataset}" if dataset else facts.origin or "https://arxiv.org/abs/2410.18693",
        "license": f"{LICENCE_PAGE}/{stated['license']}/" if known else "see README.md#sources-and-licences",
        "creator": {"@type": "sc:Organization", "name": dataset.split("/")[0] or UNKNOWN},
        **({"datePublished": facts.date[:10]} if facts.date else {}),
        "version": "1.0.0",
        "citeAs": CITATION,
        "inLanguage": "en",
        "keywords": ["synthetic", "reasoning", "scalequest"],
        **_responsible(facts),
        "prov:wasDerivedFrom": [_source(source.name, source.place, source.source) for source in facts.sources],
        "prov:wasGeneratedBy": [_activity(stage) for stage in reversed(facts.chain["stages"])],
        "distribution": [
            {
                "@type": "cr:FileObject",
                "@id": config.path,
                "name": config.path,
                "contentUrl": config.path,
                "contentSize": f"{(folder / config.path).stat().st_size} B",
                "encodingFormat": "application/x-parquet",
                "sha256": file_hash(folder / config.path),
            }
            for config in configs
        ],
        "recordSet": [
            {
                "@type": "cr:RecordSet",
                "@id": config.name,
                "name": config.name,
                "description": config.summary,
                **({"key": {"@id": f"{config.name}/id"}} if config.name in UNIQUE else {}),
                "field": [_field(config, column) for column in pq.read_schema(folder / config.path)],
            }
            for config in configs
        ],
    }  # fmt: skip


def _field(config: Config, column: pa.Field) -> dict[str, Any]:
    made = _plain(f"{config.name}/{column.name}", column.type, config.columns.get(column.name, ""))
    source = {"fileObject": {"@id": config.path}, "extract": {"column": column.name}}
    if not pa.types.is_list(column.type):
        return made | {"source": source}
    # A list of structs: each member is a list of its own, read out of the column by its path.
    members = [
        _plain(f"{made['@id']}/{part.name}", part.type, "")
        | {"isArray": True, "arrayShape": "-1", "source": source | {"transform": {"jsonPath": f"[*].{part.name}"}}}
        for part in column.type.value_type
    ]
    return {key: value for key, value in made.items() if key != "dataType"} | {"subField": members}


def _plain(name: str, kind: pa.DataType, meaning: str) -> dict[str, Any]:
    checks = ((pa.types.is_boolean, "sc:Boolean"), (pa.types.is_integer, "sc:Integer"), (pa.types.is_floating, "sc:Float"))  # fmt: skip
    found = next((word for check, word in checks if check(kind)), "sc:Text")
    described = {"description": meaning} if meaning else {}
    return {"@type": "cr:Field", "@id": name, "name": name.split("/", 1)[1], **described, "dataType": found}


def _source(name: str, place: str, source: str) -> dict[str, Any]:
    return {"@id": place or f"urn:scalequest:source:{name}", "@type": "prov:Entity", "prov:label": f"{name}: {source}"}


def _activity(stage: dict[str, Any]) -> dict[str, Any]:
    """One stage: the files that it read and wrote by their hash, its command and the commit that has its code."""
    return {
        "@id": f"urn:scalequest:stage:{stage['stage']}",
        "@type": "prov:Activity",
        "prov:label": stage["stage"],
        "prov:used": [{"@id": _entity(item)} for item in stage["inputs"]],
        "prov:generated": [{"@id": _entity(item), "@type": "prov:Entity", "prov:label": item["path"]} for item in stage["outs"]],
        "prov:wasAssociatedWith": {"@id": f"urn:git:commit:{stage['code']['commit']}" if stage["code"]["commit"] else "urn:scalequest:code:not-committed"},
        "prov:value": stage["command"],
    }  # fmt: skip


def _entity(item: dict[str, Any]) -> str:
    return f"urn:md5:{item['md5']}"


def _responsible(facts: Facts) -> dict[str, Any]:
    params, metrics = facts.params, facts.metrics
    chosen, preferred = choice(params)
    scored = params.get("reward_select.waits_for") != "responses"
    judged = "the reward model scored them, " if scored else ""
    kept = chosen if preferred == "" else "the best-rewarded one that ended and gave an answer"
    tools = [f"{source.name} ({source.use}): {source.source}" for source in facts.sources if source.is_model]
    return {
        "rai:dataCollection": "Language models were tuned to ask, and their questions were sampled. Nothing was collected from "
        "people or from the web; the seeds are in the table of sources in README.md.",
        "rai:dataCollectionType": ["Others"],
        "rai:dataPreprocessingProtocol": list(_filters(metrics)),
        "rai:dataAnnotationProtocol": [
            f"{params.get('respond.n_samples', 'Several')} answers per question were sampled from the solver, {judged}"
            f"and {kept} was kept."
        ],
        "rai:annotationsPerItem": str(params.get("respond.n_samples", UNKNOWN)),
        "rai:annotatorDemographics": ["None: no person annotated the data."],
        "rai:machineAnnotationTools": tools,
        "rai:dataLimitations": [
            f"No person checked questions or answers. An answer is what a model wrote{preferred}.",
            "Contamination with test sets: see README.md#contamination.",
        ],
        "rai:dataBiases": ["Topics, wording and mistakes are those of the models and seeds that it was made from."],
        "rai:dataUseCases": ["Supervised fine-tuning (config default), reward models and best-of-n (responses), preference optimization of question generators (preferences)."],
        "rai:personalSensitiveInformation": ["None was collected. Names in questions are invented by models. Nobody searched for personal data."],
        "rai:dataReleaseMaintenancePlan": "Fixed by one commit. Another run is another data set.",
    }  # fmt: skip


def _filters(metrics: dict[str, dict[str, Any]]) -> Iterator[str]:
    filtered, selected = metrics.get("filter", {}), metrics.get("reward_select", {})
    yield f"{filtered.get('generated', 0):,} questions were generated."
    for name, n in [*filtered.get("outcomes", {}).items(), *selected.get("dropped", {}).items()]:
        if name != "kept":
            yield f"Dropped, {name}: {n:,}."
