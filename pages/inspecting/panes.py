"""Columns that stack in a narrow window. Streamlit's own columns stay side by side down to 640 pixels."""

from collections.abc import Sequence
from typing import Literal

import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from cna_core.paths import ASSETS


def apply() -> None:
    """Load the stylesheet. Call it once on a page."""
    st.html(ASSETS / "theme" / "panes.css")


def side_by_side(key: str, shares: Sequence[int], gap: Literal["small", "large"] = "small") -> list[DeltaGenerator]:
    """Columns as from `st.columns`, in a container with a key that is unique on the page."""
    return st.container(key=f"panes-{key}").columns(shares, gap=gap)
