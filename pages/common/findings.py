"""The result of *Find the gate*: activations of the chosen model on the chosen prompts.

Results are never changed, so all sessions of the process share them: the same choices give the same result.
"""

import hashlib
import json
import logging
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import streamlit as st
from numpy.typing import NDArray

from cna_core.errors import CnaError
from cna_core.models.fetch import revision_here
from cna_core.models.host import host
from cna_core.models.layout import NeuronLayout
from cna_core.progress import Progress, Stage
from cna_core.progress_words import duration_in_words
from cna_core.prompts.sets import ContrastSet
from pages.common import jobs, libraries, session
from pages.common.recent import Recent

if TYPE_CHECKING:  # the first page is drawn before torch is imported
    from cna_core.circuits.activations import Activations

FINDINGS_KEPT = 6
NO_TEMPLATE = "This model has no chat template, so it reads prompts as text."

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Finding:
    """The result of *Find the gate*: activations of one model on one contrast set.

    Args:
        activations: the recorded activations.
        seconds: how long recording took; None if it was done earlier and only read from the cache.
        note: a remark that the page shows.
    """

    activations: "Activations"
    seconds: float | None
    note: str | None = None

    @property
    def when(self) -> str:
        """ "in 38 s", or "earlier" if it was read from the cache."""
        return "earlier" if self.seconds is None else f"in {duration_in_words(self.seconds)}"


@dataclass(frozen=True)
class Preview:
    """δ while prompts are being recorded: `delta` is (neurons,) float32, or None before the first batch."""

    layout: NeuronLayout
    delta: NDArray[np.float32] | None
    prompts_done: int


@st.cache_resource(show_spinner=False)
def _findings() -> Recent[Finding]:
    return Recent(FINDINGS_KEPT)


def finding_key() -> str:
    """The key of the current choices' finding, and of the job that records it."""
    said = json.dumps(
        [session.model_name(), session.load_options(), session.contrast().sha256, session.only_triggered()],
        sort_keys=True,
        default=str,
    )
    return "find-" + hashlib.sha256(said.encode()).hexdigest()[:16]


def finding() -> Finding | None:
    """The finding of the current choices, or None if there is none yet."""
    return _findings().get(finding_key())


def activations() -> "Activations | None":
    """Activations of the chosen model on the chosen contrast set, or None if they are not recorded yet."""
    found = finding()
    return found.activations if found else None


def known_model(name: str, options: dict[str, Any]) -> tuple[str, str, str] | None:
    """A model's name, revision and number format, without loading it; None if they cannot be known so.

    Args:
        name, options: as `session.model_name` and `session.load_options` return them.
    """
    revision = revision_here(name)
    if revision is None or options["quantization"] is not None or options["trust_remote_code"]:
        return None
    from cna_core.models.precision import as_dtype, choose_device

    return name, revision, str(as_dtype(options["dtype"], choose_device())).removeprefix("torch.")


def restore() -> None:
    """Show the current choices' finding if an earlier one is on disk. Loads no model and computes nothing."""
    if finding() is not None or session.only_triggered():
        return
    libraries.wait_on_page(libraries.SHOWING)
    kept = _kept(session.model_name(), session.load_options(), session.contrast())
    if kept is not None:
        _findings().put(finding_key(), Finding(kept, None))


def _kept(name: str, options: dict[str, Any], prompts: ContrastSet) -> "Activations | None":
    """What an earlier recording stored, without loading the model."""
    from cna_core.circuits.capture import kept_activations

    known = known_model(name, options)
    return None if known is None else kept_activations(*known, prompts)


def start() -> None:
    """Start recording activations for the current choices in the background, or join it if it is running."""
    key, name, options, prompts = finding_key(), session.model_name(), session.load_options(), session.contrast()
    leave_others_out, findings = session.only_triggered(), _findings()

    def check(shown: "Activations") -> None:
        """Load the model, which comes next anyway, and compare with what `capture` finds with the model."""
        libraries.wait()
        from cna_core.circuits.capture import capture

        try:
            with host.acquire(name, **options) as loaded:
                recorded = capture(loaded, prompts)
                note = None if loaded.has_chat_template else NO_TEMPLATE
                if note is not None or not np.array_equal(recorded.delta, shown.delta):
                    findings.put(key, Finding(recorded, None, note))
        except CnaError as error:
            log.info("%s could not be loaded after its saved activations (%s).", name, error)

    def work(job: jobs.Job) -> None:
        watching: dict[str, Any] = {"progress": job.progress, "stop": job.stop}
        libraries.wait(**watching, modules=libraries.SHOWING)
        job.progress(Progress(Stage.READING_KEPT))
        kept = None if leave_others_out else _kept(name, options, prompts)
        if kept is not None:
            findings.put(key, Finding(kept, None))
            threading.Thread(target=check, args=(kept,), name=f"load {name}", daemon=True).start()
            return
        libraries.wait(**watching)
        from cna_core.circuits.capture import capture
        from cna_core.evaluation.triggers import triggered

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
            note = None if loaded.has_chat_template else NO_TEMPLATE
        findings.put(key, Finding(recorded, seconds, note))

    jobs.start(key, "Finding the gate", work)
