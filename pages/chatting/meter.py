"""The strength slider and the gate meter under it: what the slider does is seen before anything is generated.

The meter shows the message that stands in the input, as it is typed; with an empty input, the last message sent. It is
asked on its own, without the conversation before it, so that it stays fast however long the conversation is.
"""

import threading
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pandas as pd
import streamlit as st
from numpy.typing import NDArray

from cna_core.circuits.circuit import Circuit
from cna_core.errors import CnaError, PromptError, StoppedError
from cna_core.evaluation.gate_meter import METER_STRENGTHS, cached_openings, calibrate_openings, refusal_chance
from cna_core.figures.lanes import gate_meter
from cna_core.models.host import host
from cna_core.prompts.chat_format import as_messages
from cna_core.prompts.sets import ContrastSet
from cna_core.steering.prefix_cache import PrefixCaches
from pages.chatting.stream import Prefixes, prefix_caches
from pages.common import charts, jobs, session, style

STRENGTH = "strength"
CURVES_KEPT = 64
METER_HEIGHT = 140
_LEARNING, _MADE_WAY = "openings-learning", "openings-made-way"

_draft = st.components.v2.component(
    "refusal_gate_draft", js=Path(__file__).with_name("draft.js").read_text(encoding="utf-8")
)


def strength() -> float:
    """The slider's value."""
    return float(st.session_state.get(STRENGTH, 1.0))


@st.fragment
def draw(circuit: Circuit, last_message: str, system: str, busy: bool) -> None:
    """Slider, multiplier and meter; typing and sliding redraw these alone.

    Args:
        last_message: shown on the meter while the input is empty.
        system: the system prompt.
        busy: an answer is being written: the meter waits for its end.
    """
    left, right = st.columns([7, 1])
    with left:
        st.slider(
            "Strength: how far the circuit is turned down",
            -1.0,
            2.0,
            1.0,
            0.05,
            key=STRENGTH,
            bind="query-params",
            persist_state="session",
            help="0 leaves the model as it is, 1 takes the circuit out, 2 inverts it, −1 doubles it.",
        )
    at = strength()
    multiplier = f"× {1 - at:.2f}".replace("-", "−")
    right.html(f'<div class="multiplier"><b>{multiplier}</b><br><span>{len(circuit):,} neurons</span></div>')
    draft = _draft(key="draft", default={"text": ""}, on_text_change=_nothing)
    message = (draft.text or "").strip() or last_message
    with left:
        _meter(circuit, message, system, at, busy)


def _meter(circuit: Circuit, message: str, system: str, at: float, busy: bool) -> None:
    if not message.strip():
        _placeholder("Type a message below: here you see how likely its answer is to open as a refusal.")
        return
    curve = _known_curve(circuit, message, system)
    if curve is None:
        if busy or is_learning():
            _placeholder("The meter comes when the model is free.")
            return
        curve = _asked(circuit, message, system)
    if curve is None:
        return
    shown = message if len(message) < 60 else f"{message[:57]}…"
    strengths = np.array(METER_STRENGTHS)
    charts.show(
        gate_meter(strengths, curve, at, height=METER_HEIGHT, dark=style.is_dark()),
        "gate-meter",
        f"The probability that “{_plain(shown)}”, asked on its own, is answered with words that open this model's "
        "refusals; nothing is generated.",
        data=pd.DataFrame({"strength": strengths, "refusal_chance": curve}),
    )


def learn_openings(circuit: Circuit) -> None:
    """Learn how the model's refusals open, in the background, unless that is known; draws its progress."""
    prompts = ContrastSet.builtin()
    if cached_openings(circuit.model, prompts) is not None:
        return
    name, options = session.model_name(), session.load_options()
    key = f"openings-{name}-{options}"
    job, mine = jobs.get(key), st.session_state.get(_LEARNING)
    if job is not None and job.finished and not job.stop.is_set():
        jobs.tell_outcome(job)
        return
    made_way = st.session_state.pop(_MADE_WAY, False)
    stopped_by_hand = mine is job and job is not None and job.stop.is_set() and not made_way
    if stopped_by_hand and not st.button("Teach the meter how refusals open here", icon=":material/school:"):
        return

    def work(job: jobs.Job) -> None:
        waiting = session.say_place(job.progress)
        with host.acquire(name, **options, progress=job.progress, stop=job.stop, waiting=waiting) as model:
            calibrate_openings(model, prompts, progress=job.progress, stop=job.stop)

    st.session_state[_LEARNING] = jobs.start(key, "Learning how refusals open", work)
    jobs.watch(key)


def is_learning() -> bool:
    """Whether this session waits for the openings to be learnt."""
    job = st.session_state.get(_LEARNING)
    return job is not None and not job.finished


def make_way() -> None:
    """Stop learning the openings, if that runs: an answer is wanted now, and learning begins again after it."""
    if is_learning():
        st.session_state[_MADE_WAY] = True
        jobs.registry().stop(st.session_state[_LEARNING].key, jobs.this_session())


def _asked(circuit: Circuit, message: str, system: str) -> NDArray[np.float64] | None:
    """Ask the model; None where it cannot be asked now, and the reason is drawn."""
    stop, known = threading.Event(), prefix_caches()
    try:
        with host.acquire(
            session.model_name(), **session.load_options(), stop=stop, waiting=lambda _place: stop.set()
        ) as model:
            openings = cached_openings(model.identity)
            if openings is None:
                _placeholder("The meter is learning how this model's refusals open.")
                return None
            curve = refusal_chance(
                model,
                circuit,
                as_messages(message, system),
                METER_STRENGTHS,
                openings,
                prefixes=_prefixes_of(known, model),
                stop=stop,
            )
    except StoppedError:
        _placeholder("The model is answering somebody else; the meter comes with your next change.")
        return None
    except PromptError as error:
        _placeholder(str(error))
        return None
    except CnaError as error:
        st.error(str(error))
        return None
    curves = _curves()
    curves[_curve_key(circuit, message, system)] = curve
    while len(curves) > CURVES_KEPT:
        curves.popitem(last=False)
    return curve


def _prefixes_of(known: Prefixes, model) -> PrefixCaches:  # type: ignore[no-untyped-def]
    return known.setdefault(model, PrefixCaches(model))


def _curves() -> "OrderedDict[tuple[str, ...], NDArray[np.float64]]":
    return st.session_state.setdefault("meter_curves", OrderedDict())


def _known_curve(circuit: Circuit, message: str, system: str) -> NDArray[np.float64] | None:
    return _curves().get(_curve_key(circuit, message, system))


def _curve_key(circuit: Circuit, message: str, system: str) -> tuple[str, ...]:
    return (session.model_name(), str(session.load_options()), circuit.sha256, message, system)


def _placeholder(words: str) -> None:
    """As high as the meter, so that nothing jumps when it comes."""
    with st.container(height=METER_HEIGHT + 62, border=False):
        st.caption(words)


def _plain(text: str) -> str:
    """Text in a caption without being taken for Markdown."""
    return "".join(f"\\{letter}" if letter in "\\`*_{}[]()#+-.!|<>$~:" else letter for letter in " ".join(text.split()))


def _nothing() -> None:
    """A component tells its state only where somebody listens."""
