"""The pages of the app; app.py names them to Streamlit and draws what they share.

Streamlit takes a folder of this name for its old kind of app, in which a page runs without the main script, until
`st.navigation` has run once in the process: the first visit to a new server, if it goes to a page by its address, would
have no sidebar and lose its link. So the first import of this package says that the folder is none of that kind, and
where a run has begun the old way begins it again.
"""

import streamlit as st
from streamlit.runtime.pages_manager import PagesManager

if PagesManager.uses_pages_directory:
    PagesManager.uses_pages_directory = False
    st.rerun()
