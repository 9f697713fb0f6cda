"""Distributions and the neuron's card draw what they are given, and nothing of the user's becomes markup."""

from html.parser import HTMLParser

import numpy as np
import plotly.graph_objects as go
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cna_core.figures import palette
from cna_core.figures.neurons import (
    activation_ridgelines,
    delta_ridgelines,
    final_layer_histograms,
    prompt_strip,
    token_bars,
    token_strip,
    visible_token,
)
from cna_core.models.layout import NeuronLayout

LAYOUT = NeuronLayout((40, 60, 50))
VALUES = np.random.default_rng(0).normal(size=LAYOUT.total).astype(np.float32)
IS_POSITIVE = np.array([True, True, False, False, False])
PROMPTS = ["one", "two", "three", "<b>four</b>", "five " * 100]


def trace(figure: go.Figure, meta: object) -> go.Figure:
    (found,) = [one for one in figure.data if one.meta == meta]
    return found


# Ridgelines


@pytest.mark.parametrize("cutoff", [0.1, 1.5, 100.0])
def test_every_neuron_of_a_layer_is_counted_once_whatever_the_range(cutoff: float) -> None:
    figure = delta_ridgelines(VALUES, LAYOUT, cutoff=cutoff)
    assert [int(trace(figure, str(layer)).customdata.sum()) for layer in range(3)] == [40, 60, 50]


def test_ridges_stand_on_their_layer_and_are_logarithmic() -> None:
    figure = delta_ridgelines(VALUES, LAYOUT, cutoff=1.5)
    ridge = trace(figure, "1")
    heights, counts = ridge.y - 1, np.log10(1 + ridge.customdata)
    np.testing.assert_allclose(heights / heights.max(), counts / counts.max())


def test_the_circuits_cut_is_drawn_on_both_sides_and_said() -> None:
    figure = delta_ridgelines(VALUES, LAYOUT, cutoff=1.5)
    assert sorted(shape.x0 for shape in figure.layout.shapes) == [-1.5, 1.5]
    assert "1.5" in figure.layout.annotations[0].text


def test_only_the_final_layers_are_gold() -> None:
    figure = delta_ridgelines(VALUES, LAYOUT, cutoff=1.5)
    assert trace(figure, "2").line.color == palette.FINAL_FRAME != trace(figure, "1").line.color


def test_activation_ridges_count_each_set_apart() -> None:
    values = np.random.default_rng(1).normal(size=(5, 4)).astype(np.float32)
    figure = activation_ridgelines(values, IS_POSITIVE, np.array([1, 1, 2, 2]), LAYOUT)
    assert trace(figure, "positive 1").customdata.sum() == 2 * 2
    assert trace(figure, "negative 2").customdata.sum() == 3 * 2
    assert {one.meta for one in figure.data if one.meta} == {"positive 1", "positive 2", "negative 1", "negative 2"}
    assert trace(figure, "positive 1").line.color == palette.POSITIVE


def test_turned_activations_lie_to_the_right_on_positive_prompts() -> None:
    values = np.array([[1.0, -1], [2, -2], [-1, 1], [-2, 2], [-1, 1]])
    figure = activation_ridgelines(values, IS_POSITIVE, np.array([0, 0]), LAYOUT, directions=np.array([3.0, -3]))
    ridge = trace(figure, "positive 0")
    assert ridge.customdata[ridge.x < 0].sum() == 0 and ridge.customdata.sum() == 4


# Small multiples


def test_small_multiples_show_the_last_layers_from_the_last_and_colour_what_is_beyond_the_cut() -> None:
    figure = final_layer_histograms(VALUES, LAYOUT, cutoff=1.0, count=2)
    assert [one.meta for one in figure.data] == [2, 1]
    panel = trace(figure, 2)
    assert panel.y.sum() == 50
    np.testing.assert_array_equal(panel.marker.color == palette.STEERED, np.abs(panel.x) >= 1)
    beyond = (np.abs(LAYOUT.split(VALUES)[2]) >= 1).sum()
    assert figure.layout.annotations[0].text == f"layer 2: {beyond}"


def test_more_small_multiples_than_layers_are_all_layers() -> None:
    assert len(final_layer_histograms(VALUES, LAYOUT, cutoff=1.0, count=9).data) == 3


# The card


def test_the_strip_has_a_dot_for_every_prompt_in_its_sets_colour() -> None:
    values = np.array([1.0, 3, -1, -2, -3])
    figure = prompt_strip(values, IS_POSITIVE, PROMPTS)
    assert trace(figure, "positive").x.tolist() == [1, 3]
    assert trace(figure, "negative").x.tolist() == [-1, -2, -3]
    assert trace(figure, "positive").marker.color == palette.POSITIVE
    assert trace(figure, "negative").marker.color == palette.NEGATIVE
    assert list(trace(figure, "positive mean").x) == [2, 2]
    assert list(trace(figure, "negative mean").x) == [-2, -2]


def test_prompts_are_escaped_and_cut_on_hover() -> None:
    texts = trace(prompt_strip(np.arange(5.0), IS_POSITIVE, PROMPTS), "negative").customdata
    assert texts[1] == "&lt;b&gt;four&lt;/b&gt;"
    assert len(texts[2]) < 250 and texts[2].endswith("…")


def test_token_bars_are_the_pushes_on_one_scale() -> None:
    up, down = [(" yes", 0.5), ("\n", 0.25)], [("<no>", -1.0)]
    figure = token_bars(up, down)
    assert trace(figure, "up").x.tolist() == [0.5, 0.25] and trace(figure, "down").x.tolist() == [-1.0]
    assert list(trace(figure, "up").customdata) == ["␣yes", "\\n"]
    assert list(trace(figure, "down").customdata) == ["&lt;no&gt;"]
    assert figure.layout.xaxis.range == (-figure.layout.xaxis2.range[1], 0)


def test_tokens_without_ink_still_have_a_label() -> None:
    assert visible_token("") == "∅" and visible_token("\t ") == "\\t␣"
    assert len(visible_token("x" * 100)) == 13


class Collector(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)

    def handle_data(self, data: str) -> None:
        self.text += data


@given(st.lists(st.text(st.characters(exclude_categories=["Cs", "Cc"])), max_size=8))
def test_no_token_of_the_strip_becomes_markup(tokens: list[str]) -> None:
    collector = Collector()
    collector.feed(token_strip(tokens, np.linspace(-1, 1, len(tokens))))
    collector.close()
    assert collector.tags == ["div"] + ["span"] * len(tokens)
    assert collector.text == "".join(tokens)


def test_the_strips_colours_follow_sign_and_size() -> None:
    markup = token_strip(["a", "b", "c"], np.array([2.0, -1.0, 0.0]))
    assert palette.translucent("#D55E00", 0.75) in markup
    assert palette.translucent("#0072B2", 0.375) in markup
    assert ",0);" in markup
    token_strip(["a"], np.array([0.0]))


@pytest.mark.parametrize("dark", [False, True])
def test_every_chart_has_a_title_axis_titles_and_the_pages_background(dark: bool) -> None:
    figures = [
        delta_ridgelines(VALUES, LAYOUT, cutoff=1.0, dark=dark),
        final_layer_histograms(VALUES, LAYOUT, cutoff=1.0, dark=dark),
        prompt_strip(np.arange(5.0), IS_POSITIVE, PROMPTS, dark=dark),
        token_bars([("a", 1.0)], [("b", -1.0)], dark=dark),
    ]
    for figure in figures:
        assert figure.layout.title.text and figure.layout.height
        assert any(axis.title.text for axis in figure.select_xaxes())
        assert figure.layout.paper_bgcolor == palette.background(dark)
