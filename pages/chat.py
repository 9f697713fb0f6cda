"""Chat: one message, two answers from one decode side by side, and the gate meter above them."""

import importlib.metadata
import time
from typing import Any

import streamlit as st

from cna_core.circuits.circuit import Circuit
from cna_core.decoding.conversation import Conversation, Turn
from cna_core.errors import CircuitError, CnaError
from cna_core.interventions import registry
from cna_core.paths import ASSETS
from pages.chatting import asking, branching, calibration, examples, first_setting, inspector, meter, thinking
from pages.chatting.answers import answer_markup, message_markup
from pages.common import chosen_circuit, first_steps, jobs, keys, reporting
from pages.common.plain import tell_error, toast

DRAW_SECONDS = 0.25


def draw() -> None:
    st.html(ASSETS / "theme" / "chat.css")
    st.title("What does steering change in an answer?")
    circuit = chosen_circuit.current()
    if circuit is None:
        _teach()
        return
    _send_asked(circuit)
    conversation, running = _conversation(), _stream()
    setting = first_setting.known(circuit)
    first_setting.open_there(setting, asked=bool(conversation.turns))
    busy = running is not None and not running.finished
    # Each part has its own container, which always exists. A container that came and went would shift those after it,
    # and its old content would stay on the page until this run ends.
    dial = st.container(gap=None)
    with st.container(horizontal=True, vertical_alignment="center", gap="small", key="chat-ask"):
        # Not pinned to the bottom of the window: that would scroll the slider and the meter out of sight.
        st.chat_input(
            "Message to both models …", key="chat-message", disabled=busy, on_submit=_send_typed, args=(circuit,)
        )
        with st.popover("Settings", icon=":material/tune:"):
            _settings()
        # The key changes with every turn, so the popover closes after an example is sent.
        with st.popover("Examples", icon=":material/lightbulb:", disabled=busy, key=f"chat-examples-{_sent()}"):
            examples.draw(_send, circuit, "popover", setting)
    with st.container(gap=None, key="chat-first"):
        first_setting.draw(circuit, setting, busy)
    with st.container(gap="small", key="chat-turns"):
        if not conversation.turns:
            st.subheader("Try one of these")
            examples.draw(_send, circuit, "page", setting)
        elif running is not None and busy:
            _growing_turn(running, conversation.turns[-1])
        else:
            _last_turn(circuit, conversation)
        _earlier_turns(conversation)
    with dial:  # last, because it may run the model: everything else is on the page by then
        last = conversation.turns[-1].message if conversation.turns else st.session_state.get(keys.METER_MESSAGE, "")
        meter.draw(circuit, last, asking.setting("chat-system", ""), busy)


def _teach() -> None:
    st.markdown(
        "Send one message and read two answers side by side: from the unchanged model, and from the model with its "
        "refusal circuit scaled down. **Find the circuit first.**"
    )
    first_steps.offer()


# --- state ---


def _conversation() -> Conversation:
    return st.session_state.setdefault("conversation", Conversation())


def _stream() -> jobs.Job | None:
    return st.session_state.get("chat-stream")


def _sent() -> int:
    """The number of messages this session has sent."""
    return int(st.session_state.get("chat-sent", 0))


# --- sending ---


def _send_asked(circuit: Circuit) -> None:
    """Send what another page or the tour has asked for, once no answer is being written."""
    running = _stream()
    if running is not None and not running.finished:
        return
    if st.session_state.pop(keys.CHAT_AGAIN, False):
        _again(circuit)
    if asked := st.session_state.pop(keys.CHAT_MESSAGE, None):
        _send(asked, circuit)


def _send_typed(circuit: Circuit) -> None:
    _send(str(st.session_state["chat-message"] or ""), circuit)


def _send(message: str, circuit: Circuit) -> None:
    """Start a new turn."""
    running = _stream()
    if running is not None and not running.finished:
        return  # a second click on the same button, sent before the page showed the first
    message = message.replace("\r\n", "\n")
    if not message.strip():
        st.toast("The message is empty. Type something first.")
        return
    conversation = _conversation()
    try:
        asked = asking.request(message, circuit, conversation)
    except CnaError as error:
        toast(error)
        return
    turn = Turn(message, [lane.answer for lane in asked.lanes], asked.settings)
    conversation.turns.append(turn)
    calibration.pause_for_answer()
    first_setting.pause_for_answer()
    st.session_state["chat-sent"] = _sent() + 1
    branching.start(conversation, turn, asked)


def _again(circuit: Circuit, message: str | None = None) -> None:
    """Answer the last message again, or a different message in its place."""
    turns = _conversation().turns
    if turns:
        _send(message if message is not None else _conversation().drop_last().message, circuit)


def _replace(circuit: Circuit) -> None:
    edited = str(asking.setting("chat-edited", ""))
    if not edited.strip():
        st.toast("The message is empty. Type something first.")
        return
    _conversation().drop_last()
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
    """The message, and buttons for it and its answers."""
    with st.container(horizontal=True, vertical_alignment="center", gap="xsmall", key="chat-turn-bar"):
        st.html(message_markup(turn), width="stretch")
        _tokens_toggle()
        quiet: dict[str, Any] = {"type": "tertiary"}
        st.button("Regenerate", icon=":material/refresh:", on_click=_again, args=(circuit,), key="chat-again", **quiet)
        st.button("Edit", icon=":material/edit:", on_click=_edit, key="chat-edit-last", **quiet)
        st.button("Clear", icon=":material/delete_sweep:", on_click=_clear, key="chat-clear", **quiet)
        with st.popover("Export", icon=":material/download:", **quiet):
            _export(circuit, conversation)


def _tokens_toggle() -> None:
    st.toggle(
        "Token by token",
        key="chat-tokens",
        persist_state="session",
        help="Click a token of an answer to see what else could have come there and which neurons fired, and go on "
        "from another token. Maps under the answers show the circuit in each layer, token by token.",
    )


def _settings() -> None:
    keep: dict[str, Any] = {"persist_state": "session"}
    own = "Empty: the chat template's default, if it has one."
    st.text_area("System prompt", key="chat-system", height=80, placeholder=own, **keep)
    _method_choice("Method of the steered answer", keys.METHOD, bind="query-params")
    st.selectbox(
        "Third answer",
        list(asking.THIRD_LANES),
        key="chat-third",
        help="A random twin is a method's control, for example the same number of other neurons in the same layers. "
        "Steering it should change little.",
        **keep,
    )
    if st.session_state.get("chat-third") == "another method":
        _method_choice("Its method", "chat-third-method")
    if st.session_state.get("chat-third") == "another strength":
        st.number_input(
            "Its strength", -1.0, meter.highest(), min(0.5, meter.highest()), 0.05, key="chat-other", **keep
        )
    thinking.draw_settings()
    st.checkbox("All answers continue the baseline's conversation", key="chat-shared", **keep)
    st.checkbox(
        "Steer generated tokens only",
        key="chat-written-only",
        help="The unsteered model reads the message. Steering starts with the answer's second token.",
        **keep,
    )
    left, right = st.columns(2)
    left.number_input("Maximum answer length, tokens", 1, 4096, 200, 10, key="chat-longest", **keep)
    left.number_input("Temperature (0 = greedy)", 0.0, 5.0, 0.0, 0.1, key="chat-temperature", **keep)
    left.number_input("Repetition penalty", 0.5, 3.0, 1.0, 0.05, key="chat-penalty", **keep)
    right.number_input("Top-p", 0.01, 1.0, 1.0, 0.05, key="chat-top-p", **keep)
    right.number_input("Top-k (0 = all)", 0, 1000, 0, 5, key="chat-top-k", **keep)
    right.number_input("Seed", 0, 2**31 - 1, 0, key="chat-seed", **keep)
    st.caption("With sampling, all answers use the same random numbers, so only steering makes them differ.")


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
        "JSON (every setting and token)",
        lambda: conversation.to_json(about),
        f"{name}.json",
        "application/json",
        on_click="ignore",
    )
    st.download_button(
        "Markdown (for reading)",
        lambda: conversation.to_markdown(about),
        f"{name}.md",
        "text/markdown",
        on_click="ignore",
    )
    reporting.of_conversation("chat-report", conversation, circuit)


# --- turns ---


def _last_turn(circuit: Circuit, conversation: Conversation) -> None:
    turn = conversation.turns[-1]
    _turn_bar(turn, circuit, conversation)
    if st.session_state.get("chat-editing"):
        with st.form("chat-edit"):
            st.text_area("Last message", turn.message, key="chat-edited")
            st.form_submit_button("Send instead", on_click=_replace, args=(circuit,), type="primary")
    branching.draw_versions(conversation)
    if turn.error is None and st.session_state.get("chat-tokens") and any(a.token_ids for a in turn.answers):
        inspector.draw(circuit, conversation, turn)
    else:
        _draw_answers(turn)


def _growing_turn(running: jobs.Job, turn: Turn) -> None:
    """The turn whose answers are being generated, with a Stop button."""
    with st.container(horizontal=True, vertical_alignment="center", gap="xsmall", key="chat-turn-bar"):
        st.html(message_markup(turn), width="stretch")
        _tokens_toggle()
        st.button("Stop", icon=":material/stop:", on_click=running.stop.set, type="primary", key="chat-stop")
    _growing_answers(running, turn)


@st.fragment(run_every=DRAW_SECONDS)
def _growing_answers(running: jobs.Job, turn: Turn) -> None:
    """The answers so far, redrawn until the stream ends; then the whole page is redrawn once."""
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
    """One column for each lane."""
    if turn.error is not None:
        tell_error(turn.error, icon=":material/error:")
        if not any(answer.token_ids for answer in turn.answers):
            return
    for column, answer in zip(st.columns(len(turn.answers), gap="medium"), turn.answers, strict=True):
        column.html(answer_markup(answer, turn))


try:
    draw()
except CircuitError as problem:
    tell_error(problem)
