"""Where Chat opens: the gentlest setting that halves the refusal chance.

The search runs in the background once the gate meter is calibrated, never at the same time as calibration. Where the
model is not loaded, it waits for a click. It stops for an answer and starts again behind it. Chat moves to the result
only if nothing was asked, set or linked before.
"""

import hashlib

import streamlit as st

from cna_core.circuits.circuit import Circuit
from cna_core.evaluation.first_setting import STRENGTHS, FirstSetting, known_first_setting, search_first_setting
from cna_core.evaluation.gate_meter import cached_openings
from cna_core.evaluation.measures.numbers import percent
from cna_core.limits import allowed
from cna_core.models.host import host
from pages.common import chosen_circuit, findings, jobs, keys, session
from pages.common.watching import this_session

SIZES = {"delta": (0.001, 0.002, 0.004, 0.007, 0.01), "attribution-patching": (0.0001, 0.0003, 0.0005, 0.001)}
"""Circuit sizes that are tried, by score; the sidebar offers all of them."""
PAPER = (0.001, 1.0)
"""The paper's circuit size and strength."""


def known(circuit: Circuit) -> FirstSetting | None:
    """The result of the search for the sidebar's choices; None before it has ended, and for an opened circuit."""
    openings, circuits = cached_openings(circuit.model), _circuits()
    if openings is None or not circuits:
        return None
    return known_first_setting(circuits, openings, session.contrast(), _strengths())


def open_there(setting: FirstSetting | None, asked: bool) -> None:
    """Move Chat to the setting, once for each search, unless the session has asked, set or linked something else.

    Args:
        setting: what `known` says.
        asked: whether a message was sent.
    """
    opened_at = st.session_state.setdefault(keys.OPENED_AT, set())
    if setting is None or _key() in opened_at:
        return
    opened_at.add(_key())
    at_first = (_size(PAPER[0]), PAPER[1]) == (st.session_state.get(keys.SIZE), _strength())
    if setting.fraction is not None and setting.strength is not None and at_first and not asked:
        go_to(setting.fraction, setting.strength)
        st.rerun()


def draw(circuit: Circuit, setting: FirstSetting | None, busy: bool) -> None:
    """One line: the search's progress, or its result with other settings to try.

    Args:
        circuit: the session's.
        setting: what `known` says.
        busy: whether an answer is being generated.
    """
    job = jobs.get(_key())
    if setting is not None:
        _say(setting)
    elif job is not None and not job.finished:
        jobs.watch(job.key)
    elif job is None or (job.stopped and st.session_state.get(keys.FIRST_SETTING_PAUSED) == job.key):
        if not busy and _can_begin(circuit):
            if session.model_name() in host.loaded():
                jobs.watch(begin(circuit).key)
            else:
                _offer_search(circuit)
    else:
        jobs.tell_outcome(job)


def begin(circuit: Circuit) -> jobs.Job:
    """Start the search in the background, or join it."""
    st.session_state.pop(keys.FIRST_SETTING_PAUSED, None)
    name, options, contrast = session.model_name(), session.load_options(), session.contrast()
    circuits, strengths, identity = _circuits(), _strengths(), circuit.model

    def work(job: jobs.Job) -> None:
        openings = cached_openings(identity)
        if openings is not None:
            with host.acquire(name, **options, progress=job.progress, stop=job.stop) as model:
                search_first_setting(
                    model, circuits, openings, contrast, strengths, progress=job.progress, stop=job.stop
                )

    return jobs.start(_key(), "Search for a first setting", work)


def pause_for_answer() -> None:
    """Stop the search, if it is running, because an answer needs the model."""
    job = jobs.running(_key())
    if job is not None:
        st.session_state[keys.FIRST_SETTING_PAUSED] = job.key
        job.stop.leave(this_session())


def _offer_search(circuit: Circuit) -> None:
    """The gate came from kept activations, so the model is not loaded. Only a click loads it."""
    with st.container(horizontal=True, vertical_alignment="center", gap="small", key="chat-first-setting-search"):
        st.caption("The gentlest setting that halves the refusal chance is not known yet.")
        st.button("Search", key="first-setting-search", type="tertiary", on_click=_search, args=(circuit,))


def _search(circuit: Circuit) -> None:
    begin(circuit)


def _say(setting: FirstSetting) -> None:
    with st.container(horizontal=True, vertical_alignment="center", gap="small", key="chat-first-setting"):
        st.caption(describe(setting), width="stretch")
        if setting.fraction is not None and setting.strength is not None:
            _offer(f"{_named(setting.fraction)}, strength {setting.strength:g}", setting.fraction, setting.strength)
        if st.session_state.get(keys.SCORE, "delta") == "delta" and (setting.fraction, setting.strength) != PAPER:
            _offer(f"The paper's {_named(PAPER[0])}, strength 1", *PAPER)
        _offer("Unchanged model", None, 0.0)


def describe(setting: FirstSetting) -> str:
    """The result in one sentence."""
    if not setting.prompts:
        return "This model refuses hardly any discovery prompt, so there is little for steering to change."
    among = f"on {setting.prompts} discovery prompts that this model refuses"
    if setting.fraction is None:
        return (
            f"None of {setting.tried} settings halves the refusal chance ({percent(setting.baseline_chance)} {among}): "
            "this circuit does little here."
        )
    return (
        f"**{_named(setting.fraction)} at strength {setting.strength:g}** is the gentlest setting of {setting.tried} "
        f"that at least halves the refusal chance: {percent(setting.baseline_chance)} → {percent(setting.chance)} "
        f"{among}."
    )


def _offer(label: str, fraction: float | None, strength: float) -> None:
    there = _strength() == strength and (fraction is None or st.session_state.get(keys.SIZE) == _size(fraction))
    st.button(
        label,
        key=f"first-setting-{fraction}-{strength}",
        type="tertiary",
        disabled=there,
        on_click=go_to,
        args=(fraction, strength),
    )


def go_to(fraction: float | None, strength: float) -> None:
    """Set size and strength; the sidebar does it before its widgets are drawn again."""
    st.session_state[keys.OPEN_AT] = (None if fraction is None else _size(fraction), strength)


def _can_begin(circuit: Circuit) -> bool:
    calibrating = st.session_state.get(keys.CALIBRATION_JOB)
    return (
        cached_openings(circuit.model) is not None
        and bool(_circuits())
        and (calibrating is None or calibrating.finished)
    )


def _circuits() -> dict[float, Circuit]:
    if chosen_circuit.opened() is not None:
        return {}
    return chosen_circuit.of_sizes(SIZES.get(st.session_state.get(keys.SCORE, "delta"), SIZES["delta"]))


def _strengths() -> tuple[float, ...]:
    return tuple(strength for strength in allowed(STRENGTHS) if strength != 0)


def _strength() -> float:
    return float(st.session_state.get(keys.STRENGTH, 1.0))


def _size(fraction: float) -> float:
    """A share as the sidebar's slider has it, in per cent."""
    return round(100 * fraction, 4)


def _named(fraction: float) -> str:
    return f"{_size(fraction):g} %"


def _key() -> str:
    about = (findings.finding_key(), chosen_circuit.settings().model_dump_json(exclude={"fraction"}))
    return "first-setting-" + hashlib.sha256("\n".join(about).encode()).hexdigest()[:16]
