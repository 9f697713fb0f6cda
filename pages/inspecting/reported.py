"""The paper's results as tables, and beside them what was measured here for the chosen model."""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import pandas as pd
import streamlit as st

from cna_core.circuits.circuit import Circuit
from cna_core.errors import CnaError
from cna_core.evaluation.journal import Journal, stored_runs
from cna_core.evaluation.measures.quality import Quality
from cna_core.evaluation.measures.refusal_rate import RefusalRate
from cna_core.evaluation.published import PublishedModel, published, published_model
from cna_core.evaluation.runs import Point, Run
from cna_core.evaluation.setting import DEFAULT_TREATMENT
from cna_core.figures.percents import percent
from cna_core.progress_words import counted
from pages.common import charts, chosen_circuit, findings
from pages.common.plain import plain
from pages.inspecting import evidence

NOTHING = "–"


def draw_measured(name: str) -> None:
    """Draw the chosen model's published numbers, if there are any, beside this machine's."""
    st.subheader("Published results and results here", anchor=False)
    paper = published_model(name)
    refusal = _measured_refusal(name)
    rows = [
        ("Circuit, last 3 layers", _published_share(paper), _measured_share()),
        ("Refusals, baseline", _published_rate(paper, "refusal_baseline"), refusal.baseline),
        ("Refusals, circuit ablated", _published_rate(paper, "refusal_ablated"), refusal.ablated),
        ("Quality, circuit ablated", _published_quality(paper), refusal.quality),
    ]
    st.dataframe(
        pd.DataFrame(rows, columns=["", "paper", "here"]),
        hide_index=True,
        column_config={"": st.column_config.TextColumn(width=165), "paper": st.column_config.TextColumn(width=58)},
        key="published-and-measured",
        height="content",
    )
    words = "The paper does not report this model. " if paper is None else ""
    charts.explain(
        [
            f"{words}The prompts, the refusal detector and often the circuit size differ, so compare directions, not "
            "exact numbers. To fill the column “here”, find the gate and evaluate this model."
        ],
        transfer="",
        always=plain(refusal.source),
    )


def draw_tables() -> None:
    """Draw the paper's tables."""
    st.subheader("The paper's results", anchor=False)
    reports = published()
    st.markdown(
        f"On {reports.paper.benchmark}, a circuit of 0.1 % of the neurons sits mostly in the last layers. Ablating it "
        "removes most refusals, and answers stay fluent. Ablating random neurons of the same layers changes nothing. "
        f"{reports.experiments.knowledge[0].upper()}{reports.experiments.knowledge[1:]}."
    )
    ablation, comparison, base, where = st.tabs(
        ["Full ablation", "Against CAA", "Base against instruct", "Where it sits"]
    )
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
    with base:
        st.caption(reports.experiments.base_against_instruct)
        _table(
            {
                "model": model.title,
                "kind": model.kind,
                "baseline": b.refusal_baseline,
                "ablated": b.refusal_ablated,
                "quality": b.quality,
            }
            for model in reports.models
            if (b := model.base_against_instruct)
        )
    with where:
        st.caption(reports.experiments.final_three_layers)
        shares = [(model, share) for model in reports.models if (share := model.final_three_layers)]
        _table(
            (
                {"model": model.title, "kind": model.kind, "layers": model.layers, "in the last 3 layers": share.share}
                for model, share in shares
            ),
            [place for place, (_, share) in enumerate(shares) if share.approximate],
        )


def _table(rows: Iterable[dict[str, Any]], approximate: Sequence[int] = ()) -> None:
    """Draw a table whose numbers sort as numbers and are shown as in the paper; `approximate` rows have a "≈"."""
    frame = pd.DataFrame(list(rows))
    figures = frame.select_dtypes("float").columns
    styled = frame.style.format("{:.3f}".format, subset=[name for name in figures if "quality" in name])
    shares = [name for name in figures if "quality" not in name]
    styled.format(_tenths, subset=shares)
    styled.format(lambda share: f"≈ {_tenths(share)}", subset=pd.IndexSlice[list(approximate), shares])
    st.dataframe(styled, hide_index=True, height="content")


def _tenths(share: float) -> str:
    return f"{100 * share:.3g} %"


def _published_share(paper: PublishedModel | None) -> str:
    share = paper.final_three_layers if paper is not None else None
    return NOTHING if share is None else ("≈ " if share.approximate else "") + percent(share.share)


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
        circuit = chosen_circuit.current()
    except CnaError:
        circuit = None
    if circuit is None:
        return NOTHING
    return f"{percent(circuit.concentration(3))} of {len(circuit):,}{_by_chance(circuit)}"


def _by_chance(circuit: Circuit) -> str:
    """The share with shuffled labels, if the Gate page has computed it."""
    recorded = findings.activations()
    known = evidence.known(recorded, circuit) if recorded is not None else None
    return "" if known is None or known.null is None else f" (shuffled {percent(known.null.concentration(3).mean)})"


class MeasuredHere(NamedTuple):
    """The results of a run on this machine: baseline refusals, refusals and quality when ablated, and its name."""

    baseline: str = NOTHING
    ablated: str = NOTHING
    quality: str = NOTHING
    source: str = ""


def _measured_refusal(name: str) -> MeasuredHere:
    """Results from the newest complete run of the model, whatever its circuit."""
    for stored in stored_runs():
        if not stored.finished or stored.about.model.name != name:
            continue
        try:
            run = Run.load(Journal(stored.identity).folder / "run.json")
        except CnaError:  # damaged, as the Evaluate page shows; use an older run
            continue
        ablated = [point for point in run.series(DEFAULT_TREATMENT) if point.strength == 1]
        if run.baseline is not None and ablated:
            size = f" at {100 * ablated[0].fraction:g} %" if ablated[0].fraction else ""
            quality = ablated[0].estimate(Quality.key)
            return MeasuredHere(
                _rate(run.baseline),
                _rate(ablated[0]) + size,
                NOTHING if quality is None else f"{quality.value:.3f}",
                _source(run, ablated[0], stored.about.name),
            )
    return MeasuredHere()


def _source(run: Run, ablated: Point, name: str) -> str:
    """The run's name, date, circuit and strength in words."""
    named = f"the run “{name}”" if name else "the newest run of this model"
    started = f" of {run.created[:10]}" if run.created else ""
    neurons = run.settings.circuit.get("top_k")
    circuit = f"its circuit of {counted(neurons, 'neuron')}" if isinstance(neurons, int) else "its circuit"
    if ablated.fraction:
        circuit += f" ({100 * ablated.fraction:g} % of all)"
    return f"Refusals and quality here: {named}{started}, {circuit} at strength {ablated.strength:g}."


def _rate(point: Point) -> str:
    estimate = point.estimate(RefusalRate.key)
    return NOTHING if estimate is None else RefusalRate.numbers.estimate(estimate)
