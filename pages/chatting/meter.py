"""The strength slider and the gate meter: see the effect of the slider before anything is generated.

The meter shows the message in the input field while it is typed, or, if the field is empty, the last message sent. It
reads that message without the conversation before it, so it stays fast in a long conversation. If there is no curve
(calibration is running, or the model is busy), a message takes the curve's place.
"""

import html
import threading
import time
from pathlib import Path

import numpy as np
import pandas as pd
import streamlit as st
from numpy.typing import NDArray

from cna_core.circuits.circuit import Circuit
from cna_core.errors import CnaError, PromptError, StoppedError
from cna_core.evaluation.gate_meter import METER_STRENGTHS, cached_openings, refusal_chance
from cna_core.figures.lanes import STRENGTH_MARKS, gate_meter
from cna_core.interventions import registry
from cna_core.limits import allowed, strength_limit
from cna_core.models.host import host
from cna_core.progress import Progress, Stage
from cna_core.progress_words import counted
from cna_core.prompts.chat_format import as_messages
from pages.chatting import calibration, thinking
from pages.chatting.methods import chosen_method, fitted_earlier
from pages.chatting.prefixes import prefixes_of
from pages.common import charts, keys, session, style
from pages.common.plain import plain, tell_error
from pages.common.recent import Recent

CURVES_KEPT = 64
METER_HEIGHT = 118
PATIENCE_SECONDS = 1.0
"""How long the meter waits for a model in use; this person's own last request may just be letting go of it."""

_draft = st.components.v2.component(
    "refusal_gate_draft", js=Path(__file__).with_name("draft.js").read_text(encoding="utf-8")
)


def strength() -> float:
    """The slider's value."""
    return float(st.session_state.get(keys.STRENGTH, min(1.0, highest())))


def highest() -> float:
    """The slider's upper end: 2, or less where this installation allows less."""
    return min(2.0, strength_limit())


@st.fragment
def draw(circuit: Circuit, last_message: str, system: str, busy: bool) -> None:
    """Slider, multiplier and meter; typing and sliding redraw only these.

    Args:
        last_message: shown on the meter while the input is empty.
        system: the system prompt.
        busy: whether an answer is being generated; the meter waits until it is finished.
    """
    left, right = st.columns([7, 1])
    with left.container(gap=None, key="chat-dial"):
        st.slider(
            "Strength of steering",
            -1.0,
            highest(),
            min(1.0, highest()),
            0.05,
            key=keys.STRENGTH,
            bind="query-params",
            persist_state="session",
            help="0: the unchanged model. 1: the circuit is ablated. 2: its activations are inverted. −1: doubled.",
        )
        st.html(_marks_markup())
        meter = st.container(gap=None)
    at, method = strength(), registry.method(chosen_method())
    how = f"× {1 - at:.2f}".replace("-", "−") if method.uses_circuit else method.label
    what = counted(len(circuit), "neuron") if method.uses_circuit else f"strength {at:g}".replace("-", "−")
    right.html(f'<div class="multiplier"><b>{how}</b><br><span>{what}</span></div>')
    draft = _draft(key="draft", default={"text": ""}, on_text_change=_nothing)
    message = (draft.text or "").strip() or last_message
    with meter:
        _meter(circuit, message, system, at, busy)


def place_markup(words: str, share: float | None = None) -> str:
    """A message in place of the curve, of the same height. `share`, from 0 to 1, is drawn as a progress bar."""
    bar = "" if share is None else f'<i style="width: {100 * min(1.0, share):.1f}%"></i>'
    return f'<div class="meter-place" data-testid="meter-place"><span>{html.escape(words)}</span>{bar}</div>'


def _meter(circuit: Circuit, message: str, system: str, at: float, busy: bool) -> None:
    if cached_openings(circuit.model) is None:
        calibration.draw(circuit, busy, place_markup)
        return
    if not message.strip():
        _say("Type a message to see how likely its answer is to open as a refusal, at every strength.")
        return
    curve = _known_curve(circuit, message, system)
    if curve is None and busy:
        _say("The meter updates when the answer is finished.")
        return
    if curve is None:
        curve = _asked(circuit, message, system)
    if curve is None:
        return
    shown = message if len(message) < 60 else f"{message[:57]}…"
    strengths = np.array(allowed(METER_STRENGTHS))
    charts.show(
        gate_meter(strengths, curve, at, height=METER_HEIGHT, dark=style.is_dark()),
        "gate-meter",
        "The chance at each strength that the answer opens as this model's refusals do, from the first token's "
        "probabilities. Nothing is generated.",
        data=pd.DataFrame({"strength": strengths, "refusal_chance": curve}),
        always=f"For “{plain(shown)}”, asked without the conversation.{thinking.meter_note()}",
    )


def _asked(circuit: Circuit, message: str, system: str) -> NDArray[np.float64] | None:
    """The curve from the model; None if the model cannot be used now, and then the reason is drawn."""
    name, options = session.model_name(), session.load_options()
    if name not in host.loaded():
        _say("The model is not in memory. Your next message loads it; then the meter appears.")
        return None
    stop, patience_ends = threading.Event(), time.monotonic() + PATIENCE_SECONDS

    def leave_the_queue(progress: Progress) -> None:
        if progress.stage is Stage.WAITING_FOR_MODEL and time.monotonic() > patience_ends:
            stop.set()

    try:
        with host.acquire(name, **options, stop=stop, progress=leave_the_queue) as model:
            openings = cached_openings(model.identity)
            if openings is None:  # a model other than the circuit's was loaded under this name
                _say("The meter is not calibrated for this model. Find its gate first.")
                return None
            messages, prefixes = as_messages(message, system), prefixes_of(model)
            strengths = allowed(METER_STRENGTHS)
            method = fitted_earlier(model, chosen_method(), circuit, session.contrast())
            if method is None:
                _say("This method is fitted with its first answer. Send a message; then the meter appears.")
                return None
            curve = refusal_chance(
                model, circuit, messages, strengths, openings, method=method, prefixes=prefixes, stop=stop
            )
    except StoppedError:
        _say("The model is in use. The meter updates with your next change.")
        return None
    except PromptError as error:
        _say(str(error))
        return None
    except CnaError as error:
        tell_error(error)
        return None
    _curves().put(_curve_key(circuit, message, system), curve)
    return curve


def _curves() -> Recent[NDArray[np.float64]]:
    return st.session_state.setdefault(keys.METER_CURVES, Recent(CURVES_KEPT))


def _known_curve(circuit: Circuit, message: str, system: str) -> NDArray[np.float64] | None:
    return _curves().get(_curve_key(circuit, message, system))


def _curve_key(circuit: Circuit, message: str, system: str) -> tuple[str, ...]:
    return (session.model_name(), str(session.load_options()), circuit.sha256, chosen_method(), message, system)


def _marks_markup() -> str:
    """The scale shared by the slider and the meter."""
    width = highest() + 1
    marks = "".join(
        f'<span style="left: {100 * (mark + 1) / width:.3f}%"><b>{f"{mark:g}".replace("-", "−")}</b> {name}</span>'
        for mark, name in STRENGTH_MARKS.items()
        if mark <= highest()
    )
    return f'<div class="strength-marks">{marks}</div>'


def _say(words: str) -> None:
    st.html(place_markup(words))


def _nothing() -> None:
    """A component reports its state only if a callback is given."""
