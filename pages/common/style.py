"""The stylesheet, and whether the theme is dark."""

import streamlit as st

from cna_core.paths import ASSETS


def apply() -> None:
    """Load the project's stylesheet into the page."""
    st.html(ASSETS / "theme" / "app.css")


def is_dark() -> bool:
    """Whether the browser shows the dark theme; figures that draw on the background need to know."""
    return st.context.theme.type == "dark"
