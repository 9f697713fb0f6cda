"""Words from outside on the pages, as plain text: names, messages and errors that may hold what a file or person wrote.

Streamlit reads what it shows as Markdown, in buttons and tooltips too. There, a name could hold an image, which the
browser would fetch from a stranger's server, or a link that looks like one of the app's own.
"""

import re
from typing import Any

import streamlit as st

from cna_core.shown import VISIBLE

_MARKS = re.compile(
    r"[\\`*\[\]<$~]"  # code, emphasis, links, images, HTML, formulas
    r"|(?<![^\W_])_|_(?![^\W_])"  # emphasis, but not the underscore in a_name
    r"|&(?=[#A-Za-z])"  # entities
    r"|:(?=[A-Za-z][\w/-]*[:\[])"  # icons and colours
    r"|^[#>+=|-]"  # headings, quotations, lists
)

_SPACES = re.compile(r"[^\S\u00a0\u202f]+")  # not those that keep a number and its unit together


def plain(text: object) -> str:
    """The text as Markdown that shows every character as it is, on one line; what cannot be shown has a symbol."""
    words = _SPACES.sub(" ", str(text)).strip().translate(VISIBLE)
    return _MARKS.sub(lambda found: f"\\{found[0]}", words)


def tell_error(error: object, place: Any = st, **how: Any) -> None:
    """An error message at this place of the page; the main column if none is given."""
    place.error(plain(error), **how)


def tell(words: object, place: Any = st, **how: Any) -> None:
    """A piece of information at this place of the page."""
    place.info(plain(words), **how)


def toast(words: object) -> None:
    """A message that goes away by itself."""
    st.toast(plain(words))
