"""A row of cards at the top of a page: each shows a number and its control or interval."""

import html
from collections.abc import Sequence
from typing import NamedTuple

import streamlit as st

LONG = 10
"""Values of at least this many characters are set smaller, to fit on one line."""


class Card(NamedTuple):
    """One number.

    Args:
        label: its name.
        value: the number, formatted.
        note: its control or interval, in small print.
        help: the card's tooltip.
    """

    label: str
    value: str
    note: str = ""
    help: str = ""


def row(cards: Sequence[Card]) -> None:
    """Draw cards side by side; they wrap on a narrow page. Their contents are shown as plain text."""
    st.html(f'<div class="cards">{"".join(map(_markup, cards))}</div>')


def _markup(card: Card) -> str:
    label, value, note, more = (html.escape(part, quote=True) for part in card)
    size = "card-value" if len(card.value) < LONG else "card-value long"
    return (
        f'<div class="card" data-testid="card" title="{more}"><div class="card-label">{label}</div>'
        f'<div class="{size}">{value}</div><div class="card-note">{note}</div></div>'
    )
