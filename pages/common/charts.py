"""Draw a chart: the figure, one line on how to read it, and downloads."""

from collections.abc import Callable
from typing import Any

import pandas as pd
import plotly.graph_objects as go
import streamlit as st

from pages.common import chosen_circuit, keys


def show(
    figure: go.Figure,
    key: str,
    how_to_read: str,
    data: pd.DataFrame | Callable[[], pd.DataFrame] | None = None,
    on_select: Callable[[], None] | None = None,
    file_name: str | None = None,
    data_name: str = "Data (CSV)",
    transfer: str | None = None,
) -> None:
    """Draw `figure` with its line on how to read it and its downloads.

    Args:
        key: the chart's widget key; a click's selection is at `st.session_state[key]`.
        how_to_read: one sentence, drawn in grey under the chart.
        data: the chart's data for the CSV download; a callable is called only on download.
        data_name: the label of the CSV download.
        transfer: a sentence if the charted circuit was found on another model; None: as the session's circuit says.
        on_select: called after a click on a mark. Store the selection there: a redrawn chart forgets it.
    """
    name = file_name or key
    selection: dict[str, Any] = {} if on_select is None else {"on_select": on_select, "selection_mode": "points"}
    camera = {"format": _camera_format(), "filename": name, "scale": 2}
    st.plotly_chart(
        figure,
        key=key,
        height=figure.layout.height or "content",
        config={"displaylogo": False, "toImageButtonOptions": camera},
        **selection,
    )
    words, take = st.columns([14, 1], vertical_alignment="top")
    note = chosen_circuit.transfer_note() if transfer is None else transfer
    words.caption(" ".join(filter(None, (f"**{note}**" if note else "", f"**How to read this.** {how_to_read}"))))
    with take.popover("", icon=":material/download:", help="Download this chart", type="tertiary"):
        _offer_downloads(figure, key, name, data, data_name)


def _offer_downloads(
    figure: go.Figure,
    key: str,
    name: str,
    data: pd.DataFrame | Callable[[], pd.DataFrame] | None,
    data_name: str,
) -> None:
    before = _camera_format()
    control = f"{key}-camera-{before}"  # the key names the format, so that a choice at one chart shows at all charts
    st.segmented_control(
        "The chart's camera button saves",
        ["svg", "png"],
        default=before,
        required=True,
        key=control,
        format_func=str.upper,
        on_change=lambda: st.session_state.update({keys.CAMERA_FORMAT: st.session_state[control]}),
    )
    st.download_button(
        "Chart (HTML)",
        lambda: figure.to_html(),
        f"{name}.html",
        "text/html",
        key=f"{key}-html",
        on_click="ignore",
    )
    if data is not None:
        st.download_button(
            data_name, lambda: _csv(data), f"{name}.csv", "text/csv", key=f"{key}-csv", on_click="ignore"
        )


def _camera_format() -> str:
    return str(st.session_state.get(keys.CAMERA_FORMAT, "svg"))


def _csv(data: pd.DataFrame | Callable[[], pd.DataFrame]) -> str:
    return (data() if callable(data) else data).to_csv(index=False)
