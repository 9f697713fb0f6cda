"""Answers that flipped: the baseline's answers beside those of one setting, prompt by prompt."""

from typing import cast, get_args

import streamlit as st

from cna_core.evaluation.runs import Run, SetName
from cna_core.evaluation.setting import DEFAULT_TREATMENT, Setting
from cna_core.evaluation.tables import Direction, answers_beside, steered_settings
from pages.inspecting import panes


def draw(run: Run, fraction: float | None) -> None:
    """Draw the choices, the table, the chosen row in full, and the download.

    Args:
        fraction: the circuit size that is shown.
    """
    first, second, third = panes.side_by_side("flips", [2, 3, 2])
    every: tuple[SetName, ...] = ("harmful", "benign", "borderline")
    sets = [kind for kind in every if steered_settings(run, kind)]
    if not sets:
        st.caption("This run generated no answers.")
        return
    kind: SetName = first.selectbox("Prompts", sets, key="evaluate-flips-set")
    settings = list(steered_settings(run, kind))
    wanted = Setting(DEFAULT_TREATMENT.method, 1.0, fraction)
    ablated = settings.index(wanted) if wanted in settings else 0
    setting = second.selectbox(
        "Compare the baseline with", settings, index=ablated, format_func=_named, key="evaluate-flips-of"
    )
    shown = third.selectbox(
        "Show", ["answered now", "refused now", "all that flipped", "every answer"], index=2, key="evaluate-flips-show"
    )
    direction: Direction = cast(Direction, shown) if shown in get_args(Direction) else "all"
    table = answers_beside(run, setting, kind, direction, only_flipped=shown != "every answer")
    words = st.text_input("Only rows that contain", key="evaluate-flips-words", placeholder="words")
    if words:
        text = table[["request", "baseline", "steered"]].agg(" ".join, axis=1) if len(table) else table["request"]
        table = table[text.str.contains(words, case=False, regex=False)]
    st.caption(f"{len(table)} of {run.settings.count_of(kind)} prompts. Select a row to read the full answers.")
    medium, small = st.column_config.TextColumn(width="medium"), st.column_config.TextColumn(width="small")
    picked = st.dataframe(
        table,
        hide_index=True,
        key="evaluate-flips",
        on_select="rerun",
        selection_mode="single-row",
        column_order=["request", "before", "baseline", "after", "steered"],
        column_config={"request": medium, "before": small, "baseline": medium, "after": small, "steered": medium},
    )
    rows = [row for row in picked["selection"]["rows"] if row < len(table)]
    if rows:
        row = table.iloc[rows[0]]
        st.text(row["request"])
        for column, side, verdict in zip(st.columns(2), ("baseline", "steered"), ("before", "after"), strict=True):
            column.caption(f"{side.capitalize()} · {row[verdict]}")
            column.code(row[side], language=None, wrap_lines=True)
    st.download_button(
        "These answers (CSV)",
        table.to_csv(index=False),
        "answers.csv",
        "text/csv",
        key="evaluate-flips-csv",
        on_click="ignore",
    )


def _named(setting: Setting) -> str:
    size = f", {100 * setting.fraction:g} %" if setting.fraction else ""
    return f"{setting.treatment.label}{size} at strength {setting.strength:g}"
