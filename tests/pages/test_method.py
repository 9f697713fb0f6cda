"""The Method page: the paper's figures as they are in the asset, and what was measured here beside them."""

from pathlib import Path
from typing import Any

import pytest
from streamlit.testing.v1 import AppTest

from cna_core.circuits.attribution import attribute
from cna_core.evaluation.journal import keep_run
from cna_core.evaluation.published import published
from pages.common import chosen_circuit, findings
from pages.inspecting import evidence, reported
from tests.circuits.samples import circuit_of, random_activations
from tests.pages.test_evaluate import a_run, displayed

APP = Path(__file__).resolve().parents[2] / "app.py"
WAIT_SECONDS = 60

pytestmark = pytest.mark.usefixtures("empty_cache")


def opened(**state: Any) -> AppTest:
    app = AppTest.from_file(str(APP), default_timeout=WAIT_SECONDS)
    for key, value in state.items():
        app.session_state[key] = value
    app.run()
    app.switch_page("pages/method.py").run()
    assert not app.exception
    return app


def test_the_papers_tables_are_those_of_the_asset() -> None:
    tables = [table.value for table in opened().dataframe]
    ablation = next(table for table in tables if "ablated" in table)
    reported_models = [model for model in published().models if model.full_ablation]
    assert ablation["model"].tolist() == [model.title for model in reported_models]
    assert ablation["baseline"].tolist() == [model.full_ablation.refusal_baseline for model in reported_models]  # type: ignore[union-attr]


def test_base_models_stand_beside_their_instruct_models() -> None:
    app = opened()
    assert "Base against instruct" in [tab.label for tab in app.tabs]
    pairs = [model for model in published().models if model.base_against_instruct]
    table = next(table.value for table in app.dataframe if {"ablated", "quality"} <= set(table.value))
    assert table["model"].tolist() == [model.title for model in pairs]
    assert table["quality"].tolist() == [model.base_against_instruct.quality for model in pairs]  # type: ignore[union-attr]


def test_a_figure_that_the_paper_gives_roughly_is_shown_so() -> None:
    table = next(table for table in opened().dataframe if "in the last 3 layers" in table.value)
    shown = displayed(table).set_index("model")["in the last 3 layers"]
    assert shown["Llama-3.1-8B-Instruct"] == "≈ 88 %"
    assert shown["Llama-3.2-1B-Instruct"] == "84.5 %"


def test_what_was_measured_here_says_with_which_circuit_and_when() -> None:
    run = a_run("full")
    keep_run(run)
    words = " ".join(caption.value for caption in opened(model=run.model.name).caption)
    assert "“full” of 2026-01-02, its circuit (0.4 % of all) at strength 1." in words


def test_a_model_that_the_paper_reports_has_its_figures_beside_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chosen_circuit, "current", lambda: circuit_of([(0, 0), (3, 1), (2, 2), (3, 3)]))
    table = opened(model="llama-3.2-1b-instruct").dataframe[0].value.set_index("")
    assert table.loc["Circuit, last 3 layers"].tolist() == ["84 %", "75 % of 4"]
    assert table.loc["Refusals, baseline", "paper"] == "90 %"
    assert table.loc["Refusals, circuit ablated", "paper"] == "34 %"
    assert table.loc["Quality, circuit ablated", "paper"] == "0.975"


def test_our_share_stands_beside_what_shuffled_labels_give(monkeypatch: pytest.MonkeyPatch) -> None:
    activations = random_activations()
    circuit = attribute(activations, top_k=7)
    monkeypatch.setattr(findings, "finding", lambda: findings.Finding(activations, 1.5))
    monkeypatch.setattr(chosen_circuit, "current", lambda: circuit)
    null = evidence.compute(activations, circuit).null.concentration(3)
    shown = opened().dataframe[0].value.set_index("").loc["Circuit, last 3 layers", "here"]
    assert shown == f"{100 * circuit.concentration(3):.0f} % of 7 (shuffled {100 * null.mean:.0f} %)"


def test_a_model_that_the_paper_does_not_report_is_said_to_be_none() -> None:
    app = opened()
    assert set(app.dataframe[0].value["paper"]) == {reported.NOTHING}
    assert any("does not report this model" in caption.value for caption in app.caption)


def test_the_citation_can_be_copied() -> None:
    assert "@article" in opened().code[0].value
