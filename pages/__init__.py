"""The pages of the app. app.py registers them with Streamlit and draws what they share.

Streamlit treats a folder named `pages` as its older kind of multipage app, in which a page runs without app.py, until
`st.navigation` has run once in the process. If the first visit to a new server went straight to a page's address, that
page would have no sidebar and would lose its link. So importing this package turns the older kind off, and reruns the
script if it was started that way.
"""

import streamlit as st
from streamlit.runtime.pages_manager import PagesManager

if PagesManager.uses_pages_directory:
    PagesManager.uses_pages_directory = False
    st.rerun()
