"""Refusal Gate Explorer: navigation, theme, sidebar. Nothing else."""

import streamlit as st

from pages.common import sidebar, style

st.set_page_config(page_title="Refusal Gate Explorer", page_icon="🚪", layout="wide")
style.apply()

page = st.navigation(
    [
        st.Page("pages/gate.py", title="Gate", icon=":material/door_front:", default=True),
        st.Page("pages/neurons.py", title="Neurons", icon=":material/scatter_plot:"),
        st.Page("pages/chat.py", title="Chat", icon=":material/forum:"),
        st.Page("pages/evaluate.py", title="Evaluate", icon=":material/monitoring:"),
        st.Page("pages/compare.py", title="Compare", icon=":material/compare_arrows:"),
        st.Page("pages/method.py", title="Method", icon=":material/menu_book:"),
    ],
    position="top",
)
sidebar.draw()
page.run()
