"""The five steps of the tour: what each says, and what it sets and asks when somebody goes there."""

from collections.abc import Callable
from dataclasses import dataclass

import streamlit as st

from cna_core.circuits.circuit import Circuit
from cna_core.decoding.conversation import Answer, Conversation, LaneKind, Turn
from cna_core.progress_words import counted
from pages.chatting import examples, first_setting, meter
from pages.chatting.answers import outcome_of
from pages.common import address, keys
from pages.touring.route import answer_seen


def _nothing(_circuit: Circuit) -> None:
    pass


@dataclass(frozen=True)
class Step:
    """One step.

    Args:
        words: what its card says of a circuit, as Markdown: at most two short sentences.
        enter: sets what the step shows; runs nothing.
        ask: has Chat answer, after a person's click on `ask_label`.
        ask_label: the button of the step before, and of this one until it is done; "" if nothing is asked.
        asked: whether `ask` has been done.
    """

    words: Callable[[Circuit], str]
    enter: Callable[[Circuit], None] = _nothing
    ask: Callable[[Circuit], None] = _nothing
    ask_label: str = ""
    asked: Callable[[Circuit], bool] = lambda _circuit: True


# --- the map and one neuron ---


def _map(circuit: Circuit) -> str:
    do = "act" if circuit.settings.score == "attribution-patching" else "differ"
    return (
        "Every cell is a neuron: orange where it is more active on requests that the model refuses, blue where less. "
        f"The dots are the circuit, the **{counted(len(circuit), 'neuron')}** that {do} most."
    )


def _neuron(circuit: Circuit) -> str:
    layer, neuron = address.selected_neuron() or (circuit.layers[0], circuit.neurons[0])
    return (
        f"Layer {layer}, neuron {neuron} is one of them: on the right, each dot is a prompt, orange if the model "
        "refuses it. Under the dots are the tokens that it promotes."
    )


def _pick_first(circuit: Circuit) -> None:
    address.select_neuron(circuit.layers[0], circuit.neurons[0])


# --- the slider ---


def _slider(circuit: Circuit) -> str:
    at, size = f"{meter.strength():g}".replace("-", "−"), counted(len(circuit), "neuron")
    return (
        f"At 0 the model is unchanged, at 1 the circuit ({size}) is ablated; the slider stands at **{at}**. The curve "
        "shows how likely the answer to an example is to open as a refusal: move the slider along it."
    )


def _set_strength(circuit: Circuit) -> None:
    st.session_state[keys.METER_MESSAGE] = _example(circuit)
    setting = first_setting.known(circuit)
    if setting is not None and setting.fraction is not None and setting.strength is not None:
        first_setting.go_to(setting.fraction, setting.strength)
    else:
        first_setting.go_to(None, min(1.0, meter.highest()))


# --- two answers, and the control ---


def _example(circuit: Circuit) -> str:
    """A benign request that this model refuses, if a search has found one; else one that cautious models refuse."""
    setting = first_setting.known(circuit)
    found = (*setting.over_refused, *setting.refused) if setting is not None else ()
    return next(iter(found), examples.EXAMPLES["Borderline"][1][0])


def _last_turn() -> Turn | None:
    conversation: Conversation | None = st.session_state.get("conversation")
    return conversation.turns[-1] if conversation is not None and conversation.turns else None


def _answer(kind: LaneKind) -> Answer | None:
    """The last turn's answer in this lane, once all its answers are written."""
    turn = _last_turn()
    if turn is None or not answer_seen().ended:
        return None
    return next((answer for answer in turn.answers if answer.kind == kind), None)


def _outcome(kind: LaneKind) -> str:
    answer = _answer(kind)
    return (outcome_of(answer) or "no answer") if answer is not None else ""


def _two_answers(circuit: Circuit) -> str:
    baseline, steered = _outcome("baseline"), _outcome("steered")
    if baseline and steered:
        said = f"Baseline: **{baseline}**. Steered: **{steered}**."
        return said if baseline != steered else f"{said} Here both say alike: try another example or strength."
    setting = first_setting.known(circuit)
    if setting is not None and not (setting.refused or setting.over_refused):
        return "This model refuses none of the examples, so expect two answers that differ little."
    return "The unchanged model and the steered one get the same request, which a cautious model refuses."


def _ask_both(circuit: Circuit) -> None:
    if not _two_asked(circuit):
        st.session_state[keys.CHAT_MESSAGE] = _example(circuit)


def _two_asked(_circuit: Circuit) -> bool:
    return _last_turn() is not None or keys.CHAT_MESSAGE in st.session_state


def _control(_circuit: Circuit) -> str:
    twin, steered = _outcome("random"), _outcome("steered")
    if not twin:
        return "Would any neurons do this? A random twin steers as many other neurons of the same layers."
    return (
        f"Steered: **{steered}**. Random twin, as many other neurons of the same layers: **{twin}**. One request is an "
        "example; Evaluate counts many."
    )


def _ask_twin(circuit: Circuit) -> None:
    st.session_state["chat-third"] = "random twin"
    if _twin_asked(circuit):
        return
    if _last_turn() is None:
        st.session_state[keys.CHAT_MESSAGE] = _example(circuit)
        return
    st.session_state[keys.CHAT_AGAIN] = True
    running = st.session_state.get("chat-stream")
    if running is not None and not running.finished:
        running.stop.set()  # it is asked again with a third answer


def _twin_asked(_circuit: Circuit) -> bool:
    turn, waits = _last_turn(), {keys.CHAT_AGAIN, keys.CHAT_MESSAGE} & set(st.session_state)
    return bool(waits) or (turn is not None and any(answer.kind == "random" for answer in turn.answers))


STEPS = (
    Step(_map),
    Step(_neuron, _pick_first),
    Step(_slider, _set_strength),
    Step(_two_answers, ask=_ask_both, ask_label="Ask both models", asked=_two_asked),
    Step(_control, ask=_ask_twin, ask_label="Ask a random twin", asked=_twin_asked),
)
"""In the order of `route.STOPS`."""
