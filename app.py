"""Refusal Gate Explorer: navigation, theme and sidebar."""

import streamlit as st

from cna_core import threads

threads.share_cores()  # before anything imports torch

from cna_core.errors import CnaError  # noqa: E402
from pages.common import libraries, sidebar, style  # noqa: E402
from pages.common.plain import tell_error  # noqa: E402
from pages.touring import tour  # noqa: E402

PAGES = {
    "gate": ("Gate", ":material/door_front:"),
    "neurons": ("Neurons", ":material/scatter_plot:"),
    "chat": ("Chat", ":material/forum:"),
    "evaluate": ("Evaluate", ":material/monitoring:"),
    "compare": ("Compare", ":material/compare_arrows:"),
    "method": ("Method", ":material/menu_book:"),
}

st.set_page_config(page_title="Refusal Gate Explorer", page_icon="🚪", layout="wide")
style.apply()

page = st.navigation(
    [
        st.Page(f"pages/{name}.py", title=title, icon=icon, default=name == "gate")
        for name, (title, icon) in PAGES.items()
    ],
    position="top",
)
with libraries.drawing():
    sidebar.draw()
    tour.draw(page.url_path or "gate")
    try:
        if page.title != "Gate":  # the Gate page draws its beginning without them
            libraries.wait_on_page()
        page.run()
    except CnaError as error:
        tell_error(error, icon=":material/error:")
libraries.start()
sidebar.catch_up()
tour.catch_up()
