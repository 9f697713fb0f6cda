"""What this browser session has chosen, and what follows from it: model, contrast set, activations, circuit.

The choices live in the sidebar's widgets, which are bound to the address: a shared link restores them. Everything else
is looked up from them, so nothing has to be kept in step. Activations are shared by the process (they are never
changed), the choice of a circuit belongs to the session.
"""

import contextlib
import hashlib
import json
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import streamlit as st
from numpy.typing import NDArray

from cna_core.circuits import library
from cna_core.circuits.activations import Activations
from cna_core.circuits.attribution import attribute, measured
from cna_core.circuits.capture import capture
from cna_core.circuits.circuit import Circuit, CircuitSettings
from cna_core.errors import CircuitError, PromptError
from cna_core.evaluation.triggers import triggered
from cna_core.models.host import host
from cna_core.models.layout import NeuronLayout
from cna_core.models.loaded import LoadedModel
from cna_core.paths import cache_folder, written_beside
from cna_core.progress import Progress, Report, Stage
from cna_core.progress_words import duration_in_words
from cna_core.prompts.public_catalog import PREFIX
from cna_core.prompts.sets import ContrastSet, PromptSet
from pages.common import jobs
from pages.common.recent import Recent

OWN_PROMPTS = "own"
FINDINGS_KEPT = 6


@dataclass(frozen=True)
class Finding:
    """What pressing *Find the gate* gave: activations of one model on one contrast set.

    Args:
        activations: what was recorded.
        seconds: how long recording took; None where it was done earlier and only read again.
        note: what the page has to say of it.
    """

    activations: Activations
    seconds: float | None
    note: str | None = None

    @property
    def when(self) -> str:
        """ "in 38 s", or "earlier" where it was only read again."""
        return "earlier" if self.seconds is None else f"in {duration_in_words(self.seconds)}"


@dataclass(frozen=True)
class Preview:
    """δ while prompts go through: `delta` is (neurons,) float32, or None before the first batch."""

    layout: NeuronLayout
    delta: NDArray[np.float32] | None
    prompts_done: int


@st.cache_resource(show_spinner=False)
def _findings() -> Recent[Finding]:
    return Recent(FINDINGS_KEPT)


# --- choices ---


def model_name() -> str:
    """The chosen model: a catalog id, Hub id, folder or .gguf file."""
    return str(st.session_state.get("model", ""))


def load_options() -> dict[str, Any]:
    """How the chosen model is to be loaded, as keyword arguments of `load_model`."""
    quantization = st.session_state.get("quantization", "none")
    return {
        "dtype": st.session_state.get("dtype", "auto"),
        "quantization": None if quantization == "none" else quantization,
        "trust_remote_code": bool(st.session_state.get("trust_remote_code", False)),
    }


def only_triggered() -> bool:
    """Whether prompts are left out that do not do what their set says."""
    return bool(st.session_state.get("triggered", False))


def contrast() -> ContrastSet:
    """The chosen contrast set.

    Raises:
        PromptError: the session's own prompts are not there (any more), or a public set cannot be fetched.
    """
    chosen = str(st.session_state.get("prompts", "built-in"))
    if chosen.startswith(PREFIX):
        return ContrastSet.public(chosen)
    return ContrastSet.builtin() if chosen == "built-in" else _own_contrast(chosen)


def keep_own_prompts(positive: PromptSet, negative: PromptSet) -> str:
    """Keep a pasted or uploaded contrast set in the cache folder; its name, for the address, comes back.

    Raises:
        PromptError: the two sets do not make a contrast set.
    """
    chosen = ContrastSet(positive, negative)
    name = f"{OWN_PROMPTS}-{chosen.sha256[:12]}"
    with written_beside(cache_folder("prompts") / f"{name}.json") as draft:
        kept = {"positive": list(positive.prompts), "negative": list(negative.prompts)}
        draft.write_text(json.dumps(kept), encoding="utf-8")
    return name


def own_prompts() -> list[str]:
    """Names of the contrast sets that were brought to this machine, newest first."""
    files = sorted(cache_folder("prompts").glob(f"{OWN_PROMPTS}-*.json"), key=lambda file: -file.stat().st_mtime)
    return [file.stem for file in files]


def _own_contrast(name: str) -> ContrastSet:
    if name not in own_prompts():
        raise PromptError(
            "The prompts of this link are not on this machine; choose the built-in ones or upload them again."
        )
    kept = json.loads((cache_folder("prompts") / f"{name}.json").read_text(encoding="utf-8"))
    positive, negative = (PromptSet(f"own {side}", tuple(kept[side])) for side in ("positive", "negative"))
    return ContrastSet(positive, negative)


# --- finding the gate ---


def finding_key() -> str:
    """Names the finding of the present choices, and the job that makes it."""
    said = json.dumps([model_name(), load_options(), contrast().sha256, only_triggered()], sort_keys=True, default=str)
    return "find-" + hashlib.sha256(said.encode()).hexdigest()[:16]


def finding() -> Finding | None:
    """The finding of the present choices, or None while there is none."""
    return _findings().get(finding_key())


def activations() -> Activations | None:
    """Activations of the chosen model on the chosen contrast set, or None while they are not recorded."""
    found = finding()
    return found.activations if found else None


def start_finding() -> None:
    """Start recording activations for the present choices in the background, or join it where it already runs."""
    key, name, options, prompts = finding_key(), model_name(), load_options(), contrast()
    leave_others_out, findings = only_triggered(), _findings()

    def work(job: jobs.Job) -> None:
        watching: dict[str, Any] = {"progress": job.progress, "stop": job.stop}
        with host.acquire(name, **options, **watching) as loaded:
            job.preview = Preview(loaded.layout, None, 0)

            def show(delta: NDArray[np.float32], done: int) -> None:
                job.preview = Preview(loaded.layout, delta, done)

            started_at, now = time.monotonic(), threading.Event()

            def recording(progress: Progress) -> None:
                if progress.stage is not Stage.READING_KEPT:
                    now.set()
                job.progress(progress)

            recorded = capture(loaded, prompts, progress=recording, stop=job.stop, partial=show)
            if leave_others_out:
                recorded = recorded.without(np.flatnonzero(~triggered(loaded, prompts, **watching)))
            seconds = time.monotonic() - started_at if now.is_set() else None
            note = None if loaded.has_chat_template else "This model has no chat template: prompts go in as plain text."
        findings.put(key, Finding(recorded, seconds, note))

    jobs.start(key, "Finding the gate", work)


# --- the circuit ---


def circuit_settings() -> CircuitSettings:
    """How the sidebar says a circuit is to be selected."""
    state = st.session_state
    return CircuitSettings(
        fraction=float(state.get("size", 0.1)) / 100,
        score=state.get("score", "delta"),
        skip_layers=int(state.get("skip", 0)),
        universal_threshold=float(state.get("threshold", 0.8)) if state.get("leave_out", True) else None,
        universal_fraction=0.001,
    )


def opened_circuit() -> Circuit | None:
    """The circuit opened from a file or the library, if one is; it stands in front of the selected one."""
    return st.session_state.get("opened_circuit")


def open_circuit(circuit: Circuit | None, name: str | None = None) -> None:
    """Put a circuit from a file or the library (then with its name) in front, or (None) go back to the selected one."""
    st.session_state["opened_circuit"] = circuit
    st.session_state["opened_circuit_name"] = name


def circuit_from_upload(content: bytes, name: str) -> Circuit:
    """The circuit in an uploaded file; a neural-steering file is taken to belong to the model whose gate was found.

    Raises:
        CircuitError: the file is not a circuit, or belongs to another model than the one whose gate was found.
    """
    recorded = activations()
    identity = recorded.model if recorded else None
    uploaded = Circuit.from_json(content, identity, name)
    if recorded is None:
        return uploaded
    uploaded.check_model(recorded.model)
    return measured(uploaded, recorded)


def circuit() -> Circuit | None:
    """The session's circuit: the opened one, else the one selected from the activations, else None."""
    if opened_circuit() is not None:
        return opened_circuit()
    recorded = activations()
    if recorded is None:
        return None
    settings = circuit_settings()
    key = (finding_key(), settings.model_dump_json())
    if st.session_state.get("_circuit_key") != key:
        st.session_state["_circuit"] = attribute(
            recorded,
            fraction=settings.fraction or 0.001,
            score=settings.score,
            skip_layers=settings.skip_layers,
            universal_threshold=settings.universal_threshold,
            universal_fraction=settings.universal_fraction,
        )
        st.session_state["_circuit_key"] = key
    return st.session_state["_circuit"]


# --- the address ---


def selected_neuron() -> tuple[int, int] | None:
    """The (layer, neuron) whose card is open, or None."""
    return st.session_state.get("selected_neuron")


def select_neuron(layer: int, neuron: int) -> None:
    """Open a neuron's card."""
    st.session_state["selected_neuron"] = (int(layer), int(neuron))


def restore_from_address() -> None:
    """Once in a session: take from the address what no widget is bound to. What does not fit is ignored."""
    if st.session_state.get("_restored"):
        return
    st.session_state["_restored"] = True
    layer, _, neuron = st.query_params.get("neuron", "").partition(".")
    if layer.isdecimal() and neuron.isdecimal():
        select_neuron(int(layer), int(neuron))
    if name := st.query_params.get("circuit"):
        try:
            open_circuit(library.load_circuit(name), name)
        except CircuitError as error:
            st.toast(str(error))
    if st.query_params.get("found") == "1" and finding() is None:
        try:
            start_finding()  # recorded before: the model loads and the activations come from the cache
        except PromptError as error:
            st.toast(str(error))


def write_address() -> None:
    """Keep the address such that opening it elsewhere restores this view."""
    selected = selected_neuron()
    for name, value in {
        "model": model_name(),
        "prompts": None if (chosen := st.session_state.get("prompts")) == "built-in" else chosen,
        "neuron": f"{selected[0]}.{selected[1]}" if selected else None,
        "circuit": st.session_state.get("opened_circuit_name"),
        "found": "1" if finding() else None,
    }.items():
        if value is None:
            st.query_params.pop(name, None)
        elif st.query_params.get(name) != value:
            st.query_params[name] = value


# --- the model ---


@contextlib.contextmanager
def model(progress: Report | None = None, stop: threading.Event | None = None) -> Iterator[LoadedModel]:
    """The chosen model, for this request alone while the block runs; others wait their turn.

    Raises:
        CircuitError: the session's circuit belongs to another model.
    """
    with host.acquire(model_name(), **load_options(), progress=progress, stop=stop) as loaded:
        yield loaded


def circuit_fits(loaded: LoadedModel, chosen: Circuit) -> str | None:
    """None where the circuit belongs to the loaded model, else the reason in one sentence."""
    try:
        chosen.check_model(loaded.identity)
    except CircuitError as error:
        return str(error)
    return None
