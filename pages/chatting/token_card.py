"""The card of one token: its alternatives, the most active neurons, and buttons to continue from another token."""

import html
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pandas as pd
import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from cna_core.decoding import inspection
from cna_core.decoding.conversation import Conversation, Turn
from cna_core.decoding.inspection import Alternative, TokenCard
from cna_core.errors import CnaError
from cna_core.figures.lanes import shown_token
from cna_core.figures.token_map import alternatives_chart
from cna_core.models.host import host
from cna_core.progress import Progress
from cna_core.progress_words import progress_in_words
from pages.chatting import branching
from pages.chatting.answers import colour_of, name_of
from pages.common import keys, style
from pages.common.plain import plain, tell
from pages.common.recent import Recent

CARDS_KEPT = 64


def draw(conversation: Conversation, turn: Turn, lane: int, place: int, on_close: Callable[[], None]) -> None:
    """The card of token `place` of the turn's answer number `lane`."""
    title, close = st.columns([12, 1], vertical_alignment="center")
    said = title.empty()
    close.button(
        "", icon=":material/close:", help="Close the card", type="tertiary", key="token-close", on_click=on_close
    )
    try:
        card = _card(turn, lane, place, said)
    except CnaError as error:
        tell(error, said, icon=":material/info:")
        return
    if card is None:
        said.caption("The settings of this answer are no longer known. Press *Regenerate*, then open the token again.")
        return
    said.html(_title(card, name_of(turn.answers[lane])))
    left, right = st.columns([6, 7], gap="medium")
    with left:
        _draw_alternatives(turn, lane, card)
    with right:
        _draw_neurons(card)
    _draw_going_on(conversation, turn, lane, card)


def _title(card: TokenCard, lane: str) -> str:
    figures = f"surprise {card.surprise:.2f} nats · KL(steered ‖ baseline) {card.divergence:.3f} nats"
    return (
        f'<div class="token-title" data-testid="token-card">{lane}, token {card.place + 1}: '
        f"<b>{shown_token(card.text)}</b><span>{figures}</span></div>"
    )


def _draw_alternatives(turn: Turn, lane: int, card: TokenCard) -> None:
    steered = turn.answers[lane] if lane else turn.answers[min(1, len(turn.answers) - 1)]
    chosen = next(number for number, one in enumerate(card.alternatives) if one.token == card.token)
    st.plotly_chart(
        alternatives_chart(
            [one.text for one in card.alternatives],
            np.array([one.baseline for one in card.alternatives]),
            np.array([one.steered for one in card.alternatives]),
            np.array([one.without_steering_here for one in card.alternatives]),
            chosen,
            colour=colour_of(steered),
            dark=style.is_dark(),
        ),
        key="token-alternatives",
        config={"displayModeBar": False},
    )
    st.caption(
        "All three probabilities are after the same text. Hollow: steered before this token, but not at it. So the "
        "step from hollow to full is the effect of steering at this token, and from blue to hollow its earlier effect."
    )


def _draw_neurons(card: TokenCard) -> None:
    effects = any(one.effect is not None for one in card.neurons)
    table = pd.DataFrame(
        [
            {
                "layer": one.layer,
                "neuron": one.neuron,
                "activation": one.activation,
                "unsteered": one.baseline,
                "δ": one.delta,
                **({"effect": one.effect} if effects else {}),
                "tokens it writes": " ".join(f"“{shown_token(token)}”" for token in map(str.strip, one.writes)),
            }
            for one in card.neurons
        ]
    )
    st.markdown("**Most active circuit neurons**")
    number = st.column_config.NumberColumn(format="%.3g", width="small")
    st.dataframe(
        table,
        hide_index=True,
        key="token-neurons",
        column_config={
            "layer": st.column_config.NumberColumn(width=50),
            "neuron": st.column_config.NumberColumn(width=64),
            "activation": number,
            "unsteered": number,
            "δ": number,
            "effect": number,
        },
    )
    st.caption(
        "Activation: in this answer, before the multiplier. Unsteered: in the unsteered model after the same text. "
        "Writes: the tokens whose logits the neuron raises most."
    )


def _draw_going_on(conversation: Conversation, turn: Turn, lane: int, card: TokenCard) -> None:
    """Buttons with the alternatives: one click, and all lanes continue from there."""
    offered = [one for one in card.alternatives if one.token != card.token and not one.ends]
    st.markdown("**Continue from another token** in its place. Both answers continue from there.")
    with st.container(horizontal=True, gap="small", key="token-go-on"):
        for one in offered:
            st.button(
                _label(one),
                key=f"token-go-on-{one.token}",
                on_click=branching.go_on,
                args=(conversation, turn, lane, card.place, one),
                help=f"baseline {one.baseline:.1%}, steered {one.steered:.1%}",
            )


def _label(alternative: Alternative) -> str:
    text = shown_token(alternative.text)
    text = html.unescape(text).strip() or "␣"
    return plain(text)


def _card(turn: Turn, lane: int, place: int, said: DeltaGenerator) -> TokenCard | None:
    """The card, computed now or earlier; None where what the turn asked for is not known."""
    kept: Recent[TokenCard] = st.session_state.setdefault(keys.TOKEN_CARDS, Recent(CARDS_KEPT))
    key = (turn.sent_at, lane, place)
    card, request = kept.get(key), branching.request_of(turn)
    if card is not None or request is None:
        return card

    def progress(told: Progress) -> None:
        said.caption(plain(progress_in_words(told)))

    said.caption("Reading the answer up to this token …")
    with host.acquire(request.model_name, **request.load_options, progress=progress) as model:
        lanes = request.decoded_lanes(model)
        mine, answer = lanes[lane], turn.answers[lane]
        begun = answer.begun if place >= answer.begun else 0
        card = inspection.token_card(
            model,
            mine if begun else replace(mine, begun=()),
            answer.token_ids[begun:],
            place - begun,
            request.circuit,
            beside=lanes[1] if len(lanes) > 1 else None,
            steer_prompt=request.steer_prompt,
        )
    card = replace(card, place=place)
    kept.put(key, card)
    return card
