"""A chain as OpenLineage events, one START and one COMPLETE per stage: what Marquez, DataHub and OpenMetadata read.

    scalequest audit models/student --openlineage > events.jsonl
    while read -r event; do curl -H 'Content-Type: application/json' -d "$event" SERVER/api/v1/lineage; done < events.jsonl

Run ids are made from what the stage was given, so the same run exported twice is one run. https://openlineage.io/docs/spec
"""

import uuid
from collections.abc import Iterator
from typing import Any

from scalequest.audit.repository import Repository
from scalequest.errors import UserError
from scalequest.publish.public import public_address, public_values

# Of jobs and data sets, where the repository has no public address.
NAMESPACE = "scalequest"


def namespace_of(repository: Repository) -> str:
    """The repository's public address, else a fixed name."""
    address = repository.git("remote", "get-url", "origin", check=False).decode()
    return public_address(address) or NAMESPACE


def event_time(repository: Repository, commit: str | None) -> str:
    """When a revision was committed, in ISO 8601: the lock does not say when a stage ran.

    Raises:
        UserError: there is no commit.
    """
    found = repository.git("show", "-s", "--format=%cI", commit or "HEAD", check=False).decode().strip()
    if not found:
        raise UserError("--openlineage: no commit in this repository. Expected one, whose date the events carry. Run: git add -A && git commit")  # fmt: skip
    return found


def events(facts: dict[str, Any], when: str, namespace: str) -> Iterator[dict[str, Any]]:
    """The events of a chain, the furthest upstream first.

    Args:
        facts: of ``scalequest.audit.facts.chain_facts``.
        when: time of every event.
        namespace: of jobs and data sets.

    Raises:
        UserError: the client's package is not installed.
    """
    try:
        from openlineage.client import event_v2
        from openlineage.client.serde import Serde
    except ImportError as error:
        raise UserError(
            f"--openlineage: the package {error.name} is not installed. Expected the extra `sign`. Run: pip install 'scalequest[sign]'"
        ) from None
    for stage in reversed(facts["stages"]):
        run = event_v2.Run(runId=run_id(stage), facets=_run_facets(stage))
        job = event_v2.Job(namespace=namespace, name=stage["stage"], facets=_job_facets(stage, namespace))
        for state in (event_v2.RunState.START, event_v2.RunState.COMPLETE):
            event = event_v2.RunEvent(
                eventType=state,
                eventTime=when,
                run=run,
                job=job,
                inputs=[_input(item, namespace) for item in stage["inputs"]],
                outputs=[_output(item, namespace) for item in stage["outs"]],
                producer="https://arxiv.org/abs/2410.18693" if namespace == NAMESPACE else namespace,
            )
            yield Serde.to_dict(event)


def run_id(stage: dict[str, Any]) -> str:
    """A UUID of one run of a stage, by what it was given and what it wrote."""
    read = sorted((item["path"], item["md5"]) for item in (*stage["inputs"], *stage["outs"]))
    return str(uuid.uuid5(uuid.NAMESPACE_URL, repr((stage["stage"], stage["command"], sorted(stage["params"].items(), key=str), read))))  # fmt: skip


def _run_facets(stage: dict[str, Any]) -> dict[str, Any]:
    from openlineage.client.generated.execution_parameters_run import ExecutionParameter, ExecutionParametersRunFacet

    values = {"command": stage["command"], **public_values(stage["params"])}
    environment = {line.split("==")[0]: line.split("==")[1] for line in stage["environment"] if "==" in line}
    values |= {f"package.{name}": version for name, version in environment.items()}
    parameters = [ExecutionParameter(key=key, name=key, value=str(value)) for key, value in values.items()]
    return {"executionParameters": ExecutionParametersRunFacet(parameters=parameters)}


def _job_facets(stage: dict[str, Any], namespace: str) -> dict[str, Any]:
    from openlineage.client.generated.job_type_job import JobTypeJobFacet
    from openlineage.client.generated.source_code_location_job import SourceCodeLocationJobFacet

    found: dict[str, Any] = {"jobType": JobTypeJobFacet(processingType="BATCH", integration="DVC", jobType="STAGE")}
    commit = stage["code"]["commit"]
    if commit and namespace != NAMESPACE:
        found["sourceCodeLocation"] = SourceCodeLocationJobFacet(
            type="git", url=f"{namespace}/tree/{commit}", repoUrl=namespace, version=commit
        )
    return found


def _input(item: dict[str, Any], namespace: str) -> Any:
    from openlineage.client.event_v2 import InputDataset

    return InputDataset(namespace=namespace, name=item["path"], facets=_version(item))


def _output(item: dict[str, Any], namespace: str) -> Any:
    from openlineage.client.event_v2 import OutputDataset
    from openlineage.client.generated.output_statistics_output_dataset import OutputStatisticsOutputDatasetFacet

    counts = OutputStatisticsOutputDatasetFacet(
        rowCount=item.get("rows"), size=item.get("bytes"), fileCount=item.get("files")
    )
    return OutputDataset(
        namespace=namespace, name=item["path"], facets=_version(item), outputFacets={"outputStatistics": counts}
    )


def _version(item: dict[str, Any]) -> dict[str, Any]:
    from openlineage.client.generated.dataset_version_dataset import DatasetVersionDatasetFacet

    return {"version": DatasetVersionDatasetFacet(datasetVersion=item["md5"])}
