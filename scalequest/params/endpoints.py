"""Models behind an OpenAI-compatible endpoint: which roles may be, how they are asked, and what they cost."""

from collections.abc import Iterator, Mapping
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import Field, PositiveInt

from scalequest.errors import UserError
from scalequest.models.source import parse_source
from scalequest.params.sources import Section
from scalequest.redaction import address_problem, is_this_machine

# Why a role cannot be behind an endpoint; generators are trained, too.
TRAINED = "it is trained here, so its weights are needed"
NEEDS_WEIGHTS = {
    "difficulty": f"{TRAINED}, and a score is read from its logits",
    "reward": "a score is read from its logits, which an endpoint does not give",
    "student": TRAINED,
}

Variable = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]
Price = Annotated[float, Field(ge=0.0)]
Seconds = Annotated[float, Field(gt=0.0)]


class ApiRole(Section):
    """What is different for one role; the rest is as for all."""

    concurrency: PositiveInt | None = None
    retries: Annotated[int, Field(ge=0)] | None = None
    timeout_s: Seconds | None = None
    key_variable: Variable | None = None
    usd_per_million_input: Price | None = None
    usd_per_million_output: Price | None = None


class Api(Section):
    """How a model behind an OpenAI-compatible endpoint is asked, and what it costs."""

    concurrency: PositiveInt
    retries: Annotated[int, Field(ge=0)]
    timeout_s: Seconds
    # The key itself is never in a file.
    key_variable: Variable
    plain_http: bool
    usd_per_million_input: Price
    usd_per_million_output: Price
    by_role: dict[str, ApiRole]

    def of(self, role: str) -> "Api":
        """The settings of one role."""
        own = self.by_role.get(role)
        return self if own is None else self.model_copy(update=own.model_dump(exclude_none=True))

    @property
    def key_variables(self) -> list[str]:
        """Every environment variable that may hold a key."""
        own = (role.key_variable for role in self.by_role.values())
        return list(dict.fromkeys([self.key_variable, *filter(None, own)]))


def endpoint_of(source: str) -> tuple[str, str] | None:
    """Address and model of an ``api:`` source; None for every other source."""
    kind, address, model = parse_source("ROLE", source) if source.startswith("api:") else ("", "", "")
    return (address, model) if kind else None


def endpoint_problems(models: Mapping[str, str], solver_method: str, api: Api) -> Iterator[str]:
    """What is wrong with the endpoints of a parameter file.

    Args:
        models: source by role; one that has no valid form is not looked at.
        solver_method: ``solver.method``.
        api: ``runtime.api``.
    """
    hosts: dict[str, tuple[str, str]] = {}
    for role, source in models.items():
        try:
            endpoint = endpoint_of(source)
        except UserError:  # the source's own check names it
            continue
        if endpoint is None:
            continue
        url, variable = endpoint[0], api.of(role).key_variable
        reason = NEEDS_WEIGHTS.get(role, "") if role in (*NEEDS_WEIGHTS, "optimizer", "judge", "solver") else TRAINED
        if role == "solver" and solver_method != "none":
            reason = f"solver.method {solver_method} trains it, so its weights are needed. Set solver.method none"
        if reason:
            yield (
                f"models.{role}: '{source}': {reason}. Expected a model's weights; the optimizer, the judge and a solver that is "
                "not trained can be behind an endpoint"
            )
        if problem := address_problem(url, api.plain_http):
            yield f"models.{role}: {url}: {problem}"
            continue
        if is_this_machine(urlsplit(url)):
            continue  # a key leaves the machine nowhere here
        host = urlsplit(url).netloc
        other, known = hosts.setdefault(variable, (role, host))
        if host != known:
            yield (
                f"models.{role}: {host} would get the value of {variable}, which is the key for {known} (models.{other}). Expected a "
                f"variable for each host. Set runtime.api.by_role.{role}.key_variable"
            )
    for role in api.by_role:
        if not models.get(role, "").startswith("api:"):
            yield f"runtime.api.by_role: '{role}' is not behind an endpoint. Expected a role whose source in `models` begins with api:"
