"""An answer as tokens that can be clicked, each in the colour of what is shown of it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import streamlit as st
from numpy.typing import NDArray

from cna_core.decoding.conversation import Answer, Turn
from cna_core.figures import palette
from cna_core.figures.lanes import visible_text
from cna_core.shown import VISIBLE
from pages.chatting.answers import colour_of, footer_markup, header_markup, name_of, parted_at
from pages.common import style

Shade = Literal["activity", "surprise", "divergence"]
SHADES: dict[Shade, str] = {"activity": "Activity", "surprise": "Surprise", "divergence": "Divergence"}
LEAST_LIMIT = {"activity": 1e-6, "surprise": 3.0, "divergence": 0.5}
"""Full colour is never less than this: nats, except for activity."""
PALE = 0.2
"""How far from the middle of the diverging scale full activity is drawn: the text on it stays readable."""

_here = Path(__file__)
_tokens = st.components.v2.component(
    "refusal_gate_tokens",
    html='<div class="tokens" data-testid="answer-tokens" role="group" dir="auto"></div>',
    css=_here.with_name("tokens.css").read_text(encoding="utf-8"),
    js=_here.with_name("tokens.js").read_text(encoding="utf-8"),
)


def numbers(answer: Answer, shade: Shade) -> NDArray[np.float64]:
    """(tokens,) what is shown of each token; NaN where it is not known. Surprise is −ln of the token's probability."""
    known = {"activity": answer.activity, "surprise": answer.logprobs, "divergence": answer.divergence}[shade]
    values = np.array([np.nan if value is None else value for value in known], dtype=np.float64)
    return -values if shade == "surprise" else values


def limit_of(turn: Turn, shade: Shade) -> float:
    """The number that gets full colour, the same for all answers of the turn."""
    values = np.abs(np.concatenate([numbers(answer, shade) for answer in turn.answers] or [np.zeros(0)]))
    known = values[np.isfinite(values)]
    return max(float(np.percentile(known, 99)) if len(known) else 0.0, LEAST_LIMIT[shade])


def draw(answer: Answer, turn: Turn, shade: Shade, picked: int | None, on_pick: Callable[[int], None]) -> None:
    """The answer under its name, token by token.

    Args:
        picked: the token whose card is open, or None.
        on_pick: called with the token that was clicked.
    """
    key = f"chat-answer-tokens-{answer.kind}"
    st.html(header_markup(answer))
    data: dict[str, Any] = {
        "tokens": _drawn(answer, shade, limit_of(turn, shade)),
        "picked": picked,
        "parted": parted_at(answer, turn),
        "begun": answer.begun,
        "thought": answer.thought_tokens,
        "lane": colour_of(answer),
        "label": f"{name_of(answer)}, token by token. Arrow keys move, Enter opens a token's card.",
    }

    def told() -> None:
        place = st.session_state[key].get("pick")
        if place is not None and 0 <= int(place) < len(answer.token_ids):
            on_pick(int(place))

    _tokens(key=key, data=data, on_pick_change=told)
    st.html(footer_markup(answer, turn))


def _drawn(answer: Answer, shade: Shade, limit: float) -> list[tuple[str, str, str, str]]:
    """(text, colour, ink, what is known of it) of each token."""
    dark = style.is_dark()
    shown, titles = numbers(answer, shade), [numbers(answer, each) for each in SHADES]
    found = []
    for place, piece in enumerate(answer.token_texts[: len(shown)]):
        colour = _colour(float(shown[place]), shade, limit, colour_of(answer), dark)
        activity, surprise, divergence = (float(values[place]) for values in titles)
        words = [f"“{visible_text(piece)}”"]
        words += [f"activity {activity:+.3g}"] if np.isfinite(activity) else []
        words += [f"surprise {surprise:.2f} nats"] if np.isfinite(surprise) else []
        words += [f"KL {divergence:.2f} nats"] if np.isfinite(divergence) else []
        found.append((piece.translate(VISIBLE), colour, palette.ink_on(colour) if colour else "", " · ".join(words)))
    return found


def _colour(value: float, shade: Shade, limit: float, lane: str, dark: bool) -> str:
    if not np.isfinite(value):
        return ""
    if shade == "activity":
        return palette.colour_at(palette.diverging(dark), 0.5 + PALE * max(-1.0, min(1.0, value / limit)))
    end = palette.muted(dark) if shade == "surprise" else lane
    return palette.colour_at([(0.0, palette.background(dark)), (1.0, end)], 0.8 * min(1.0, max(0.0, value) / limit))
