"""How few neurons? on the Gate page: the refusal chance over the number of neurons ablated, measured on a click."""

from typing import Any

import pandas as pd
import streamlit as st

from cna_core.circuits.activations import Activations
from cna_core.evaluation.how_few import cached_how_few, how_few
from cna_core.evaluation.size_curves import HowFew, HowFewSettings
from cna_core.figures.how_few import how_few_neurons
from cna_core.models.host import host
from pages.common import charts, findings, jobs, session, style
from pages.common.plain import plain

SETTINGS = HowFewSettings(prompts=16, benign=6, draws=2)
"""What a click measures: some minutes on a laptop. The command `how-few` measures more."""
DRAW_SECONDS = 2.0
EXPLANATION = (
    "Ablate 1, 2, 4 … 1,024 neurons, chosen by effect, by δ, or at random, and compute the chance of a refusal from "
    "the first token. The harmful prompts were not used to find the circuit. No answers are generated."
)


def draw(activations: Activations) -> None:
    """Draw what is known, the progress while it is measured, or the button to start it."""
    key = _key()
    if jobs.running(key):
        jobs.watch(key, _draw_preview, DRAW_SECONDS)
        return
    jobs.tell_outcome(jobs.get(key))
    found = _known(activations)
    if found is None:
        st.markdown(EXPLANATION)
        st.button(
            "Measure",
            key="measure-how-few",
            icon=":material/science:",
            on_click=start,
            help=f"On {SETTINGS.prompts} harmful and {SETTINGS.benign} benign prompts. The first time it also measures "
            "effects. Takes some minutes on a laptop; a stopped run continues where it was.",
        )
        return
    _show(found)


def start() -> None:
    """Start measuring in the background, or join the job if it is running."""
    name, options, contrast = session.model_name(), session.load_options(), session.contrast()

    def work(job: jobs.Job) -> HowFew:
        def show(found: HowFew) -> None:
            job.preview = found

        watching: dict[str, Any] = {"progress": job.progress, "stop": job.stop}
        with host.acquire(name, **options, **watching) as model:
            return how_few(model, contrast, settings=SETTINGS, partial=show, **watching)

    jobs.start(_key(), "How few neurons?", work)


def _known(activations: Activations) -> HowFew | None:
    job = jobs.get(_key())
    if job is not None and isinstance(job.result, HowFew):
        return job.result
    found: HowFew | None = cached_how_few(activations.model, session.contrast(), settings=SETTINGS)
    return found


def _key() -> str:
    return findings.finding_key().replace("find-", "how-few-", 1)


def _draw_preview(job: jobs.Job) -> None:
    if isinstance(job.preview, HowFew) and job.preview.baseline:
        st.plotly_chart(how_few_neurons(job.preview, dark=style.is_dark()), key="how-few-preview")


def _show(found: HowFew) -> None:
    charts.show(
        how_few_neurons(found, dark=style.is_dark()),
        "how-few",
        "A curve that falls further left needs fewer neurons. The number next to its name halves the refusal chance, "
        "with its 95 % interval over prompts. Grey: random neurons; their bands are the range of the draws. Below: "
        f"how much the first token on {found.settings.benign} benign prompts changes. A low first-token chance does "
        "not mean that the answer helps: the checks read full answers.",
        data=lambda: _table(found),
        data_name="Curves (CSV)",
    )
    for note in found.notes:
        st.caption(plain(note))


def _table(found: HowFew) -> pd.DataFrame:
    rows = [
        {
            "chosen_by": curve.key,
            "neurons": size,
            "refusal_chance": value,
            "low": low,
            "high": high,
            "benign_kl": kl,
        }
        for curve in found.curves
        for size, (value, low, high), kl in zip(curve.sizes, curve.band, curve.divergence, strict=True)
    ]
    return pd.DataFrame(rows)
