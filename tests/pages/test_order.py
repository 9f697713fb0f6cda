"""The form in which a sweep is ordered, without a browser: what it starts from, and what choices make of it."""

from collections.abc import Iterator

import pytest
from streamlit.testing.v1 import AppTest

from cna_core.circuits.library import save_circuit
from cna_core.evaluation.measures.registry import measures, unregister
from cna_core.evaluation.sweep_settings import SweepSettings
from cna_core.interventions.registry import methods
from tests.circuits.samples import circuit_of

WAIT_SECONDS = 60


def form() -> None:
    import streamlit as st

    from pages.evaluating import order
    from tests.circuits.samples import circuit_of

    st.session_state["ordered"] = order.ask(circuit_of([(0, 0), (1, 1), (2, 2)]), None)


@pytest.fixture
def app(empty_cache: object) -> Iterator[AppTest]:
    yield AppTest.from_function(form, default_timeout=WAIT_SECONDS).run()


def ordered(app: AppTest) -> SweepSettings:
    assert not app.exception
    assert app.session_state["ordered"] is not None, [error.value for error in app.error]
    return app.session_state["ordered"]


def test_it_starts_from_the_defaults_that_the_library_and_the_command_line_have(app: AppTest) -> None:
    mine, usual = ordered(app), SweepSettings()
    assert mine.fractions == (0.125,)  # the circuit's own: 3 of 24 neurons
    assert mine.measured == usual.measured
    for field in SweepSettings.model_fields.keys() - {"fractions", "measures"}:
        assert getattr(mine, field) == getattr(usual, field), field


def test_it_offers_every_registered_method_and_the_measures_that_the_prompts_allow(app: AppTest) -> None:
    [chips] = [group for group in app.get("button_group") if group.label == "Methods"]
    assert len(chips.options) == len(methods())
    [offered] = [box for box in app.multiselect if box.label == "Measures"]
    assert len(offered.options) == len([one for one in measures() if one.prompt_set not in ("knowledge", "problems")])


def test_twins_are_switched_off_together(app: AppTest) -> None:
    app.toggle(key="evaluate-controls").set_value(False).run()
    assert ordered(app).controls == ()


def test_questions_are_ordered_by_their_source_and_number(app: AppTest) -> None:
    app.selectbox(key="evaluate-knowledge").set_value("built-in").run()
    app.number_input(key="evaluate-questions").set_value(30).run()
    mine = ordered(app)
    assert (mine.knowledge, mine.questions) == ("built-in", 30)
    assert "knowledge" in [one.key for one in mine.measured]


def test_word_problems_are_ordered_by_their_source_and_number(app: AppTest) -> None:
    app.selectbox(key="evaluate-problems").set_value("built-in").run()
    app.number_input(key="evaluate-problem-count-built-in").set_value(40).run()
    mine = ordered(app)
    assert (mine.problems, mine.problem_count) == ("built-in", 40)
    assert "word_problems" in [one.key for one in mine.measured]


def test_public_problems_show_their_license(app: AppTest) -> None:
    app.selectbox(key="evaluate-problems").set_value("public:gsm8k").run()
    assert any("GSM8K" in caption.value and "MIT" in caption.value for caption in app.caption)
    assert ordered(app).problem_count == 100


def test_a_measure_that_asks_for_something_says_so_until_it_has_it(app: AppTest) -> None:
    key = "evaluate-measures-harmful-benign-borderline"
    app.multiselect(key=key).set_value(["refusal_rate", "judged_refusal_rate"]).run()
    assert app.session_state["ordered"] is None
    assert "needs endpoint and model" in app.error[0].value
    app.text_input(key="evaluate-judged_refusal_rate-endpoint").set_value("http://127.0.0.1:9/v1").run()
    app.text_input(key="evaluate-judged_refusal_rate-model").set_value("referee").run()
    given = {"judged_refusal_rate": {"endpoint": "http://127.0.0.1:9/v1", "model": "referee"}}
    assert ordered(app).measure_settings == given


def test_a_measure_of_ones_own_is_offered(empty_cache: object) -> None:
    import importlib
    import sys

    sys.modules.pop("tests.examples.answer_length", None)
    importlib.import_module("tests.examples.answer_length")
    try:
        app = AppTest.from_function(form, default_timeout=WAIT_SECONDS).run()
        assert "answer_length" in [one.key for one in ordered(app).measured]
    finally:
        unregister("answer_length")


def test_strengths_that_are_none_are_told_in_place(app: AppTest) -> None:
    app.get("button_group")  # the choice of strengths is one of them
    app.session_state["evaluate-strengths"] = "own"
    app.run()
    app.text_input(key="evaluate-own-strengths").set_value("much").run()
    assert "numbers separated by commas" in app.error[0].value


def test_saved_circuits_can_be_measured_in_the_same_run(app: AppTest) -> None:
    assert not [box for box in app.multiselect if box.key == "evaluate-others"]
    other = circuit_of([(0, 2), (3, 1)])
    save_circuit(other, "by effect")
    app.run()
    app.multiselect(key="evaluate-others").set_value(["by effect"]).run()
    assert {name: one.sha256 for name, one in ordered(app).others.items()} == {"by effect": other.sha256}
