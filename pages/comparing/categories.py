"""How much the circuits of the prompts' categories share, computed from the session's activations on request."""

import hashlib
from collections.abc import Callable

import pandas as pd
import streamlit as st

from cna_core.circuits.categories import CategoryOverlaps, category_overlaps
from cna_core.evaluation.measures.numbers import percent
from pages.common import charts, chosen_circuit, findings, jobs, session
from pages.common.plain import plain


def draw() -> None:
    """Draw the matrix, the progress of computing it, or the button that starts it."""
    activations = findings.activations()
    positive = session.contrast().positive
    if activations is None or not positive.categories:
        st.caption(
            "Find the gate first: categories are compared by the activations of its prompts."
            if positive.categories
            else "These discovery prompts have no categories. The built-in ones have."
        )
        return
    key, settings = _key(), chosen_circuit.settings()
    job = jobs.get(key)
    if job is not None and not job.finished:
        jobs.watch(key)
        return
    jobs.tell_outcome(job)
    if job is None or not isinstance(job.result, CategoryOverlaps):
        st.caption(
            "Do requests of different kinds have the same circuit? This selects circuits from halves of each kind."
        )
        category_of = dict(zip(positive.prompts, positive.categories, strict=True))

        def work(job: jobs.Job) -> CategoryOverlaps:
            by_delta = settings.model_copy(update={"score": "delta"})
            return category_overlaps(activations, category_of, by_delta, progress=job.progress, stop=job.stop)

        st.button(
            "Compare categories",
            key="compare-categories",
            icon=":material/category:",
            on_click=_start,
            args=(key, work),
        )
        return
    _show(job.result)


def _start(key: str, work: Callable[[jobs.Job], CategoryOverlaps]) -> None:
    jobs.start(key, "Comparing categories", work)


def _show(found: CategoryOverlaps) -> None:
    table = pd.DataFrame(found.jaccard, index=list(found.names), columns=list(found.names))
    st.dataframe(table.style.format(percent), key="compare-category-matrix")
    left_out = f" Left out, with too few prompts: {plain(', '.join(found.left_out))}." if found.left_out else ""
    charts.explain(
        [
            f"The share of neurons (Jaccard) that two circuits by δ have in common, each from "
            f"{found.prompts} positive prompts of its category and all negative ones; means of three draws. On the "
            "diagonal: two halves of one category. Two categories that share as much cannot be told apart by their "
            "circuits."
        ],
        transfer="",
        always=left_out.strip(),
    )


def _key() -> str:
    about = (findings.finding_key(), chosen_circuit.settings().model_dump_json())
    return "categories-" + hashlib.sha256("\n".join(about).encode()).hexdigest()[:16]
