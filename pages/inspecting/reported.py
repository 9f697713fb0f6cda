"""What the paper reports, as tables, and what was measured here for the chosen model beside it."""

from collections.abc import Iterable
from typing import Any

import pandas as pd
import streamlit as st

from cna_core.circuits.circuit import Circuit
from cna_core.errors import CnaError
from cna_core.evaluation.journal import Journal, stored_runs
from cna_core.evaluation.published import PublishedModel, published, published_model
from cna_core.evaluation.runs import Point, Run
from pages.common import session
from pages.common.cards import percent
from pages.inspecting import evidence

NOTHING = "–"


def draw_measured(name: str) -> None:
    """The chosen model's published figures, where there are any, beside this machine's."""
    st.subheader("Published, and measured here", anchor=False)
    paper = published_model(name)
    refusal = _measured_refusal(name)
    rows = [
        ("Circuit in the last 3 layers", _published_share(paper), _measured_share()),
        ("Refusals, baseline", _published_rate(paper, "refusal_baseline"), refusal[0]),
        ("Refusals, circuit ablated", _published_rate(paper, "refusal_ablated"), refusal[1]),
        ("Quality, circuit ablated", _published_quality(paper), refusal[2]),
    ]
    st.dataframe(
        pd.DataFrame(rows, columns=["", "paper", "here"]),
        hide_index=True,
        column_config={"": st.column_config.TextColumn(width=165), "paper": st.column_config.TextColumn(width=58)},
        key="published-and-measured",
        height="content",
    )
    words = "The paper does not report this model. " if paper is None else ""
    st.caption(
        f"**How to read this.** {words}Other prompts, another detector and often another circuit size: compare the "
        "direction, not the digits. “Here” fills when you find the gate and run an evaluation of this model."
    )


def draw_tables() -> None:
    """The paper's tables."""
    st.subheader("What the paper claims", anchor=False)
    reports = published()
    st.markdown(
        f"On {reports.paper.benchmark}: a circuit of 0.1 % of the neurons sits mostly in the last layers, and ablating "
        "it removes most refusals while answers stay fluent; random neurons of the same layers change nothing; "
        f"{reports.experiments.knowledge}."
    )
    ablation, comparison, where = st.tabs(["Full ablation", "Against CAA", "Where it sits"])
    with ablation:
        st.caption(reports.experiments.full_ablation)
        _table(
            {"model": model.title, "layers": model.layers, "baseline": a.refusal_baseline, "ablated": a.refusal_ablated}
            for model in reports.models
            if (a := model.full_ablation)
        )
    with comparison:
        st.caption(reports.experiments.comparison)
        _table(
            {
                "model": model.title,
                "CNA refusals": c.cna_refusal,
                "CNA quality": c.cna_quality,
                "CAA refusals": c.caa_refusal,
                "CAA quality": c.caa_quality,
            }
            for model in reports.models
            if (c := model.comparison)
        )
    with where:
        st.caption(reports.experiments.final_three_layers)
        _table(
            {"model": model.title, "kind": model.kind, "layers": model.layers, "in the last 3 layers": share.share}
            for model in reports.models
            if (share := model.final_three_layers)
        )


def _table(rows: Iterable[dict[str, Any]]) -> None:
    frame = pd.DataFrame(list(rows))
    shares = frame.select_dtypes("float").columns
    config = {
        name: st.column_config.NumberColumn(format="%.3f" if "quality" in name else "percent") for name in shares
    }
    st.dataframe(frame, hide_index=True, column_config=config, height="content")


def _published_share(paper: PublishedModel | None) -> str:
    share = paper.final_three_layers if paper is not None else None
    return NOTHING if share is None else ("about " if share.approximate else "") + percent(share.share)


def _published_rate(paper: PublishedModel | None, name: str) -> str:
    report = (paper.full_ablation or paper.base_against_instruct) if paper is not None else None
    return NOTHING if report is None else percent(getattr(report, name))


def _published_quality(paper: PublishedModel | None) -> str:
    if paper is None or (paper.comparison is None and paper.base_against_instruct is None):
        return NOTHING
    if paper.comparison is not None:
        return f"{paper.comparison.cna_quality:.3f}"
    return f"{paper.base_against_instruct.quality:.3f}" if paper.base_against_instruct else NOTHING


def _measured_share() -> str:
    try:
        circuit = session.circuit()
    except CnaError:
        circuit = None
    if circuit is None:
        return NOTHING
    return f"{percent(circuit.concentration(3))} of {len(circuit):,}{_by_chance(circuit)}"


def _by_chance(circuit: Circuit) -> str:
    """What shuffled labels give, where the Gate page has computed it."""
    recorded = session.activations()
    known = evidence.known(recorded, circuit) if recorded is not None else None
    return "" if known is None else f" (shuffled {percent(known.null.concentration(3).mean)})"


def _measured_refusal(name: str) -> tuple[str, str, str]:
    """Refusals at baseline, refusals and quality when ablated, from the newest run of the model that has them."""
    for stored in stored_runs():
        if not stored.finished or stored.about.model.name != name:
            continue
        try:
            run = Run.load(Journal(stored.identity).folder / "run.json")
        except CnaError:  # damaged: the Evaluate page says so; an older run may do
            continue
        ablated = [point for point in run.series("cna") if point.strength == 1]
        if run.baseline is not None and ablated:
            size = f" at {100 * ablated[0].fraction:g} %" if ablated[0].fraction else ""
            quality = ablated[0].quality
            return (
                _rate(run.baseline),
                _rate(ablated[0]) + size,
                NOTHING if quality is None else f"{quality:.3f}",
            )
    return NOTHING, NOTHING, NOTHING


def _rate(point: Point) -> str:
    estimate = point.estimate("refusal_rate")
    if estimate is None:
        return NOTHING
    value, low, high = estimate
    return f"{percent(value)} ({100 * low:.0f}–{100 * high:.0f})"
