"""What pages share when they draw charts."""

from collections.abc import Iterator

import plotly.graph_objects as go
import pytest

from pages.common import charts, style


@pytest.fixture
def nothing_kept() -> Iterator[None]:
    charts._figures.clear()
    yield
    charts._figures.clear()


def test_a_figure_is_made_once_for_each_key_and_theme(nothing_kept: None, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[go.Figure] = []

    def make() -> go.Figure:
        made.append(go.Figure())
        return made[-1]

    dark = False
    monkeypatch.setattr(style, "is_dark", lambda: dark)
    assert charts.kept(("map", 1), make) is charts.kept(("map", 1), make)
    assert charts.kept(("map", 2), make) is not charts.kept(("map", 1), make)
    dark = True
    charts.kept(("map", 1), make)
    assert len(made) == 3
