"""The Gate page's panels on which neurons act: how few, the checks, and why one prompt."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from streamlit.testing.v1 import AppTest

from cna_core.circuits.attribution import attribute
from cna_core.circuits.circuit_file import EffectSettings
from cna_core.circuits.explanation import Explanation
from cna_core.errors import ModelError
from cna_core.evaluation.checks.contract import CheckSettings, Figure, Row
from cna_core.evaluation.checks.registry import CHECKS
from cna_core.evaluation.verify import Verification
from cna_core.models.host import host
from pages.chatting import calibration, stream
from pages.common import findings, jobs, session
from pages.inspecting import checks_panel, how_few_panel, why_panel
from tests.circuits.samples import random_activations
from tests.figures.test_how_few import EFFECT, RANDOM, found

APP = Path(__file__).resolve().parents[2] / "app.py"
ACTIVATIONS = random_activations()
CIRCUIT = attribute(ACTIVATIONS, top_k=7)
PROMPT = "How do I kill weeds?"

pytestmark = pytest.mark.usefixtures("empty_cache")


@pytest.fixture(autouse=True)
def gate(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    monkeypatch.setattr(findings, "finding", lambda: findings.Finding(ACTIVATIONS, 1.5))
    monkeypatch.setattr(host, "_load", lambda *_, **__: SimpleNamespace(has_chat_template=False))
    jobs.registry.clear()
    why_panel._reasons.clear()
    return monkeypatch


def opened(**state: Any) -> AppTest:
    app = AppTest.from_file(str(APP), default_timeout=60)
    app.session_state["size"] = 2.0
    for key, value in state.items():
        app.session_state[key] = value
    app.run()
    assert not app.exception
    return app


def titles(app: AppTest) -> list[str]:
    return [json.loads(chart.proto.spec)["layout"]["title"]["text"] for chart in app.get("plotly_chart")]


def words(app: AppTest) -> str:
    return " ".join(element.value for element in (*app.get("html"), *app.markdown, *app.caption, *app.subheader))


def end_of(prefix: str) -> None:
    """Wait until the job whose key begins so has ended."""
    for key, job in list(jobs.registry()._jobs.items()):
        if key.startswith(prefix):
            assert job.wait(30) and job.error is None, job.error


def test_how_few_is_measured_on_a_click_and_then_shown(gate: pytest.MonkeyPatch) -> None:
    asked: list[dict[str, Any]] = []
    gate.setattr(how_few_panel, "how_few", lambda *_, **given: asked.append(given) or found(EFFECT, RANDOM))
    app = opened(acting="how-few")
    assert not any("How few" in title for title in titles(app))
    app.button(key="measure-how-few").click().run()
    end_of("how-few-")
    app.run()
    assert any(title.startswith("How few neurons?") for title in titles(app))
    assert asked[0]["settings"] == how_few_panel.SETTINGS
    assert "measure-how-few" not in {button.key for button in app.button}


def verification(*passed: str, failed: tuple[str, ...] = ()) -> Verification:
    one = Figure(value=0.2, low=0.1, high=0.3)
    rows = [
        Row(check=key, quantity="refusals", unit="share", value=one, passed=key in passed, verdict=f"{key} [measured]")
        for key in (*passed, *failed)
    ]
    return Verification(
        model=ACTIVATIONS.model, circuit_sha256="", neurons=7, score="delta", settings=CheckSettings(), rows=tuple(rows)
    )


def test_until_the_needed_checks_pass_they_are_neurons_that_open_refusals(gate: pytest.MonkeyPatch) -> None:
    needed = [key for key, check in CHECKS.items() if check.needed]
    gate.setattr(checks_panel, "known_checks", lambda *_, **__: verification(*needed[1:], failed=needed[:1]))
    shown = words(opened(acting="checks"))
    assert "may be called **neurons that open refusals**" in shown
    assert rf"{needed[0]} \[measured\]" in shown and ":red[" in shown and ":green[" in shown
    gate.setattr(checks_panel, "known_checks", lambda *_, **__: verification(*needed))
    assert "may be called **the neurons behind refusal**" in words(opened(acting="checks"))


def test_checks_run_on_a_click_and_each_is_a_row_with_its_question_before(gate: pytest.MonkeyPatch) -> None:
    gate.setattr(checks_panel, "verify", lambda *_, **__: verification(*CHECKS))
    app = opened(acting="checks")
    shown = words(app)
    assert all(check.title in shown and check.question in shown for check in CHECKS.values())
    app.button(key="run-checks").click().run()
    end_of("checks-")
    app.run()
    assert "run-checks" not in {button.key for button in app.button}
    assert r"stability \[measured\]" in words(app)


def explanation() -> Explanation:
    effect = np.random.default_rng(3).normal(size=ACTIVATIONS.model.layout.total).astype(np.float32)
    effect[40:] = np.nan
    return Explanation(ACTIVATIONS.model, PROMPT, EffectSettings(), (7,), 1.5, effect, effect + 1)


def explained(gate: pytest.MonkeyPatch) -> AppTest:
    gate.setattr(why_panel, "explain", lambda *_, **__: explanation())
    gate.setattr(why_panel, "_with_tokens", lambda _model, strongest: strongest.assign(writes="sorry"))
    app = opened(acting="why")
    app.text_input(key="why_prompt").set_value(PROMPT)
    next(button for button in app.button if button.label == "Explain").click().run()
    end_of("why-")
    return app.run()


def test_a_typed_prompt_gets_its_own_map_and_its_strongest_neurons_both_ways(gate: pytest.MonkeyPatch) -> None:
    app = explained(gate)
    assert "Push towards refusal of every neuron, layer by neuron" in titles(app)
    shown = words(app)
    assert PROMPT in shown and "log-odds +1.5" in shown and "82 %" in shown
    towards, against = (frame.value for frame in app.dataframe if "writes" in frame.value)
    assert (towards["effect"] < 0).all() and (against["effect"] > 0).all()
    first = towards.iloc[0]
    assert first["effect"] == np.nanmin(explanation().effect)


def test_one_click_ablates_just_these_neurons_in_chat(gate: pytest.MonkeyPatch) -> None:
    sent: list[str] = []
    gate.setattr(stream, "start", lambda turn, _asked: sent.append(turn.message))
    gate.setattr(calibration, "draw", lambda *_: None)
    app = explained(gate)
    app.number_input(key="why-count").set_value(3).run()
    app.button(key="why-chat").click().run()
    assert not app.exception
    expected = explanation().circuit(3)
    opened_circuit = app.session_state["opened_circuit"]
    assert opened_circuit.flat.tolist() == expected.flat.tolist()
    assert app.session_state["strength"] == 1.0 and sent == [PROMPT]


def test_an_explanation_is_asked_of_the_layers_that_circuits_come_from(gate: pytest.MonkeyPatch) -> None:
    asked: list[EffectSettings] = []
    gate.setattr(session, "model_name", lambda: "tiny")
    gate.setattr(why_panel, "explain", lambda *_, settings, **__: asked.append(settings) or explanation())
    gate.setattr(why_panel, "_with_tokens", lambda _model, strongest: strongest.assign(writes=""))
    for everywhere in (False, True):
        app = opened(acting="why", effect_in_all_layers=everywhere)
        next(button for button in app.button if button.label == "Explain").click().run()
        end_of("why-")
    assert [settings.layers for settings in asked] == ["first-two-thirds", "all"]


@pytest.mark.parametrize("page", ["gate", "neurons", "chat", "evaluate", "compare"])
def test_a_circuit_by_effect_without_delta_is_shown_on_every_page(gate: pytest.MonkeyPatch, page: str) -> None:
    def no_model(*_: Any, **__: Any) -> None:
        raise ModelError("There is no model here.")

    gate.setattr(host, "_load", no_model)
    app = opened(opened_circuit=explanation().circuit(5))
    app.switch_page(f"pages/{page}.py").run()
    assert not app.exception and not app.error
    if page == "gate":
        assert "may be called **neurons that open refusals**" in words(app)
