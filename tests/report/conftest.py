from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from scalequest.params import Params
from scalequest.report import page
from tests.report.finished import Folder


@pytest.fixture(scope="session", autouse=True)
def equal_charts_are_drawn_once() -> Iterator[None]:
    """Most tests render the same run: a chart takes a tenth of a second, and its block decides its bytes."""
    drawn: dict[tuple[str, str], str] = {}

    def once(draw: Callable[[Any], str]) -> Callable[[Any], str]:
        def cached(block: Any) -> str:
            key = draw.__name__, repr(block)
            if key not in drawn:
                drawn[key] = draw(block)
            return drawn[key]

        return cached

    with pytest.MonkeyPatch.context() as patch:
        for name in ("bars_html", "funnel_html", "histogram_svg", "curves_html"):
            patch.setattr(page, name, once(getattr(page, name)))
        yield


@pytest.fixture
def folder(tmp_path: Path, laptop: Params) -> Folder:
    """A finished run."""
    return Folder(tmp_path, laptop)
