"""The token inspector: both answers token by token, the card of a token, and the maps of the circuit at work.

A click runs this part of the page again and nothing else; only going on from an alternative redraws the page.
"""

import functools

import numpy as np
import pandas as pd
import streamlit as st

from cna_core.circuits.circuit import Circuit
from cna_core.decoding.conversation import Conversation, Turn
from cna_core.decoding.inspection import Reading, prompt_steering, read_again
from cna_core.figures.token_map import LaneActivity, token_map
from cna_core.interventions.change import NEUTRAL
from cna_core.models.host import host
from cna_core.progress import Progress
from cna_core.progress_words import progress_in_words
from cna_core.prompts.chat_format import encode
from pages.chatting import branching, token_card, token_text
from pages.chatting.answers import colour_of, name_of, parted_at
from pages.common import charts, keys, style
from pages.common.plain import plain
from pages.common.recent import Recent

MAP = "chat-token-map"
READINGS_KEPT = 8


def colour_switch() -> None:
    """What tokens are coloured by."""
    st.segmented_control(
        "Colour of tokens",
        list(token_text.SHADES),
        default="activity",
        required=True,
        key="chat-shade",
        format_func=lambda shade: token_text.SHADES[shade],
        persist_state="session",
        help="Activity of the circuit, surprise (−ln of the token's probability), or the steered model's divergence "
        "from the unsteered one at this token.",
    )


@st.fragment
def draw(circuit: Circuit, conversation: Conversation, turn: Turn) -> None:
    """The last turn's answers, the open card, and the maps."""
    running = st.session_state.get(branching.STREAM)
    if running is not None and not running.finished:
        st.rerun()  # an alternative was chosen: the whole page shows how it is written
    colour_switch()
    picked = _picked(turn)
    shade: token_text.Shade = st.session_state.get("chat-shade") or "activity"
    for number, column in enumerate(st.columns(len(turn.answers), gap="medium")):
        with column:
            mine = picked[1] if picked is not None and picked[0] == number else None
            token_text.draw(turn.answers[number], turn, shade, mine, functools.partial(_pick, turn, number))
    if picked is not None:
        with st.container(border=True, key="chat-token-card"):
            token_card.draw(conversation, turn, *picked, on_close=lambda: _pick(turn, None, 0))
    _draw_map(circuit, turn, picked)
    _draw_prompt(circuit, turn)


def _picked(turn: Turn) -> tuple[int, int] | None:
    """(lane, token) of the open card."""
    found = st.session_state.get(keys.TOKEN_PICKED)
    if found is None or found[0] != turn.sent_at:
        return None
    _, lane, place = found
    return (lane, place) if lane < len(turn.answers) and place < len(turn.answers[lane].token_ids) else None


def _pick(turn: Turn, lane: int | None, place: int) -> None:
    st.session_state[keys.TOKEN_PICKED] = None if lane is None else (turn.sent_at, lane, place)


def _pick_from_map(turn: Turn) -> None:
    state = st.session_state.get(MAP) or {}
    points = (state.get("selection") or {}).get("points") or []
    if points and (data := points[-1].get("customdata")) is not None:
        lane, place = (data[at] for at in ((0, 1) if isinstance(data, list) else ("0", "1")))
        _pick(turn, round(lane), round(place))


def _draw_map(circuit: Circuit, turn: Turn, picked: tuple[int, int] | None) -> None:
    layers = np.unique(circuit.layers).tolist()
    if not any(answer.token_ids and answer.layer_activity[0] is not None for answer in turn.answers):
        st.caption("These answers were not recorded token by token. Press *Regenerate* to record them.")
        return
    lanes = []
    for answer in turn.answers:
        rows = [[np.nan] * len(layers) if row is None else row for row in answer.layer_activity]
        lanes.append(
            LaneActivity(
                f"{name_of(answer)}: before the multiplier" if answer.strength else name_of(answer),
                colour_of(answer),
                answer.token_texts[: len(rows)],
                np.array(rows, dtype=np.float32).reshape(len(rows), len(layers)),
                None if answer.kind == "baseline" else token_text.numbers(answer, "divergence"),
                parted_at(answer, turn),
            )
        )
    charts.show(
        token_map(lanes, layers, circuit.model.layers, picked=picked, dark=style.is_dark()),
        MAP,
        "A column is a token, a row a layer: the sum of sign(δ) · activation over the layer's circuit neurons, divided "
        "by the circuit's size. Vermilion is the direction of refused prompts, blue the opposite. In steered lanes it "
        "is what steering then changes. Dotted: the first token that differs. Click a token to open its card.",
        data=lambda: _table(turn, layers),
        on_select=lambda: _pick_from_map(turn),
    )


def _table(turn: Turn, layers: list[int]) -> pd.DataFrame:
    """One row a token of an answer."""
    rows = []
    for answer in turn.answers:
        texts = answer.token_texts
        surprise, divergence = (token_text.numbers(answer, shade) for shade in ("surprise", "divergence"))
        for place, token in enumerate(answer.token_ids):
            activity = answer.layer_activity[place] or ()
            rows.append(
                {"lane": answer.kind, "strength": answer.strength, "token": place + 1, "token_id": token}
                | {"text": texts[place], "in_thought": place < answer.thought_tokens}
                | {"surprise_nats": surprise[place], "kl_nats": divergence[place]}
                | {f"layer_{layer}": value for layer, value in zip(layers, activity, strict=False)}
            )
    return pd.DataFrame(rows)


# --- the message ---


def _draw_prompt(circuit: Circuit, turn: Turn) -> None:
    """The same map of the prompt, read again on demand."""
    readings: Recent[list[Reading]] = st.session_state.setdefault(keys.PROMPT_READINGS, Recent(READINGS_KEPT))
    found, request = readings.get(turn.sent_at), branching.request_of(turn)
    if found is None:
        if request is None:
            return
        st.button(
            "Show the prompt's tokens too",
            key="chat-read-prompt",
            type="tertiary",
            icon=":material/menu_book:",
            on_click=lambda: st.session_state.update({"chat-read-prompt-of": turn.sent_at}),
        )
        if st.session_state.get("chat-read-prompt-of") != turn.sent_at:
            return
        said = st.empty()

        def progress(told: Progress) -> None:
            said.caption(plain(progress_in_words(told)))

        said.caption("Reading the prompt again …")
        found = []
        with host.acquire(request.model_name, **request.load_options, progress=progress) as model:
            for lane in request.decoded_lanes(model):
                change = prompt_steering(model, lane, request.circuit) if request.steer_prompt else NEUTRAL
                prompt = encode(model, lane.messages, lane.thinking)
                found.append(read_again(model, prompt, [change], request.circuit))
        readings.put(turn.sent_at, found)
        said.empty()
    charts.show(
        token_map(
            [
                LaneActivity(name_of(answer), colour_of(answer), reading.tokens, reading.activity[0])
                for answer, reading in zip(turn.answers, found, strict=True)
            ],
            found[0].layers,
            circuit.model.layers,
            title="The circuit's activity when each token of the prompt was read",
            token_axis="token of the prompt, chat template included",
            dark=style.is_dark(),
        ),
        "chat-prompt-map",
        "As above, for the tokens that the model reads before it answers: a prompt's last token chooses the answer's "
        "first one.",
    )
