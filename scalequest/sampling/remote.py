"""A role's model behind the endpoint that ``models`` of params.yaml names, as stages and evaluation ask it.

No file of a model folder decides whom to ask: one could send the questions and the key anywhere.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING

from scalequest.params import Sampling, endpoint_of
from scalequest.sampling.completion import Completion
from scalequest.sampling.endpoint import ApiModel

if TYPE_CHECKING:
    from scalequest.runtime.stage import StageRun

Turns = list[str]


class Remote:
    """The model of one role, with the methods of ``Engine`` that evaluation calls; its prompts are conversations."""

    def __init__(self, run: "StageRun", role: str, url: str, name: str) -> None:
        self._run, self._role, self._url, self._name = run, role, url, name
        self.chat = SimpleNamespace(conversations=list)

    @classmethod
    def of(cls, run: "StageRun", model: Path) -> "Remote | None":
        """The model that a folder stands for, which is named after its role; None if its weights are in the folder."""
        role = model.name
        endpoint = endpoint_of(run.params.models.get(role, ""))
        return cls(run, role, *endpoint) if endpoint else None

    def ask(
        self,
        conversations: Sequence[Turns],
        sampling: Sampling,
        n_samples: int = 1,
        seeds: Sequence[int] | None = None,
        stops: Sequence[str] = (),
    ) -> list[Completion]:
        """The answers to N conversations, as ``ApiModel.complete``; the cost goes to MLflow."""
        run = self._run
        journal = run.facts.root / ".work" / "api" / f"{run.name}.jsonl" if run.facts else None
        api = run.params.runtime.api.of(self._role)
        client = ApiModel(self._url, self._name, sampling, api, journal, run.params.seed)
        completions = client.complete(conversations, run.progress, n_samples, seeds, stops)
        # To MLflow only: what was paid depends on what an earlier run had paid for.
        for name, paid in client.cost().items():
            run.logged[name] = run.logged.get(name, 0.0) + paid
        return completions

    def complete(self, sampling: Sampling, stops: Sequence[str] = ()) -> Callable[..., list[Completion]]:
        """Asks for one answer each; every request is seeded by its own words."""
        return lambda prompts, seed: self.ask(prompts, sampling, stops=stops)

    def complete_rows(self, sampling: Sampling, stops: Sequence[str] = ()) -> Callable[..., list[Completion]]:
        """Asks for one answer each, by a seed per row."""
        return lambda prompts, seeds: self.ask(prompts, sampling, seeds=seeds, stops=stops)
