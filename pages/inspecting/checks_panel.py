"""The checks on the Gate page: each check of the present circuit with a plain verdict, run on a click."""

import hashlib
from typing import Any

import pandas as pd
import streamlit as st

from cna_core.circuits.circuit import Circuit
from cna_core.evaluation.checks.contract import Check, CheckSettings, Figure, Row
from cna_core.evaluation.checks.registry import CHECKS
from cna_core.evaluation.verify import Verification, known_checks, verify
from cna_core.models.host import host
from pages.common import jobs, session
from pages.common.plain import plain

QUICK = CheckSettings(
    prompts=16,
    max_new_tokens=64,
    draws=5,
    first_token_prompts=12,
    truth_neurons=40,
    truth_prompts=4,
    transfer_prompts=8,
)
"""What a click measures. The command `verify` measures more, and its result is shown here too."""
DRAW_SECONDS = 2.0
_MARKS = {"passed": ":green[:material/check_circle:]", "failed": ":red[:material/cancel:]", "open": ":material/circle:"}


def draw(circuit: Circuit) -> None:
    """Draw the checks as far as they are known, the progress while they run, or the button to start them."""
    key = _key(circuit)
    if jobs.running(key):
        jobs.watch(key, lambda job: _draw(_so_far(job, circuit)), DRAW_SECONDS)
        return
    jobs.tell_outcome(jobs.get(key))
    found = known(circuit)
    if len({row.check for row in found.rows}) < len(CHECKS):
        st.button(
            "Continue the checks" if found.rows else "Run the checks",
            key="run-checks",
            icon=":material/fact_check:",
            on_click=start,
            args=(circuit,),
            help=f"Answers of {QUICK.max_new_tokens} tokens to {QUICK.prompts} harmful prompts, and more. Takes a "
            "while on a laptop: each finished check is saved. The command verify measures more prompts and longer "
            "answers.",
        )
    _draw(found)


def known(circuit: Circuit) -> Verification:
    """The rows that are known: of the command's settings where it was run, else of a click's."""
    job = jobs.get(_key(circuit))
    if job is not None and isinstance(job.result, Verification):
        return job.result
    contrast = session.contrast()
    whole = known_checks(circuit.model, circuit, contrast=contrast)
    return whole if whole.rows else known_checks(circuit.model, circuit, contrast=contrast, settings=QUICK)


def start(circuit: Circuit) -> None:
    """Run the checks in the background, or join the job if it is running."""
    name, options, contrast = session.model_name(), session.load_options(), session.contrast()

    def work(job: jobs.Job) -> Verification:
        def show(found: Verification) -> None:
            job.preview = found

        watching: dict[str, Any] = {"progress": job.progress, "stop": job.stop}
        with host.acquire(name, **options, **watching) as model:
            return verify(model, circuit, contrast=contrast, settings=QUICK, partial=show, **watching)

    jobs.start(_key(circuit), "Checks", work)


def _key(circuit: Circuit) -> str:
    about = repr((session.model_name(), session.load_options(), session.contrast().sha256, circuit.sha256))
    return f"checks-{hashlib.sha256(about.encode()).hexdigest()[:16]}"


def _so_far(job: jobs.Job, circuit: Circuit) -> Verification:
    return job.preview if isinstance(job.preview, Verification) else known(circuit)


def _draw(found: Verification) -> None:
    needed = [check.title for check in CHECKS.values() if check.needed]
    these = "This neuron" if found.neurons == 1 else f"These {found.neurons:,} neurons"
    st.markdown(
        f"{these} may be called **{found.claim}**. “The neurons behind refusal” needs four "
        f"checks to pass: {', '.join(needed)}."
    )
    left, right = st.columns(2, gap="large")
    places = list(CHECKS.items())
    half = (len(places) + 1) // 2
    for column, some in ((left, places[:half]), (right, places[half:])):
        with column:
            for number, (key, check) in enumerate(some, start=1 if column is left else half + 1):
                _draw_check(found, number, key, check)
    if found.rows:
        st.caption(
            f"Measured on {found.settings.prompts} harmful prompts, answers of {found.settings.max_new_tokens} tokens."
        )
        with st.expander("All numbers", icon=":material/table:"):
            st.dataframe(_table(found), hide_index=True, key="checks-table")
            st.download_button(
                "Download", found.to_json(), "checks.json", "application/json", key="checks-json", on_click="ignore"
            )


def _draw_check(found: Verification, number: int, key: str, check: type[Check]) -> None:
    verdicts = [row.verdict for row in found.rows if row.check == key]
    mark, needed = _MARKS[found.sign_of(key)], " *(needed)*" if check.needed else ""
    words = "  \n".join(plain(verdict) for verdict in verdicts) or f":gray[Not run. {check.question}]"
    st.markdown(f"{mark} **{number}. {check.title}**{needed}  \n:small[{words}]")


def _table(found: Verification) -> pd.DataFrame:
    return pd.DataFrame([_as_row(row) for row in found.rows])


def _as_row(row: Row) -> dict[str, str]:
    signs = {True: "passed", False: "failed", None: ""}
    return {
        "check": CHECKS[row.check].title if row.check in CHECKS else row.check,
        "measured": row.quantity,
        "unit": row.unit,
        "circuit": _in_words(row.value),
        "control": _in_words(row.control),
        "control is": row.control_words,
        "change": _in_words(row.change),
        "outcome": signs[row.passed],
    }


def _in_words(figure: Figure | None) -> str:
    return "" if figure is None else f"{figure.value:.3g} ({figure.low:.3g} to {figure.high:.3g})"
