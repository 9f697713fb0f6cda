"""The Gate page without a browser and without a model: what it shows of a finding that is there."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from streamlit.testing.v1 import AppTest

from cna_core.circuits.attribution import attribute
from cna_core.circuits.evidence import examine
from cna_core.circuits.projection import held_out_auc
from cna_core.errors import CircuitError
from cna_core.progress import Progress, Stage, raise_if_stopped
from pages.common import address, chosen_circuit, findings, jobs
from pages.inspecting import picking, verdict
from tests.circuits.samples import circuit_of, identity, random_activations

APP = Path(__file__).resolve().parents[2] / "app.py"
WAIT_SECONDS = 60
ACTIVATIONS = random_activations()
CIRCUIT = attribute(ACTIVATIONS, top_k=7)

pytestmark = pytest.mark.usefixtures("empty_cache")


@pytest.fixture
def found(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """A session in which the gate was found; the patch is returned, to change more."""
    monkeypatch.setattr(findings, "finding", lambda: findings.Finding(ACTIVATIONS, 1.5))
    monkeypatch.setattr(chosen_circuit, "current", lambda: CIRCUIT)
    return monkeypatch


def opened(**state: Any) -> AppTest:
    app = AppTest.from_file(str(APP), default_timeout=WAIT_SECONDS)
    for key, value in state.items():
        app.session_state[key] = value
    app.run()
    assert not app.exception
    return app


def charts(app: AppTest) -> list[dict[str, Any]]:
    return [json.loads(chart.proto.spec) for chart in app.get("plotly_chart")]


def words(app: AppTest) -> str:
    return " ".join(element.value for element in (*app.get("html"), *app.markdown, *app.caption, *app.subheader))


def titles(app: AppTest) -> list[str]:
    return [chart["layout"]["title"]["text"] for chart in charts(app)]


def test_without_a_finding_the_page_teaches_what_to_do() -> None:
    app = opened()
    shown = words(app)
    assert "No circuit yet" in shown and "116,736 neurons" in shown and "downloaded (491 MB)" in shown
    assert [button.label for button in app.button].count("Find the gate") == 1
    assert "Every neuron will be a cell" in charts(app)[0]["layout"]["annotations"][-1]["text"]
    assert charts(app)[0]["layout"]["yaxis"]["range"] == [-0.5, 23.5]


def test_while_prompts_run_the_map_fills_with_the_strongest_neurons_so_far(monkeypatch: pytest.MonkeyPatch) -> None:
    job = jobs.Job("x", "Finding the gate", latest=Progress(Stage.CAPTURING, 41, 224, "prompts"))
    job.preview = findings.Preview(ACTIVATIONS.model.layout, ACTIVATIONS.delta, 41)
    monkeypatch.setattr(jobs, "get", lambda key: job)
    app = opened(size=2.0)
    assert "After 41 prompts. Dots are the neurons that differ most so far, 2 of them" in words(app)
    (dots,) = [trace for trace in charts(app)[0]["data"] if trace["meta"] == "leading"]
    assert dots["name"] == "strongest so far"
    assert "Find the gate" not in [button.label for button in app.button]


def test_the_pages_own_button_finds_the_gate(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[bool] = []
    monkeypatch.setattr(findings, "start", lambda: started.append(True))
    opened().button(key="find-here").click().run()
    assert started == [True]


def test_the_map_the_layers_and_the_strongest_neurons_card_are_shown(found: pytest.MonkeyPatch) -> None:
    app = opened()
    assert titles(app) == ["δ of every neuron, layer by neuron", "Circuit by layer", "Activation on every prompt"]
    assert f"Layer {CIRCUIT.layers[0]}, neuron {CIRCUIT.neurons[0]}" in words(app)


def test_the_cards_hold_the_circuit_against_chance(found: pytest.MonkeyPatch) -> None:
    shown = words(opened())
    evidence = examine(ACTIVATIONS, CIRCUIT)
    assert evidence.null is not None
    late = evidence.null.concentration(0.10)
    assert f"{100 * CIRCUIT.concentration(0.10):.0f} %" in shown
    assert f"shuffled {100 * late.mean:.0f} % ({100 * late.low:.0f}–{100 * late.high:.0f})" in shown
    assert evidence.stability is not None
    assert f"{100 * evidence.stability.jaccard.mean:.0f} %" in shown
    assert "found in 2 s" in shown
    assert verdict.answer(CIRCUIT) in shown and verdict.control(CIRCUIT, evidence) in shown


def test_activations_read_from_disk_are_not_said_to_have_taken_that_long(found: pytest.MonkeyPatch) -> None:
    found.setattr(findings, "finding", lambda: findings.Finding(ACTIVATIONS, None))
    app = opened()
    assert "found earlier" in words(app)
    assert app.button(key="find").label == "Gate found earlier"


def test_the_table_lists_the_circuit_in_rank_order(found: pytest.MonkeyPatch) -> None:
    (table,) = opened().dataframe
    assert table.value["neuron"].tolist() == CIRCUIT.neurons.tolist()
    assert {"auc", "selection_frequency"} <= set(table.value)


def test_a_picked_neurons_card_opens_and_stays_in_the_address(found: pytest.MonkeyPatch) -> None:
    app = opened(selected_neuron=(2, 5))
    assert "Layer 2, neuron 5" in words(app)
    assert "2.5" in app.query_params["neuron"]


def test_a_pick_that_the_model_does_not_have_is_passed_over(found: pytest.MonkeyPatch) -> None:
    assert f"Layer {CIRCUIT.layers[0]}, neuron {CIRCUIT.neurons[0]}" in words(opened(selected_neuron=(77, 5)))


@pytest.mark.parametrize(("view", "title"), [("space", "strongest neurons"), ("prompts", "Prompt space")])
def test_the_other_views_take_the_maps_place(found: pytest.MonkeyPatch, view: str, title: str) -> None:
    app = opened(view=view)
    shown = titles(app)
    assert title in shown[0] and "Circuit by layer" not in shown
    assert "zoom-out" not in {button.key for button in app.button}
    assert "cell of the map" not in words(app)


def test_prompt_space_says_what_holds_on_prompts_held_out(found: pytest.MonkeyPatch) -> None:
    expected = held_out_auc(ACTIVATIONS, CIRCUIT)
    assert expected is not None
    assert f"held out {expected.mean:.2f}" in titles(opened(view="prompts"))[0]


def test_a_zoomed_part_is_in_the_address_and_comes_from_it(found: pytest.MonkeyPatch) -> None:
    app = opened()
    assert "layers" not in app.query_params
    app.number_input(key="layers-from-0-of-3").set_value(2).run()
    app.number_input(key="neurons-to-19-of-19").set_value(4).run()
    assert (app.query_params["layers"], app.query_params["neurons"]) == ("2-3", "0-4")
    assert charts(app)[0]["layout"]["yaxis"]["range"] == [1.5, 3.5]
    other = AppTest.from_file(str(APP), default_timeout=WAIT_SECONDS)
    other.query_params["layers"], other.query_params["neurons"] = "2-3", "4-99999"
    other.run()
    assert charts(other)[0]["layout"]["xaxis"]["range"] == [3.5, 19.5]
    other.button(key="zoom-out").click().run()
    assert charts(other)[0]["layout"]["yaxis"]["range"] == [-0.5, 3.5] and "layers" not in other.query_params


@pytest.mark.parametrize("linked", ["", "5", "a-b", "-3", "3-", "1-2-3"])
def test_an_address_that_names_no_range_shows_the_whole(found: pytest.MonkeyPatch, linked: str) -> None:
    app = AppTest.from_file(str(APP), default_timeout=WAIT_SECONDS)
    app.query_params["layers"] = linked
    app.run()
    assert not app.exception and charts(app)[0]["layout"]["yaxis"]["range"] == [-0.5, 3.5]


def test_an_opened_circuit_of_another_model_leaves_a_way_back(found: pytest.MonkeyPatch) -> None:
    foreign = circuit_of([(0, 0)], identity(1536, layers=30, name="smollm2-135m-instruct"))
    found.undo()
    found.setattr(findings, "finding", lambda: findings.Finding(ACTIVATIONS, 1.5))
    app = opened(opened_circuit=foreign)
    assert "belongs to smollm2" in app.error[0].value
    assert "SmolLM2" in app.button(key="mismatch-load").label
    app.button(key="mismatch-back").click().run()
    assert app.session_state["opened_circuit"] is None


def test_a_stopped_finding_says_so_once_it_has_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    def stopped(job: jobs.Job) -> None:
        raise_if_stopped(job.stop)

    job = jobs.Job("x", "Finding the gate", latest=Progress(Stage.CAPTURING, 41, 224, "prompts"))
    job.stop.set()
    monkeypatch.setattr(jobs, "get", lambda key: job)
    assert "Stopping" in json.dumps([bar.proto.text for bar in opened().get("progress")])
    job.run(stopped, ended=lambda _job: None)
    assert "stopped" in opened().info[0].value


def test_choosing_png_at_one_chart_shows_at_all_and_settles(found: pytest.MonkeyPatch) -> None:
    app = opened()
    app.segmented_control(key="gate-layers-camera-svg").set_value("png").run()
    assert not app.exception
    chosen = [control.value for control in app.segmented_control if "-camera-" in str(control.key)]
    assert len(chosen) >= 3 and set(chosen) == {"png"}
    cameras = [json.loads(chart.proto.config)["toImageButtonOptions"] for chart in app.get("plotly_chart")]
    assert {camera["format"] for camera in cameras} == {"png"}


def test_a_circuit_of_another_model_is_refused_with_the_reason(found: pytest.MonkeyPatch) -> None:
    found.setattr(chosen_circuit, "current", lambda: circuit_of([(0, 0)], identity(9)))
    app = opened()
    assert "belongs to sample" in app.error[0].value
    assert charts(app) == []


def test_a_selection_that_cannot_be_made_is_told(found: pytest.MonkeyPatch) -> None:
    def refuse() -> None:
        raise CircuitError("A circuit of 99 neurons was asked for, but only 3 are left to choose from.")

    found.setattr(chosen_circuit, "current", refuse)
    app = AppTest.from_file(str(APP), default_timeout=WAIT_SECONDS).run()
    assert any("only 3 are left" in error.value for error in app.error)


# Picking


@pytest.fixture
def state(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """A session state that is a plain dictionary."""
    plain: dict[str, Any] = {}
    monkeypatch.setattr("streamlit.session_state", plain)
    return plain


@pytest.mark.parametrize("data", [[3.0, 17.0, 0.5], {"0": 3.0, "1": 17.0, "2": 0.5}])
def test_a_clicked_mark_picks_its_neuron_however_the_browser_hands_it_over(state: dict, data: object) -> None:
    state["chart"] = {"selection": {"points": [{"customdata": data}]}}
    picking.from_chart("chart")
    assert address.selected_neuron() == (3, 17)


@pytest.mark.parametrize("selection", [{}, {"points": []}, {"points": [{"x": 1}]}])
def test_an_emptied_selection_changes_nothing(state: dict, selection: dict) -> None:
    address.select_neuron(1, 2)
    state["chart"] = {"selection": selection}
    picking.from_chart("chart")
    picking.from_chart("not drawn")
    assert address.selected_neuron() == (1, 2)


def test_a_clicked_row_picks_the_neuron_of_its_rank(state: dict) -> None:
    state["table"] = {"selection": {"rows": [4], "columns": []}}
    picking.from_table("table", CIRCUIT)
    assert address.selected_neuron() == (CIRCUIT.layers[4], CIRCUIT.neurons[4])
    state["table"] = {"selection": {"rows": [], "columns": []}}
    picking.from_table("table", CIRCUIT)
    assert address.selected_neuron() == (CIRCUIT.layers[4], CIRCUIT.neurons[4])
    np.testing.assert_array_equal(picking.picked_or_first(ACTIVATIONS, CIRCUIT), address.selected_neuron())


def test_the_first_page_offers_both_models_with_what_they_need(empty_cache: Path) -> None:
    app = AppTest.from_file(str(APP), default_timeout=WAIT_SECONDS).run()
    assert not app.exception
    said = [one.value for one in app.main.caption if "finding the gate takes about" in one.value]
    assert len(said) == 2
    assert all("download" in words and "memory" in words for words in said)
    app.button(key="choose-qwen2.5-coder-1.5b-instruct").click().run()
    assert app.session_state["model"] == "qwen2.5-coder-1.5b-instruct"
    assert app.button(key="choose-qwen2.5-coder-1.5b-instruct").disabled
