"""OpenLineage events: complete, in order, the same twice, and without what is this machine's."""

import json
from datetime import datetime
from typing import Any
from uuid import UUID

import pytest

from scalequest.audit import command, lineage
from scalequest.audit.facts import chain_facts
from scalequest.errors import UserError
from tests.audit.pipeline import Pipeline

pytest.importorskip("openlineage.client", reason="the extra `sign` is not installed: pip install 'scalequest[sign]'")


def events(pipeline: Pipeline) -> list[dict[str, Any]]:
    facts = chain_facts(pipeline.chain(), pipeline.tables())
    namespace = lineage.namespace_of(pipeline.repository)
    return list(lineage.events(facts, lineage.event_time(pipeline.repository, None), namespace))


def facets(node: Any) -> list[dict[str, Any]]:
    """Every facet below a node: what OpenLineage wants to have a producer and a schema."""
    if isinstance(node, list):
        return [found for item in node for found in facets(item)]
    if not isinstance(node, dict):
        return []
    own = [value for key, value in node.items() if key in ("facets", "inputFacets", "outputFacets")]
    return [facet for group in own for facet in group.values()] + [found for value in node.values() for found in facets(value)]  # fmt: skip


def test_each_event_has_what_the_specification_demands(finished_pipeline: Pipeline) -> None:
    found = events(finished_pipeline)
    for event in found:
        assert event["eventType"] in ("START", "COMPLETE")
        assert datetime.fromisoformat(event["eventTime"]).tzinfo
        assert UUID(event["run"]["runId"])
        assert event["schemaURL"].startswith("https://openlineage.io/spec/2-0-2/OpenLineage.json#/$defs/RunEvent")
        assert event["producer"].startswith("https://")
        assert facets(event)
        assert all(facet["_producer"] and facet["_schemaURL"] for facet in facets(event))
    states = {}
    for event in found:
        states.setdefault((event["job"]["name"], event["run"]["runId"]), []).append(event["eventType"])
    assert list(states.values()) == [["START", "COMPLETE"]] * len({event["job"]["name"] for event in found})


def test_every_input_was_written_by_an_event_before(finished_pipeline: Pipeline) -> None:
    written: dict[str, str] = {}
    for event in events(finished_pipeline):
        for item in event["inputs"]:
            version = item["facets"]["version"]["datasetVersion"]
            # data/questions is the folder above data/questions/sums; the others are outputs themselves.
            assert written.get(item["name"], version) == version
            assert any(name.startswith(item["name"]) for name in written)
        written |= {item["name"]: item["facets"]["version"]["datasetVersion"] for item in event["outputs"] if event["eventType"] == "COMPLETE"}  # fmt: skip
    assert written["models/student"] == finished_pipeline.md5("models/student")


def test_rows_parameters_and_packages_are_there(finished_pipeline: Pipeline) -> None:
    last = events(finished_pipeline)[-1]
    assert last["job"]["name"] == "instruct_tune"
    values = {item["key"]: item["value"] for item in last["run"]["facets"]["executionParameters"]["parameters"]}
    assert (values["instruct_tune.epochs"], values["package.torch"]) == ("1", "1.0")
    table = next(item for event in events(finished_pipeline) for item in event["outputs"] if item["name"] == "data/instruct.parquet")  # fmt: skip
    assert table["outputFacets"]["outputStatistics"]["rowCount"] == 2


def test_the_same_run_has_the_same_ids_and_another_run_others(pipeline: Pipeline) -> None:
    before = {event["job"]["name"]: event["run"]["runId"] for event in events(pipeline)}
    assert before == {event["job"]["name"]: event["run"]["runId"] for event in events(pipeline)}
    assert len(set(before.values())) == len(before)
    pipeline.params["instruct_tune"]["epochs"] = 2
    pipeline.lock("instruct_tune")
    after = {event["job"]["name"]: event["run"]["runId"] for event in events(pipeline)}
    assert [name for name in before if before[name] != after[name]] == ["instruct_tune"]


def test_addresses_and_paths_are_public(pipeline: Pipeline) -> None:
    pipeline.git("remote", "add", "origin", "https://ci:ghp_SECRETTOKEN123@github.com/o/r.git")
    text = json.dumps(events(pipeline))
    assert "SECRET" not in text
    assert '"path:/models/s"' not in text
    assert '"path:s"' in text
    assert f"https://github.com/o/r.git/tree/{pipeline.git('rev-parse', 'HEAD')}" in text


def test_the_command_prints_one_event_per_line(
    finished_pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import argparse

    monkeypatch.chdir(finished_pipeline.root)
    parser = argparse.ArgumentParser()
    command.configure(parser)
    assert command.run(parser.parse_args(["models/student", "--openlineage"])) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [json.loads(line) for line in lines] == events(finished_pipeline)
    with pytest.raises(UserError, match="--openlineage: shows the chain of a PATH"):
        command.run(parser.parse_args(["--row", "sums/0/0", "--openlineage"]))


def test_without_the_package_the_extra_is_named(finished_pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "openlineage.client", None)
    with pytest.raises(UserError, match=r"is not installed. Expected the extra `sign`"):
        events(finished_pipeline)
