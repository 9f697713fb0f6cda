"""The Gate page with measured effects: the map, a circuit by effect, where it differs and where it acts."""

import json
from pathlib import Path
from typing import Any

import pytest
from streamlit.testing.v1 import AppTest

from cna_core.circuits.attribution import attribute
from cna_core.circuits.effects import Effects
from pages.common import findings, measured_effects
from pages.common.recent import Recent
from pages.inspecting import verdict
from tests.circuits.samples import random_activations, random_effects

APP = Path(__file__).resolve().parents[2] / "app.py"
ACTIVATIONS, EFFECTS = random_activations(), random_effects()
FIVE_OF_80 = 2.0
"""Per cent of the neurons; the next size that the slider has gives 2 of them."""

pytestmark = pytest.mark.usefixtures("empty_cache")


@pytest.fixture
def found(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    monkeypatch.setattr(findings, "finding", lambda: findings.Finding(ACTIVATIONS, 1.5))
    return monkeypatch


@pytest.fixture
def measured(found: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    found.setattr(measured_effects, "known", lambda: EFFECTS)
    return found


def opened(**state: Any) -> AppTest:
    app = AppTest.from_file(str(APP), default_timeout=60)
    for key, value in state.items():
        app.session_state[key] = value
    app.run()
    assert not app.exception
    return app


def charts(app: AppTest) -> list[dict[str, Any]]:
    return [json.loads(chart.proto.spec) for chart in app.get("plotly_chart")]


def words(app: AppTest) -> str:
    return " ".join(element.value for element in (*app.get("html"), *app.markdown, *app.caption, *app.subheader))


def test_before_effects_are_measured_their_map_offers_to_measure_them(found: pytest.MonkeyPatch) -> None:
    started: list[bool] = []
    found.setattr(measured_effects, "start", lambda: started.append(True))
    app = opened(quantity="effect")
    assert "which neurons act" in words(app)
    app.button(key="measure-effects").click().run()
    assert started == [True]


@pytest.mark.parametrize("page", ["gate", "chat", "evaluate"])
def test_a_circuit_by_effect_waits_for_the_effects_on_every_page(found: pytest.MonkeyPatch, page: str) -> None:
    app = opened(score="attribution-patching")
    app.switch_page(f"pages/{page}.py").run()
    assert not app.exception
    assert "measure-effects" in {button.key for button in app.button}


def test_the_map_shows_effects_with_what_pushes_towards_refusal_in_orange(measured: pytest.MonkeyPatch) -> None:
    chart = charts(opened(quantity="effect"))[0]
    assert chart["layout"]["title"]["text"] == "Push towards refusal of every neuron, layer by neuron"
    assert "effect" in chart["data"][-1]["hovertemplate"]


def test_the_circuit_by_effect_lies_in_the_first_two_thirds_unless_all_layers_are_wanted(
    measured: pytest.MonkeyPatch,
) -> None:
    early = attribute(EFFECTS.of_first_two_thirds(), fraction=None, top_k=2)
    app = opened(score="attribution-patching", size=FIVE_OF_80)
    (table,) = app.dataframe
    assert table.value["neuron"].tolist() == early.neurons.tolist()
    assert "effect" in table.value
    everywhere = attribute(EFFECTS, fraction=None, top_k=2)
    (table,) = opened(score="attribution-patching", size=FIVE_OF_80, effect_in_all_layers=True).dataframe
    assert table.value["neuron"].tolist() == everywhere.neurons.tolist() != early.neurons.tolist()


def test_the_page_says_where_it_differs_and_where_it_acts(measured: pytest.MonkeyPatch) -> None:
    from cna_core.circuits.differ_and_act import differ_and_act

    shown = words(opened(size=FIVE_OF_80))
    compared = differ_and_act(ACTIVATIONS, EFFECTS.of_first_two_thirds(), 2, layers=EFFECTS)
    assert verdict.differs_and_acts(compared) in shown
    traces = {trace.get("meta") for trace in charts(opened())[1]["data"]}
    assert {"mass", "effect-share"} <= traces


def test_cards_of_a_circuit_by_effect_stand_beside_those_of_delta(measured: pytest.MonkeyPatch) -> None:
    shown = words(opened(score="attribution-patching", size=FIVE_OF_80))
    assert "by δ" in shown and "Shared with δ" in shown and "refused prompts" in shown
    assert "shuffled" not in shown


def test_a_link_to_a_circuit_by_effect_reads_kept_effects_and_starts_nothing(found: pytest.MonkeyPatch) -> None:
    started: list[bool] = []
    found.setattr(measured_effects, "start", lambda: started.append(True))
    found.setattr(findings, "known_model", lambda *_: ("sample", "r1", "float32"))
    app = AppTest.from_file(str(APP), default_timeout=60)
    app.query_params["found"], app.query_params["score"] = "1", "attribution-patching"
    app.run()
    assert not app.exception and started == []
    assert app.button(key="measure-effects")
    own: Recent[Effects] = Recent(1)
    found.setattr(measured_effects, "_measured", lambda: own)
    found.setattr("cna_core.evaluation.effects.kept_effects", lambda *_: EFFECTS)
    app = AppTest.from_file(str(APP), default_timeout=60)
    app.query_params["found"], app.query_params["score"] = "1", "attribution-patching"
    app.run()
    assert not app.exception and started == []
    assert not [button for button in app.button if button.key == "measure-effects"]


def test_a_link_selects_by_effect_and_the_address_keeps_it(measured: pytest.MonkeyPatch) -> None:
    app = AppTest.from_file(str(APP), default_timeout=60)
    app.query_params["score"], app.query_params["size"] = "attribution-patching", "2"
    app.run()
    assert not app.exception and "Shared with δ" in words(app)
    assert "attribution-patching" in app.query_params["score"]
    assert "score" not in opened().query_params
