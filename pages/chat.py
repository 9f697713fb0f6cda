"""Chat: one message, two answers from one decode, side by side; the gate meter above them."""

import importlib.metadata
import time
from typing import Any

import numpy as np
import streamlit as st

from cna_core.circuits.circuit import Circuit
from cna_core.decoding.conversation import Conversation, Turn
from cna_core.errors import CircuitError, CnaError
from cna_core.figures.lanes import token_trace
from cna_core.interventions import registry
from cna_core.paths import ASSETS
from pages.chatting import asking, examples, learning, meter, stream
from pages.chatting.answers import answer_markup, colour_of, message_markup, name_of
from pages.common import chosen_circuit, first_steps, jobs, keys, style

DRAW_SECONDS = 0.25


def draw() -> None:
    st.html(ASSETS / "theme" / "chat.css")
    st.title("What happens when the gate is turned?")
    circuit = chosen_circuit.current()
    if circuit is None:
        _teach()
        return
    conversation, running = _conversation(), _stream()
    busy = running is not None and not running.finished
    # Each part has a place of its own that is always there: a place that came and went would move those after it, and
    # what stood there before would stay on the page until this run ends.
    dial = st.container(gap=None)
    with st.container(horizontal=True, vertical_alignment="center", gap="small", key="chat-ask"):
        # Not pinned to the bottom of the window: that would also scroll slider and meter out of sight.
        st.chat_input(
            "Type a message for both …", key="chat-message", disabled=busy, on_submit=_send_typed, args=(circuit,)
        )
        with st.popover("Settings", icon=":material/tune:"):
            _settings()
        # Renamed with every turn, so that it is closed once an example was sent.
        with st.popover("Examples", icon=":material/lightbulb:", disabled=busy, key=f"chat-examples-{_sent()}"):
            examples.draw(_send, circuit, "popover")
    with st.container(gap="small", key="chat-turns"):
        if not conversation.turns:
            st.subheader("Try one of these")
            examples.draw(_send, circuit, "page")
        elif running is not None and busy:
            _growing_turn(running, conversation.turns[-1])
        else:
            _last_turn(circuit, conversation)
        _earlier_turns(conversation)
    with dial:  # last, because it may ask the model: everything else is on the page by then
        last = conversation.turns[-1].message if conversation.turns else ""
        meter.draw(circuit, last, asking.setting("chat-system", ""), busy)


def _teach() -> None:
    st.markdown(
        "One message, two answers at the same moment: the model as it is, and with its refusal circuit turned down. "
        "**It needs the circuit first.**"
    )
    first_steps.offer()


# --- state ---


def _conversation() -> Conversation:
    return st.session_state.setdefault("conversation", Conversation())


def _stream() -> jobs.Job | None:
    return st.session_state.get("chat-stream")


def _sent() -> int:
    """How many messages this session has sent."""
    return int(st.session_state.get("chat-sent", 0))


# --- sending ---


def _send_typed(circuit: Circuit) -> None:
    _send(str(st.session_state["chat-message"] or ""), circuit)


def _send(message: str, circuit: Circuit) -> None:
    """Begin a new turn."""
    running = _stream()
    if running is not None and not running.finished:
        return  # a second click on the same button, sent before the first one's page came
    message = message.replace("\r\n", "\n")
    if not message.strip():
        st.toast("The message is empty; write something to ask.")
        return
    conversation = _conversation()
    try:
        asked = asking.request(message, circuit, conversation)
    except CnaError as error:
        st.toast(str(error))
        return
    turn = Turn(message, [lane.answer for lane in asked.lanes], asked.settings)
    conversation.turns.append(turn)
    learning.make_way()
    st.session_state["chat-sent"] = _sent() + 1
    st.session_state["chat-stream"] = stream.start(turn, asked)


def _again(circuit: Circuit, message: str | None = None) -> None:
    """Answer the last message again, or another one in its place."""
    turns = _conversation().turns
    if turns:
        _send(message if message is not None else turns.pop().message, circuit)


def _replace(circuit: Circuit) -> None:
    edited = str(asking.setting("chat-edited", ""))
    if not edited.strip():
        st.toast("The message is empty; write something to ask.")
        return
    _conversation().turns.pop()
    st.session_state["chat-editing"] = False
    _send(edited, circuit)


def _edit() -> None:
    st.session_state["chat-editing"] = not st.session_state.get("chat-editing", False)


def _clear() -> None:
    st.session_state["conversation"] = Conversation()
    st.session_state["chat-stream"] = None
    st.session_state["chat-editing"] = False


# --- controls ---


def _turn_bar(turn: Turn, circuit: Circuit, conversation: Conversation) -> None:
    """The message, and what can be done with it and its answers."""
    with st.container(horizontal=True, vertical_alignment="center", gap="xsmall", key="chat-turn-bar"):
        st.html(message_markup(turn), width="stretch")
        _tokens_toggle()
        quiet: dict[str, Any] = {"type": "tertiary"}
        st.button("Again", icon=":material/refresh:", on_click=_again, args=(circuit,), key="chat-again", **quiet)
        st.button("Edit", icon=":material/edit:", on_click=_edit, key="chat-edit-last", **quiet)
        st.button("Clear", icon=":material/delete_sweep:", on_click=_clear, key="chat-clear", **quiet)
        with st.popover("Export", icon=":material/download:", **quiet):
            _export(circuit, conversation)


def _tokens_toggle() -> None:
    st.toggle(
        "Token by token",
        key="chat-tokens",
        persist_state="session",
        help="Under each answer: how active the circuit was, and how far steering moved each token's distribution.",
    )


def _settings() -> None:
    keep: dict[str, Any] = {"persist_state": "session"}
    own = "None: the chat template's own, if it has one."
    st.text_area("System prompt", key="chat-system", height=80, placeholder=own, **keep)
    _method_choice("Method of the steered lane", keys.METHOD, bind="query-params")
    st.selectbox(
        "Third lane",
        list(asking.THIRD_LANES),
        key="chat-third",
        help="The random control is the method's random twin, such as as many other neurons of the same layers: "
        "steering it should do nothing.",
        **keep,
    )
    if st.session_state.get("chat-third") == "another method":
        _method_choice("Its method", "chat-third-method")
    if st.session_state.get("chat-third") == "another strength":
        st.number_input(
            "Its strength", -1.0, meter.highest(), min(0.5, meter.highest()), 0.05, key="chat-other", **keep
        )
    st.checkbox("All lanes continue from the baseline's history", key="chat-shared", **keep)
    st.checkbox(
        "Steer written tokens only",
        key="chat-written-only",
        help="The message is read by the untouched model; steering begins with the answer's second token.",
        **keep,
    )
    left, right = st.columns(2)
    left.number_input("Longest answer, tokens", 1, 4096, 200, 10, key="chat-longest", **keep)
    left.number_input("Temperature (0: greedy)", 0.0, 5.0, 0.0, 0.1, key="chat-temperature", **keep)
    left.number_input("Repetition penalty", 0.5, 3.0, 1.0, 0.05, key="chat-penalty", **keep)
    right.number_input("Top-p", 0.01, 1.0, 1.0, 0.05, key="chat-top-p", **keep)
    right.number_input("Top-k (0: all)", 0, 1000, 0, 5, key="chat-top-k", **keep)
    right.number_input("Seed", 0, 2**31 - 1, 0, key="chat-seed", **keep)
    st.caption("With sampling, lanes share their random numbers: only steering makes them differ.")


def _method_choice(label: str, key: str, **options: Any) -> None:
    known = registry.methods()
    st.selectbox(
        label,
        [method.key for method in known],
        key=key,
        format_func=lambda chosen: registry.method(chosen).label,
        help="  \n".join(f"**{method.label}**: {method.title}." for method in known),
        persist_state="session",
        **options,
    )


def _export(circuit: Circuit, conversation: Conversation) -> None:
    about = {
        "model": circuit.model.model_dump(mode="json"),
        "circuit_sha256": circuit.sha256,
        "circuit_settings": circuit.settings.model_dump(mode="json"),
        "versions": {name: importlib.metadata.version(name) for name in ("torch", "transformers")},
    }
    name = f"conversation-{time.strftime('%Y%m%d-%H%M%S')}"
    st.download_button(
        "JSON: every setting and token",
        lambda: conversation.to_json(about),
        f"{name}.json",
        "application/json",
        on_click="ignore",
    )
    st.download_button(
        "Markdown: to read", lambda: conversation.to_markdown(about), f"{name}.md", "text/markdown", on_click="ignore"
    )


# --- turns ---


def _last_turn(circuit: Circuit, conversation: Conversation) -> None:
    turn = conversation.turns[-1]
    _turn_bar(turn, circuit, conversation)
    if st.session_state.get("chat-editing"):
        with st.form("chat-edit"):
            st.text_area("The last message", turn.message, key="chat-edited")
            st.form_submit_button("Send in its place", on_click=_replace, args=(circuit,), type="primary")
    _draw_answers(turn)
    if turn.error is None and st.session_state.get("chat-tokens"):
        _draw_traces(turn)


def _growing_turn(running: jobs.Job, turn: Turn) -> None:
    """The turn that is being written, with Stop beside it."""
    with st.container(horizontal=True, vertical_alignment="center", gap="xsmall", key="chat-turn-bar"):
        st.html(message_markup(turn), width="stretch")
        _tokens_toggle()
        st.button("Stop", icon=":material/stop:", on_click=running.stop.set, type="primary", key="chat-stop")
    _growing_answers(running, turn)


@st.fragment(run_every=DRAW_SECONDS)
def _growing_answers(running: jobs.Job, turn: Turn) -> None:
    """The answers as far as they are, drawn anew until the stream has ended; then the page is drawn once."""
    if running.finished:
        st.rerun()
    for column, answer in zip(st.columns(len(turn.answers), gap="medium"), turn.answers, strict=True):
        column.html(answer_markup(answer, turn, running.line))


def _earlier_turns(conversation: Conversation) -> None:
    for number, turn in reversed(list(enumerate(conversation.turns[:-1], 1))):
        st.divider()
        st.caption(f"Message {number}")
        st.html(message_markup(turn))
        _draw_answers(turn)


def _draw_answers(turn: Turn) -> None:
    """One column a lane."""
    if turn.error is not None:
        st.error(turn.error, icon=":material/error:")
        if not any(answer.token_ids for answer in turn.answers):
            return
    for column, answer in zip(st.columns(len(turn.answers), gap="medium"), turn.answers, strict=True):
        column.html(answer_markup(answer, turn))


def _draw_traces(turn: Turn) -> None:
    """Activity strip and divergence line under each answer of the turn, on common axes."""
    measured = [answer for answer in turn.answers if answer.token_ids and answer.activity[0] is not None]
    if not measured:
        st.caption("This answer was not measured token by token: press *Again*, and the next one is.")
        return
    activity = [np.array(answer.activity, dtype=np.float64) for answer in measured]
    divergence = [np.array(a.divergence, dtype=np.float64) for a in measured if a.kind != "baseline"]
    limits: dict[str, Any] = {
        "activity_limit": max(float(np.abs(values).max()) for values in activity),
        "divergence_limit": max((float(values.max()) for values in divergence), default=0.0),
        "shown_tokens": max(len(answer.token_ids) for answer in measured),
    }
    for column, answer, values in zip(st.columns(len(measured), gap="medium"), measured, activity, strict=True):
        baseline = answer.kind == "baseline"
        figure = token_trace(
            answer.pieces,
            values,
            None if baseline else np.array(answer.divergence, dtype=np.float64),
            **limits,
            parted_at=None if baseline else answer.parts_from(turn.answers[0]),
            colour=colour_of(answer),
            dark=style.is_dark(),
        )
        column.plotly_chart(
            figure,
            key=f"trace-{answer.kind}-{turn.sent_at}",
            config={"displayModeBar": False},
            alt=f"Circuit activity and divergence, token by token: {name_of(answer)}",
        )
    st.caption(
        "**How to read this.** The strip: the circuit's mean activation while each token was chosen, vermilion as on "
        "refused prompts, blue the other way; an ablated circuit is blank. The line: KL divergence, in nats, of the "
        "steered next-token distribution from the untouched model's that has read the same answer so far; the dotted "
        "line is where the answers part."
    )


try:
    draw()
except CircuitError as problem:
    st.error(str(problem))
