"""Draw a chart: the figure, a line that opens and says how to read it, and downloads."""

import contextlib
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import plotly.graph_objects as go
import streamlit as st

from pages.common import chosen_circuit, keys, style
from pages.common.plain import plain
from pages.common.recent import Recent

if TYPE_CHECKING:  # the first page is drawn before pandas is imported
    import pandas as pd

FIGURES_KEPT = 48


@st.cache_resource(show_spinner=False)
def _figures() -> Recent[go.Figure]:
    return Recent(FIGURES_KEPT)


def kept(key: tuple[object, ...], make: Callable[[], go.Figure]) -> go.Figure:
    """A figure that is made once for all sessions: plotly needs 30 to 40 ms for each. Do not change it.

    Args:
        key: hashable; what the figure depends on besides the theme.
        make: makes it.
    """
    key = (*key, style.is_dark())
    figure = _figures().get(key)
    if figure is None:
        figure = make()
        _figures().put(key, figure)
    return figure


def show(
    figure: go.Figure,
    key: str,
    how_to_read: str,
    data: "pd.DataFrame | Callable[[], pd.DataFrame] | None" = None,
    on_select: Callable[[], None] | None = None,
    file_name: str | None = None,
    data_name: str = "Data (CSV)",
    transfer: str | None = None,
    always: str = "",
) -> None:
    """Draw `figure` with a line that opens and says how to read it, and its downloads.

    Args:
        key: the chart's widget key; a click's selection is at `st.session_state[key]`.
        how_to_read: a sentence or two, behind a line under the chart.
        data: the chart's data for the CSV download; a callable is called only on download.
        data_name: the label of the CSV download.
        transfer: a sentence if the charted circuit was found on another model; None: as the session's circuit says.
        on_select: called after a click on a mark. Store the selection there: a redrawn chart forgets it.
        always: a sentence that is shown without opening the line, such as what the chart is about.
    """
    draw(figure, key, on_select=on_select, file_name=file_name)
    with st.container(horizontal=True, vertical_alignment="top", gap="small"):
        explain([how_to_read], transfer, always)
        offer_downloads(figure, key, file_name, data, data_name)


def draw(
    figure: go.Figure,
    key: str,
    *,
    on_select: Callable[[], None] | None = None,
    file_name: str | None = None,
    tall: bool = False,
) -> None:
    """Draw `figure` alone; for the arguments see `show`.

    Args:
        tall: take a little more than half of the window's height instead of the figure's own height.
    """
    selection: dict[str, Any] = {} if on_select is None else {"on_select": on_select, "selection_mode": "points"}
    camera = {"format": _camera_format(), "filename": file_name or key, "scale": 2}
    with st.container(key=f"tall-{key}", gap=None) if tall else contextlib.nullcontext():
        st.plotly_chart(
            figure,
            key=key,
            height="stretch" if tall else figure.layout.height or "content",
            config={"displaylogo": False, "toImageButtonOptions": camera},
            **selection,
        )


def explain(how_to_read: Sequence[str], transfer: str | None = None, always: str = "") -> None:
    """The line "How to read this" that opens. That a circuit was found on another model is always shown.

    Args:
        how_to_read: a paragraph for each chart.
        transfer, always: as for `show`.
    """
    note = chosen_circuit.transfer_note() if transfer is None else transfer
    with st.container(gap=None):
        if note or always:
            st.caption(" ".join(filter(None, (f"**{plain(note)}**" if note else "", always))))
        with st.expander("How to read this", type="compact"):
            for words in how_to_read:
                st.caption(words)


def offer_downloads(
    figure: go.Figure,
    key: str,
    file_name: str | None = None,
    data: "pd.DataFrame | Callable[[], pd.DataFrame] | None" = None,
    data_name: str = "Data (CSV)",
    help: str = "Download this chart",
) -> None:
    """A small button that opens the chart's downloads; for the arguments see `show`."""
    with st.popover("", icon=":material/download:", help=help, type="tertiary"):
        _offer_downloads(figure, key, file_name or key, data, data_name)


def _offer_downloads(
    figure: go.Figure,
    key: str,
    name: str,
    data: "pd.DataFrame | Callable[[], pd.DataFrame] | None",
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


def _csv(data: "pd.DataFrame | Callable[[], pd.DataFrame]") -> str:
    return (data() if callable(data) else data).to_csv(index=False)
