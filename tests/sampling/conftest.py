"""The API optimizer in front of a scripted server."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from scalequest.params import Params, Sampling
from scalequest.sampling.endpoint import ApiModel
from tests.scripted import Endpoint


@pytest.fixture
def connect(
    endpoint: Endpoint, laptop: Params, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., ApiModel]:
    monkeypatch.setenv("TEST_KEY", "secret")
    monkeypatch.setattr("random.uniform", lambda low, high: 0.0)  # no pauses but those that the server asks for

    def build(temperature: float = 0.0, seed: int = 17, **settings: Any) -> ApiModel:
        sampling = Sampling(temperature=temperature, top_p=1.0, max_tokens=32, shard_size=8)
        api = laptop.runtime.api.model_copy(
            update={"key_variable": "TEST_KEY", "retries": 2, "timeout_s": 5.0} | settings
        )
        return ApiModel(endpoint.url, "m", sampling, api, tmp_path / "answers.jsonl", seed)

    return build
