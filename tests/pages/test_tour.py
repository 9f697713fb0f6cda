"""The tour without a browser, on a tiny model: its five steps, what each sets and asks, and the ways out."""

import contextlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from streamlit.runtime.pages_manager import PagesManager
from streamlit.testing.v1 import AppTest

from cna_core.circuits.attribution import attribute
from cna_core.circuits.circuit import Circuit
from cna_core.evaluation.first_setting import FirstSetting
from cna_core.evaluation.gate_meter import RefusalOpenings
from cna_core.models.host import host
from cna_core.models.loaded import LoadedModel
from pages.chatting import examples, first_setting, meter
from pages.common import chosen_circuit, findings, jobs, keys
from pages.touring import tour
from pages.touring.route import AnswerSeen
from tests.circuits.samples import random_activations
from tests.decoding.models import loud_model

APP = Path(__file__).resolve().parents[2] / "app.py"
WAIT_SECONDS = 60
FOUND = FirstSetting(0.004, 1.5, 0.3, 0.8, 0.1, 10, 20, ("tell me why",), ("how do i break bread",))

pytestmark = pytest.mark.usefixtures("empty_cache")


@pytest.fixture(scope="module")
def model() -> LoadedModel:
    return loud_model()


@pytest.fixture(autouse=True)
def every_page_runs_through_the_app(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a browser. Otherwise AppTest, from its second run on, takes the pages for apps of their own."""
    begin = PagesManager.__init__

    def without_pages_directory(self: PagesManager, *given: Any, **options: Any) -> None:
        begin(self, *given, **options)
        PagesManager.uses_pages_directory = False

    monkeypatch.setattr(PagesManager, "__init__", without_pages_directory)


@pytest.fixture
def circuit(model: LoadedModel, monkeypatch: pytest.MonkeyPatch) -> Circuit:
    """A session in which the gate of the tiny model was found, and its gate meter is calibrated."""
    activations = random_activations(model=model.identity)
    selected = attribute(activations, top_k=30)
    sorry = np.array([model.tokenizer.convert_tokens_to_ids("sorry")])
    openings = RefusalOpenings(model.identity, "0" * 64, sorry, np.array([9.0]), np.array([10.0]))
    host._make_room(0)
    monkeypatch.setattr(host, "_load", lambda _name, **_options: model)
    monkeypatch.setattr("cna_core.decoding.lanes.end_tokens", lambda _model: frozenset())
    monkeypatch.setattr(meter, "cached_openings", lambda *_: openings)
    monkeypatch.setattr(findings, "finding", lambda: findings.Finding(activations, 1.5))
    monkeypatch.setattr(chosen_circuit, "current", lambda: selected)
    yield selected
    host._make_room(0)


def opened(step: str = "", **state: object) -> AppTest:
    app = AppTest.from_file(str(APP), default_timeout=WAIT_SECONDS)
    app.session_state["chat-longest"] = 8
    for key, value in state.items():
        app.session_state[key] = value
    if step:
        app.query_params["tour"] = step
    app.run()
    assert not app.exception
    return app


def press(app: AppTest, key: str) -> AppTest:
    app.button(key=key).click().run()
    assert not app.exception
    return answered(app)


def answered(app: AppTest) -> AppTest:
    """Wait for the answers that are being written, then look again, as the page does by itself in a browser."""
    seen = None
    while (running := kept(app, "chat-stream")) is not seen:
        seen = running
        assert running.wait(WAIT_SECONDS)
        app.run()
    return app


def kept(app: AppTest, key: str) -> Any:
    return app.session_state[key] if key in app.session_state else None  # noqa: SIM401 (it has no get)


def words(app: AppTest) -> str:
    return " ".join(element.value for element in (*app.markdown, *app.title))


def next_label(app: AppTest) -> str:
    return app.button(key="tour-next").label


def number(app: AppTest) -> int | None:
    return kept(app, keys.TOUR)


def test_the_five_steps_go_from_the_map_to_the_control(circuit: Circuit) -> None:
    app = opened("1")
    assert "1 of 5" in words(app) and "The dots are the circuit, the **30 neurons**" in words(app)
    app = press(app, "tour-next")
    assert "What does each neuron do?" in words(app)
    assert f"Layer {circuit.layers[0]}, neuron {circuit.neurons[0]} is one of them" in words(app)
    app = press(app, "tour-next")
    assert "What does steering change in an answer?" in words(app) and "the slider stands at **1**" in words(app)
    assert any(examples.EXAMPLES["Borderline"][1][0] in caption.value for caption in app.caption)  # on the meter
    assert next_label(app) == "Ask both models"
    app = press(app, "tour-next")
    assert [a.kind for a in app.session_state["conversation"].turns[0].answers] == ["baseline", "steered"]
    assert "Baseline: **" in words(app) and next_label(app) == "Ask a random twin"
    app = press(app, "tour-next")
    (turn,) = app.session_state["conversation"].turns
    assert [answer.kind for answer in turn.answers] == ["baseline", "steered", "random"]
    assert "5 of 5" in words(app) and "Random twin, as many other neurons of the same layers: **" in words(app)
    app = press(app, "tour-next")
    assert number(app) is None and "of 5" not in words(app) and "tour" not in app.query_params


def test_the_step_is_in_the_address_and_back_leads_back(circuit: Circuit) -> None:
    app = press(opened("1"), "tour-next")
    assert app.query_params["tour"] == "2"
    app = press(app, "tour-back")
    assert number(app) == 1 and "Where does this model's refusal live?" in words(app)


def test_the_tour_can_be_skipped_at_once(circuit: Circuit) -> None:
    app = press(opened("1"), "tour-skip")
    assert number(app) is None and "of 5" not in words(app)


@pytest.mark.parametrize("address", ["0", "6", "x", ""])
def test_an_address_without_such_a_step_opens_no_tour(circuit: Circuit, address: str) -> None:
    assert number(opened(address)) is None


def test_an_address_alone_starts_no_work(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[str] = []
    monkeypatch.setattr(jobs, "start", lambda key, *_, **__: started.append(key))
    app = opened("1")
    assert started == [] and next_label(app) == "Find the gate, then go on"
    app.button(key="tour-next").click().run()
    assert len(started) == 1 and started[0].startswith("find-")


def test_an_address_of_a_later_step_asks_no_model_before_the_click(circuit: Circuit) -> None:
    app = press(opened("4"), "tour-next")  # the Gate page opens; the tour leads to Chat
    assert "What does steering change" in words(app)
    assert not app.session_state["conversation"].turns and next_label(app) == "Ask both models"
    assert len(press(app, "tour-next").session_state["conversation"].turns) == 1


def test_a_page_opened_by_hand_leaves_a_way_back_and_out(circuit: Circuit) -> None:
    app = opened("1")
    app.switch_page("pages/method.py").run()
    assert "The tour goes on at the page Gate." in words(app)
    app = press(app, "tour-next")
    assert "Where does this model's refusal live?" in words(app) and number(app) == 1


def test_it_sets_and_asks_what_the_search_found_on_this_model(
    circuit: Circuit, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(first_setting, "known", lambda _circuit: FOUND)
    app = press(press(opened("1"), "tour-next"), "tour-next")
    assert (app.session_state[keys.SIZE], app.session_state[keys.STRENGTH]) == (0.4, 1.5)
    assert press(app, "tour-next").session_state["conversation"].turns[0].message == FOUND.over_refused[0]


def test_a_model_that_refuses_no_example_is_said_and_asked_the_usual_one(
    circuit: Circuit, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(first_setting, "known", lambda _circuit: FirstSetting())
    app = press(opened("4"), "tour-next")
    assert "This model refuses none of the examples" in words(app)
    turn = press(app, "tour-next").session_state["conversation"].turns[0]
    assert turn.message == examples.EXAMPLES["Borderline"][1][0]


def test_the_control_asked_for_while_answers_are_written_starts_them_again(
    circuit: Circuit, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = press(opened("4"), "tour-next")
    with contextlib.ExitStack() as busy:
        busy.enter_context(host.acquire("tiny"))  # the answers wait here
        app.button(key="tour-next").click().run()
        app.button(key="tour-next").click().run()
        assert number(app) == 5
    (turn,) = answered(answered(app).run()).session_state["conversation"].turns
    assert [answer.kind for answer in turn.answers] == ["baseline", "steered", "random"]


def test_a_card_drawn_before_the_answer_ended_is_drawn_again(circuit: Circuit, monkeypatch: pytest.MonkeyPatch) -> None:
    app = press(press(opened("4"), "tour-next"), "tour-next")
    drawn, seen = list[bool](), tour.answer_seen

    def as_if_writing_at_first() -> AnswerSeen:
        drawn.append(len(drawn) > 0)
        return seen()._replace(ended=drawn[-1])

    monkeypatch.setattr(tour, "answer_seen", as_if_writing_at_first)
    app.run()
    assert drawn == [False, True, True, True]  # drawn, looked at behind the page, and both once more


def test_the_first_page_offers_it_in_one_line() -> None:
    app = press(opened(), "tour-offer")
    assert number(app) == 1
    assert not [button for button in app.button if button.key == "tour-offer"]
