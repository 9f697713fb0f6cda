"""A row of figures, each with what it is held against: the first thing that a page says."""

import html
from collections.abc import Sequence
from typing import NamedTuple

import streamlit as st

LONG = 10
"""Characters of a figure that would not fit on its line at full size."""


class Card(NamedTuple):
    """One figure.

    Args:
        label: what it is.
        value: the figure as it is read.
        note: its control or uncertainty, in small print.
        help: more, shown while the pointer rests on the card.
    """

    label: str
    value: str
    note: str = ""
    help: str = ""


def row(cards: Sequence[Card]) -> None:
    """Draw cards side by side; they wrap where the page is narrow. Everything in them is shown as text."""
    st.html(f'<div class="cards">{"".join(map(_markup, cards))}</div>')


def _markup(card: Card) -> str:
    label, value, note, more = (html.escape(part, quote=True) for part in card)
    size = "card-value" if len(card.value) < LONG else "card-value long"
    return (
        f'<div class="card" data-testid="card" title="{more}"><div class="card-label">{label}</div>'
        f'<div class="{size}">{value}</div><div class="card-note">{note}</div></div>'
    )
