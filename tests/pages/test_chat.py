"""The Chat page without a browser, on a tiny model: what is sent, shown, kept and refused."""

import json
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from streamlit.testing.v1 import AppTest

from cna_core.circuits.circuit import Circuit
from cna_core.decoding.conversation import Answer, Turn
from cna_core.decoding.lanes import Lane
from cna_core.decoding.sampling import Sampling
from cna_core.decoding.session import DecodeSession
from cna_core.errors import StoppedError
from cna_core.evaluation.first_setting import FirstSetting
from cna_core.evaluation.gate_meter import RefusalOpenings
from cna_core.models.host import host
from cna_core.models.loaded import LoadedModel
from cna_core.progress import Stage
from cna_core.prompts.sets import ContrastSet
from pages.chatting import calibration, first_setting, meter, stream
from pages.chatting.answers import answer_markup
from pages.chatting.asking import AskedLane, Request
from pages.chatting.prose import escaped
from pages.common import jobs, keys, watching
from tests.circuits.samples import circuit_of
from tests.decoding.models import loud_model, spread_circuit

APP = Path(__file__).resolve().parents[2] / "app.py"
WAIT_SECONDS = 60


@pytest.fixture(scope="module")
def model() -> LoadedModel:
    return loud_model()


@pytest.fixture(autouse=True)
def hosted(model: LoadedModel, empty_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The host loads the tiny model whatever is asked for, and its refusals are known to open with "sorry"."""
    host._make_room(0)
    monkeypatch.setattr(host, "_load", lambda _name, **_options: model)
    monkeypatch.setattr("cna_core.decoding.lanes.end_tokens", lambda _model: frozenset())
    sorry = np.array([model.tokenizer.convert_tokens_to_ids("sorry")])
    openings = RefusalOpenings(model.identity, "0" * 64, sorry, np.array([9.0]), np.array([10.0]))
    monkeypatch.setattr(meter, "cached_openings", lambda *_: openings)
    yield
    host._make_room(0)


@pytest.fixture
def chat(model: LoadedModel) -> Callable[..., AppTest]:
    def opened(circuit: Circuit | None = None, **state: object) -> AppTest:
        app = AppTest.from_file(str(APP), default_timeout=WAIT_SECONDS)
        app.session_state["opened_circuit"] = circuit or spread_circuit(model, size=40)
        app.session_state["chat-longest"] = 12
        for key, value in state.items():
            app.session_state[key.replace("_", "-")] = value
        app.run()
        app.switch_page("pages/chat.py")
        return app.run()

    return opened


def send(app: AppTest, message: str) -> AppTest:
    return answered(app.chat_input(key="chat-message").set_value(message).run())


def answered(app: AppTest) -> AppTest:
    """Wait for the answer that is being written, then look again, as the page does by itself in a browser."""
    if "chat-stream" in app.session_state and app.session_state["chat-stream"] is not None:
        finished(app.session_state["chat-stream"])
    return app.run()


def shown(app: AppTest) -> str:
    return " ".join(str(element.proto.body) for element in app.get("html"))


def turns(app: AppTest) -> list[Turn]:
    return app.session_state["conversation"].turns


def press(app: AppTest, label: str) -> AppTest:
    return answered(next(button for button in app.button if button.label == label).click().run())


def test_without_a_circuit_the_page_teaches_what_to_do(empty_cache: Path) -> None:
    app = AppTest.from_file(str(APP), default_timeout=WAIT_SECONDS).run()
    app.switch_page("pages/chat.py")
    app.run()
    assert not app.exception
    assert any("No circuit yet" in element.value for element in app.caption)


def test_one_message_gets_two_answers(chat: Callable[..., AppTest]) -> None:
    app = send(chat(), "tell me about cats")
    assert not app.exception
    (turn,) = turns(app)
    assert [answer.kind for answer in turn.answers] == ["baseline", "steered"]
    assert all(len(answer.token_ids) == 12 for answer in turn.answers)
    assert turn.answers[0].text != turn.answers[1].text
    assert all(escaped(answer.text) in shown(app) or "<mark" in shown(app) for answer in turn.answers)
    assert shown(app).count('data-testid="answer"') == 2


def test_at_strength_zero_both_say_the_same_and_part_nowhere(chat: Callable[..., AppTest]) -> None:
    app = send(chat(strength=0.0, chat_temperature=1.0, chat_tokens=True), "tell me about cats")
    baseline, steered = turns(app)[0].answers
    assert baseline.text == steered.text
    assert "<mark" not in shown(app)
    assert steered.divergence == [0.0] * 12


@pytest.mark.parametrize(("third", "kind"), [("random twin", "random"), ("another strength", "other")])
def test_a_third_lane_stands_beside_the_two(chat: Callable[..., AppTest], third: str, kind: str) -> None:
    app = send(chat(chat_third=third), "why")
    assert [answer.kind for answer in turns(app)[0].answers] == ["baseline", "steered", kind]


def test_markup_in_messages_and_answers_is_shown_as_text(chat: Callable[..., AppTest]) -> None:
    app = send(chat(), "<script>alert(1)</script><b>cats</b>\x00\u202e")
    assert not app.exception
    assert "&lt;script&gt;alert(1)&lt;/script&gt;&lt;b&gt;cats&lt;/b&gt;␀" in shown(app)
    assert "<script" not in shown(app) and "\u202e" not in shown(app)


def test_a_message_longer_than_the_context_is_told_with_the_count(chat: Callable[..., AppTest]) -> None:
    app = send(chat(), "cats\n" * 5000)
    assert not app.exception
    assert any("5,0" in error.value and "256" in error.value for error in app.error)
    app = send(app, "why")
    assert turns(app)[1].error is None and turns(app)[1].answers[0].text  # the next one is answered as if first


def test_an_empty_message_is_not_sent(chat: Callable[..., AppTest]) -> None:
    app = send(chat(), " \n ")
    assert not app.exception
    assert turns(app) == []


def test_a_circuit_of_another_model_is_told(chat: Callable[..., AppTest]) -> None:
    app = send(chat(circuit_of([(0, 1), (3, 2)])), "why")
    assert not app.exception
    assert any("belongs to sample" in error.value for error in app.error)


def test_a_model_that_was_unloaded_meanwhile_is_loaded_again(chat: Callable[..., AppTest]) -> None:
    app = send(chat(), "why")
    assert host._make_room(0)
    app = send(app, "tell me about cats")
    assert len(turns(app)[1].answers[0].token_ids) == 12


def test_each_lane_remembers_its_own_answers(chat: Callable[..., AppTest], monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[list[Lane]] = []
    requests = stream.requests
    monkeypatch.setattr(stream, "requests", lambda *a, **named: asked.append(a[1]) or requests(*a, **named))
    app = send(send(chat(), "tell me about cats"), "why")
    first, lanes = turns(app)[0], asked[1]
    for lane, answer in zip(lanes, first.answers, strict=True):
        assert [message["content"] for message in lane.messages] == ["tell me about cats", answer.text, "why"]
    app.checkbox(key="chat-shared").check()
    app = send(app, "no")
    contents = [[message["content"] for message in lane.messages] for lane in asked[2]]
    assert contents[0] == contents[1]


def test_again_answers_the_same_message_once_more(chat: Callable[..., AppTest]) -> None:
    app = send(chat(), "why")
    before = turns(app)[0].answers[1].text
    app = press(app, "Regenerate")
    assert len(turns(app)) == 1
    assert turns(app)[0].answers[1].text == before
    app.session_state["chat-temperature"] = 2.0
    assert press(app, "Regenerate").session_state["conversation"].turns[0].answers[1].text != before


def test_the_last_message_can_be_changed(chat: Callable[..., AppTest]) -> None:
    app = press(send(chat(), "why"), "Edit")
    app.text_area(key="chat-edited").set_value("tell me about dogs")
    app = press(app, "Send instead")
    assert [turn.message for turn in turns(app)] == ["tell me about dogs"]
    assert turns(app)[0].answers[0].text


def test_clear_forgets_the_conversation(chat: Callable[..., AppTest]) -> None:
    app = press(send(chat(), "why"), "Clear")
    assert turns(app) == []
    assert any("Benign" in element.value for element in app.markdown)


def test_every_setting_is_kept_with_the_turn_and_in_the_file(chat: Callable[..., AppTest]) -> None:
    options = {"chat_temperature": 0.5, "chat_top_p": 0.9, "chat_top_k": 7, "chat_seed": 3, "chat_system": "tell me"}
    app = send(chat(**options), "why")
    settings = turns(app)[0].settings
    assert (settings["temperature"], settings["top_p"], settings["top_k"], settings["seed"]) == (0.5, 0.9, 7, 3)
    assert settings["system"] == "tell me"
    read = json.loads(app.session_state["conversation"].to_json({}))
    assert read["turns"][0]["settings"]["circuit_sha256"] == settings["circuit_sha256"]


def test_the_meter_shows_the_chance_for_the_last_message(chat: Callable[..., AppTest]) -> None:
    app = chat()
    assert not app.get("plotly_chart")
    app = send(app, "why")
    (chart,) = app.get("plotly_chart")
    assert "Chance that the answer opens as a refusal" in chart.proto.spec


# --- the stream ---


def request_for(model: LoadedModel, max_new_tokens: int = 200) -> Request:
    asked = [{"role": "user", "content": "why"}]
    lanes = [AskedLane(asked, answer) for answer in a_turn().answers]  # type: ignore[arg-type]
    circuit, contrast = spread_circuit(model), ContrastSet.builtin()
    return Request("tiny", {}, lanes, circuit, contrast, None, Sampling(), max_new_tokens)


def a_turn() -> Turn:
    return Turn("why", [Answer("baseline", 0.0), Answer("steered", 1.0)])


def finished(running: jobs.Job) -> None:
    assert running.wait(WAIT_SECONDS)


def test_a_stream_whose_session_is_gone_ends_and_frees_the_model(
    model: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watching, "is_open", lambda _session: False)
    monkeypatch.setattr(stream, "PATIENCE_SECONDS", 0.0)
    turn = a_turn()
    finished(stream.start(turn, request_for(model)))
    assert turn.stopped
    told: list[Stage] = []
    with host.acquire("tiny", progress=lambda progress: told.append(progress.stage)):
        assert Stage.WAITING_FOR_MODEL not in told


def test_stop_keeps_what_was_written(model: LoadedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    running: list[jobs.Job] = []
    add, turn = Answer.add, a_turn()

    def stop_after_five(answer: Answer, *step: object) -> None:
        add(answer, *step)
        if answer.kind == "steered" and len(answer.token_ids) == 5:
            running[0].stop.set()

    monkeypatch.setattr(Answer, "add", stop_after_five)
    with host.acquire("tiny"):  # the stream waits here until the list has it
        running.append(stream.start(turn, request_for(model)))
    finished(running[0])
    assert turn.stopped and turn.error is None
    assert [len(answer.token_ids) for answer in turn.answers] == [5, 5]


def test_the_second_of_two_sessions_is_told_its_place_and_answered(model: LoadedModel) -> None:
    turn = a_turn()
    with host.acquire("tiny"):
        waiting = stream.start(turn, request_for(model, max_new_tokens=8))
        while "You are next" not in waiting.line:
            assert not waiting.finished
    finished(waiting)
    assert turn.error is None and [len(answer.token_ids) for answer in turn.answers] == [8, 8]


def test_five_sessions_that_send_at_once_are_answered_together_as_each_would_be_alone(
    model: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone, together = a_turn(), [a_turn() for _ in range(5)]
    finished(stream.start(alone, request_for(model, max_new_tokens=30)))
    rows, step = list[int](), DecodeSession.step
    monkeypatch.setattr(DecodeSession, "step", lambda session: [step(session), rows.append(session.rows)][0])
    with host.acquire("tiny"):  # they wait here until all have sent
        running = [stream.start(turn, request_for(model, max_new_tokens=30)) for turn in together]
        while not all("You are next" in job.line for job in running):
            pass
    for job in running:
        finished(job)
    for turn in together:
        assert [answer.token_ids for answer in turn.answers] == [answer.token_ids for answer in alone.answers]
    assert max(rows) == 10 and len(rows) == max(len(answer.token_ids) for answer in alone.answers)


def test_a_request_that_waits_for_the_model_can_be_stopped(model: LoadedModel) -> None:
    turn = a_turn()
    with host.acquire("tiny"):
        waiting = stream.start(turn, request_for(model))
        waiting.stop.set()
        finished(waiting)
    assert turn.stopped and not turn.answers[0].token_ids


# --- markup ---


def answer_with(pieces: list[str], tokens: list[int], kind: str = "steered", reason: str | None = "stop") -> Answer:
    size = len(pieces)
    return Answer(kind, 1.0, pieces, tokens, [0.0] * size, [0.0] * size, reason, 0.1, 1.0)  # type: ignore[arg-type]


def test_the_first_differing_token_is_marked_in_both() -> None:
    baseline, steered = answer_with(["I", " am", " no"], [1, 2, 3], "baseline"), answer_with(["I", " can"], [1, 9])
    turn = Turn("why", [baseline, steered])
    assert '<mark class="parting" title="the first token that differs"> am</mark> no' in answer_markup(baseline, turn)
    assert '<mark class="parting" title="the first token that differs"> can</mark>' in answer_markup(steered, turn)


def test_a_badge_says_whether_the_answer_refuses_and_why() -> None:
    refusal = answer_with(["I'm sorry,", " but I can't help with that."], [1, 2], "baseline")
    turn = Turn("why", [refusal, answer_with(["Sure,", " here it is."], [3, 4])])
    assert 'class="badge refused"' in answer_markup(refusal, turn)
    assert 'class="badge answered"' in answer_markup(turn.answers[1], turn)
    lacking = answer_with(["As an AI,", " I don't have personal opinions."], [5, 6])
    assert 'class="badge neither"' in answer_markup(lacking, turn)
    assert ">no access or opinion</span>" in answer_markup(lacking, turn)
    assert 'class="badge' not in answer_markup(answer_with(["I'm"], [1], reason=None), turn, waits_for="")


def test_an_answer_that_has_not_begun_says_what_it_waits_for() -> None:
    empty = answer_with([], [], reason=None)
    markup = answer_markup(empty, Turn("why", [empty]), waits_for="You are next.")
    assert "You are next." in markup and 'data-testid="answer"' not in markup


# --- calibrating the meter ---


@pytest.fixture
def uncalibrated(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """No model is calibrated. Calibrations are recorded in this list, and run until they are stopped."""
    calibrations: list[str] = []

    def until_stopped(*_: object, stop: threading.Event, **__: object) -> None:
        calibrations.append("started")
        assert stop.wait(WAIT_SECONDS)
        raise StoppedError("stopped")

    monkeypatch.setattr(meter, "cached_openings", lambda *_: None)
    monkeypatch.setattr(calibration, "calibrate_openings", until_stopped)
    jobs.registry.clear()
    return calibrations


def calibration_job(app: AppTest) -> jobs.Job:
    return app.session_state["openings-calibration"]


def test_opening_the_page_starts_calibration(chat: Callable[..., AppTest], uncalibrated: list[str]) -> None:
    app = chat()
    assert not app.exception
    assert calibration_job(app).title == "Calibrating the gate meter"
    assert 'data-testid="meter-place"' in shown(app)
    calibration_job(app).stop.set()


def test_an_answer_comes_before_calibration(chat: Callable[..., AppTest], uncalibrated: list[str]) -> None:
    app = chat()
    first = calibration_job(app)
    app = send(app, "why")
    assert first.stop.is_set()
    assert turns(app)[0].answers[0].text
    second = calibration_job(app)
    assert second is not first  # it restarted after the answer
    second.stop.set()


def test_a_paused_calibration_starts_only_on_request(chat: Callable[..., AppTest], uncalibrated: list[str]) -> None:
    app = press(chat(), "Not now")
    first = calibration_job(app)
    assert first.stop.is_set()
    app = app.run()
    assert calibration_job(app) is first
    app = press(app, "Calibrate now")
    assert calibration_job(app) is not first
    calibration_job(app).stop.set()


def test_a_circuit_of_another_model_is_not_calibrated_again_and_again(
    chat: Callable[..., AppTest], uncalibrated: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calibration, "calibrate_openings", lambda *_, **__: uncalibrated.append("calibrated"))
    app = chat()
    while not calibration_job(app).finished:
        assert calibration_job(app).error is None
    app = app.run().run()
    assert uncalibrated == ["calibrated"]
    assert "belongs to another model" in shown(app)


def test_the_marks_of_the_slider_are_named(chat: Callable[..., AppTest]) -> None:
    words = shown(chat())
    for name in ("<b>−1</b> amplified", "<b>0</b> baseline", "<b>1</b> ablated", "<b>2</b> inverted"):
        assert name in words


def test_where_strengths_above_0_are_forbidden_the_slider_ends_at_0(
    chat: Callable[..., AppTest], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CNA_STRENGTH_LIMIT", "0")
    app = send(chat(), "why")
    slider = app.slider(key="strength")
    assert (slider.min, slider.max, slider.value) == (-1.0, 0.0, 0.0)
    assert [answer.strength for answer in turns(app)[0].answers] == [0.0, 0.0]


def test_a_strength_that_is_forbidden_is_refused_whoever_asks_for_it(
    chat: Callable[..., AppTest], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CNA_STRENGTH_LIMIT", "0")
    app = chat()
    monkeypatch.setattr(meter, "strength", lambda: 1.0)
    app.chat_input(key="chat-message").set_value("why").run()
    assert not app.exception
    assert "not allowed here" in app.toast[0].value
    assert turns(app) == []


@pytest.mark.parametrize("key", ["mean", "caa"])
def test_the_steered_lane_uses_the_method_that_was_chosen(
    chat: Callable[..., AppTest], monkeypatch: pytest.MonkeyPatch, key: str
) -> None:
    app = chat()
    app.selectbox(key="method").set_value(key).run()
    app = send(app, "why")
    assert not app.exception
    _, steered = turns(app)[0].answers
    assert turns(app)[0].error is None
    assert (steered.method, bool(steered.token_ids)) == (key, True)


def test_a_third_lane_may_use_another_method(chat: Callable[..., AppTest]) -> None:
    app = chat()
    app.selectbox(key="chat-third").set_value("another method").run()
    app.selectbox(key="chat-third-method").set_value("caa").run()
    app = send(app, "why")
    assert [(answer.kind, answer.method) for answer in turns(app)[0].answers] == [
        ("baseline", "scale"),
        ("steered", "scale"),
        ("method", "caa"),
    ]
    assert turns(app)[0].error is None


FOUND = FirstSetting(0.004, 1.5, 0.3, 0.8, 0.1, 10, 20, ("tell me why",), ("how do i break bread",))


@pytest.fixture
def found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(first_setting, "known", lambda _circuit: FOUND)


def test_chat_opens_at_the_setting_that_was_found_and_offers_the_papers(
    chat: Callable[..., AppTest], found: None
) -> None:
    app = chat().run()
    assert not app.exception
    assert app.session_state[keys.OPEN_AT] == (0.4, 1.5)
    assert any("0.4 % at strength 1.5** is the gentlest setting of 20" in caption.value for caption in app.caption)
    assert press(app, "Unchanged model").session_state[keys.OPEN_AT] == (None, 0.0)
    assert press(app, "0.4 %, strength 1.5").session_state[keys.OPEN_AT] == (0.4, 1.5)
    app.session_state[keys.STRENGTH] = 0.5
    assert press(app.run(), "The paper's 0.1 %, strength 1").session_state[keys.OPEN_AT] == (0.1, 1.0)


def test_the_sidebar_sets_what_was_asked_for(empty_cache: Path) -> None:
    app = AppTest.from_file(str(APP), default_timeout=WAIT_SECONDS)
    app.session_state[keys.OPEN_AT] = (0.4, 1.5)
    app.run()
    assert app.select_slider(key=keys.SIZE).value == 0.4
    assert app.session_state[keys.STRENGTH] == 1.5
    assert keys.OPEN_AT not in app.session_state


def test_its_examples_are_prompts_that_this_model_refuses(chat: Callable[..., AppTest], found: None) -> None:
    labels = [button.label for button in chat().run().button]
    assert {*FOUND.refused, *FOUND.over_refused} <= set(labels)


def test_a_model_that_is_not_loaded_is_searched_only_on_request(
    chat: Callable[..., AppTest], monkeypatch: pytest.MonkeyPatch
) -> None:
    searches: list[tuple[float, ...]] = []
    monkeypatch.setattr(first_setting, "_key", lambda: "the search")
    monkeypatch.setattr(first_setting, "cached_openings", meter.cached_openings)
    monkeypatch.setattr(first_setting, "_circuits", lambda: {0.001: None})
    monkeypatch.setattr(first_setting, "known_first_setting", lambda *_: None)
    monkeypatch.setattr(
        first_setting, "search_first_setting", lambda _m, sizes, *_, **__: searches.append(tuple(sizes))
    )
    app = chat()
    assert not searches
    assert not host.loaded()
    app.button(key="first-setting-search").click().run()
    finished(jobs.get("the search"))
    assert searches == [(0.001,)]
    assert not app.exception


def test_chat_stays_where_a_person_has_set_it(chat: Callable[..., AppTest], found: None) -> None:
    assert keys.OPEN_AT not in chat(strength=0.5).run().session_state


def test_the_search_says_where_no_setting_halves_refusals() -> None:
    assert "None of 20 settings" in first_setting.describe(replace(FOUND, fraction=None, strength=None))
    assert "refuses hardly any" in first_setting.describe(FirstSetting())
