"""The fixture that runs a test of the sandbox with and without namespaces."""

from collections.abc import Iterator

import pytest

from scalequest.answers.sandbox import NAMESPACES, consent
from tests.answers.sandbox_modes import GRANTED, OPEN, refuse_namespaces


@pytest.fixture(params=[NAMESPACES, OPEN])
def mode(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Each test with and without namespaces."""
    if request.param == NAMESPACES and not GRANTED:
        pytest.skip("this kernel grants no namespaces, and the sandbox says so")
    if request.param == OPEN:
        refuse_namespaces(monkeypatch)
        consent("open")
    yield request.param
    consent("namespaces")
