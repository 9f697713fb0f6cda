"""The Neurons page without a browser: distributions, and one neuron's card on a tiny model."""

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from streamlit.testing.v1 import AppTest

from cna_core.circuits.attribution import attribute
from cna_core.circuits.library import save_circuit
from cna_core.circuits.neurons import output_tokens
from cna_core.circuits.writers import word_tokens, writers_of
from cna_core.errors import CircuitError, ModelError
from cna_core.figures.lanes import visible_text
from cna_core.figures.neurons import visible_token
from cna_core.models.host import host
from cna_core.models.loaded import LoadedModel
from pages.common import chosen_circuit, findings
from tests.circuits.samples import random_activations

APP = Path(__file__).resolve().parents[2] / "app.py"
WAIT_SECONDS = 60

pytestmark = pytest.mark.usefixtures("empty_cache")


@pytest.fixture
def found(monkeypatch: pytest.MonkeyPatch, tiny_model: LoadedModel) -> pytest.MonkeyPatch:
    """A session in which the gate of the tiny model was found."""
    activations = random_activations(model=tiny_model.identity)

    @contextlib.contextmanager
    def model(_name: str, **_watching: object) -> Iterator[LoadedModel]:
        yield tiny_model

    monkeypatch.setattr(findings, "finding", lambda: findings.Finding(activations, 1.5))
    monkeypatch.setattr(chosen_circuit, "current", lambda: attribute(activations, top_k=7))
    monkeypatch.setattr(host, "acquire", model)
    return monkeypatch


def opened(**state: Any) -> AppTest:
    app = AppTest.from_file(str(APP), default_timeout=WAIT_SECONDS)
    for key, value in state.items():
        app.session_state[key] = value
    app.run()
    app.switch_page("pages/neurons.py").run()
    assert not app.exception
    return app


def charts(app: AppTest) -> dict[str, dict[str, Any]]:
    drawn = [json.loads(chart.proto.spec) for chart in app.get("plotly_chart")]
    return {chart["layout"]["title"]["text"]: chart for chart in drawn}


def words(app: AppTest) -> str:
    return " ".join(element.value for element in (*app.get("html"), *app.markdown, *app.caption, *app.subheader))


def test_without_a_finding_the_page_says_what_to_do() -> None:
    assert "Find the circuit first" in words(opened())


def test_distributions_and_the_first_neurons_card_are_shown(found: pytest.MonkeyPatch) -> None:
    assert list(charts(opened())) == [
        "δ in every layer",
        "δ in the last 4 layers: neurons beyond the cutoff",
        "Activation on every prompt",
        "Tokens it suppresses and promotes",
    ]


def test_the_circuit_can_be_shown_by_prompt_set(found: pytest.MonkeyPatch) -> None:
    assert next(iter(charts(opened(distribution="sets")))).startswith("Activations by layer and prompt set")


def test_the_card_shows_the_models_own_pushes(found: pytest.MonkeyPatch, tiny_model: LoadedModel) -> None:
    chart = charts(opened(selected_neuron=(2, 5)))["Tokens it suppresses and promotes"]
    (bars,) = [trace for trace in chart["data"] if trace["meta"] == "up"]
    assert bars["customdata"] == [visible_token(token) for token, _ in output_tokens(tiny_model, 2, 5).up]


def test_any_text_is_coloured_by_the_neuron_and_escaped(found: pytest.MonkeyPatch) -> None:
    app = opened()
    app.text_area(key="neuron_text").set_value("how do i <b>bake</b> bread").run()
    shown = words(app)
    assert "bread</span>" in shown and "<b>bake" not in shown


def test_a_model_that_cannot_be_asked_is_told_and_the_rest_stays(found: pytest.MonkeyPatch) -> None:
    @contextlib.contextmanager
    def model(_name: str, **_watching: object) -> Iterator[LoadedModel]:
        raise ModelError("The model is gone; load it again.")
        yield

    found.setattr(host, "acquire", model)
    app = opened()
    assert "The model is gone; load it again." in [info.value for info in app.info]
    assert "Activation on every prompt" in charts(app)


def test_numbers_choose_any_neuron(found: pytest.MonkeyPatch) -> None:
    app = opened(selected_neuron=(2, 5))
    app.number_input[1].set_value(9).run()
    assert "Layer 2, neuron 9" in words(app)
    assert "2.9" in app.query_params["neuron"]


def test_arrows_walk_the_circuit_in_rank_order(found: pytest.MonkeyPatch) -> None:
    circuit = chosen_circuit.current()
    assert circuit is not None
    app = opened()
    app.button(key="rank+1").click().run()
    assert f"Layer {circuit.layers[1]}, neuron {circuit.neurons[1]}" in words(app)
    app.button(key="rank-1").click().run()
    assert f"Layer {circuit.layers[0]}, neuron {circuit.neurons[0]}" in words(app)
    assert app.button(key="rank-1").disabled


def test_saved_circuits_that_contain_the_neuron_are_named(found: pytest.MonkeyPatch) -> None:
    circuit = chosen_circuit.current()
    assert circuit is not None
    save_circuit(circuit, "my gate")
    assert "In saved circuits: my gate (rank 1)." in words(opened())


def test_a_word_lists_the_neurons_that_write_it(found: pytest.MonkeyPatch) -> None:
    app = opened()
    before = len(app.dataframe)
    app.text_input(key="neurons-word").set_value("sorry").run()
    assert not app.exception and len(app.dataframe) == before + 1
    (listed,) = (frame.value for frame in app.dataframe if "logit per unit" in frame.value.columns)
    assert sorted(listed["rank"]) == list(range(1, 8))
    assert "“sorry”" in words(app)


def gallery(app: AppTest) -> list[dict[str, Any]]:
    """What the gallery was given to draw."""
    (drawn,) = [one for one in app.get("bidi_component") if one.proto.component_name.endswith("refusal_gate_gallery")]
    return json.loads(drawn.proto.mixed.json if drawn.proto.WhichOneof("data") == "mixed" else drawn.proto.json)[
        "neurons"
    ]


def test_the_gallery_shows_the_circuit_by_rank_with_the_tokens_each_neuron_writes(
    found: pytest.MonkeyPatch, tiny_model: LoadedModel
) -> None:
    circuit = chosen_circuit.current()
    assert circuit is not None
    shown = gallery(opened())
    assert [one["rank"] for one in shown] == [str(rank) for rank in range(1, 8)]
    first = shown[0]
    assert first["name"] == f"L{circuit.layers[0]} · {circuit.neurons[0]}" and first["picked"]
    assert first["number"] == f"δ {circuit.delta[0]:+.2f}".replace("-", "−")
    strongest = output_tokens(tiny_model, int(circuit.layers[0]), int(circuit.neurons[0])).up
    assert first["tokens"] == [visible_text(token) for token, _ in strongest[:4]]


def test_a_word_sorts_the_gallery_by_who_writes_it(found: pytest.MonkeyPatch, tiny_model: LoadedModel) -> None:
    circuit = chosen_circuit.current()
    assert circuit is not None
    app = opened()
    app.text_input(key="neurons-word").set_value("sorry").run()
    wrote = writers_of(tiny_model, circuit, word_tokens(tiny_model, "sorry")[0])
    order = np.argsort(-np.abs(wrote.score), kind="stable")
    shown = gallery(app)
    assert [one["rank"] for one in shown] == [str(place + 1) for place in order]
    assert shown[0]["number"] == f"“sorry” {wrote.score[order[0]]:+.1f} SD".replace("-", "−")


def test_a_large_circuit_is_shown_page_by_page(found: pytest.MonkeyPatch) -> None:
    found.setattr("pages.inspecting.gallery.AT_ONCE", 3)
    app = opened()
    assert "1 to 3 of 7 neurons, by rank" in words(app) and app.button(key="gallery-page-1").disabled
    app.button(key="gallery-page+1").click().run()
    app.button(key="gallery-page+1").click().run()
    assert [one["rank"] for one in gallery(app)] == ["7"] and app.button(key="gallery-page+1").disabled
    app.text_input(key="neurons-word").set_value("sorry").run()
    assert "1 to 3 of 7 neurons, by how much they write “sorry”" in words(app)


def test_the_gallery_stays_without_tokens_if_the_model_cannot_be_asked(found: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise CircuitError("This model has no unembedding.")

    found.setattr("pages.inspecting.gallery.promoted", refuse)
    app = opened()
    assert "This model has no unembedding." in [info.value for info in app.info]
    assert len(gallery(app)) == 7 and gallery(app)[0]["tokens"] == []


def test_neurons_that_write_alike_are_mapped_and_a_cap_is_said(found: pytest.MonkeyPatch) -> None:
    found.setattr("pages.inspecting.alike.MOST", 5)
    app = opened(each="alike")
    (chart,) = [chart for title, chart in charts(app).items() if "write alike" in title]
    assert len(set(chart["data"][0]["x"])) == 5
    assert "The first 5 of 7 neurons, by rank." in words(app)
