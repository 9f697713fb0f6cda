"""Chat's settings for models that think: whether they do, and in which part steering acts."""

import streamlit as st

from cna_core.decoding.lanes import SteeredPart
from cna_core.models.host import host
from cna_core.models.loaded import LoadedModel
from cna_core.prompts.chat_format import ThinkingFormat, thinking_format
from pages.common import session

THINKING, STEERS = "chat-thinking", "chat-steers"
PARTS: dict[SteeredPart, str] = {"both": "both", "thought": "thought only", "answer": "answer only"}


def form() -> ThinkingFormat | None:
    """How the session's model thinks; None if it does not, or is not in memory yet."""
    model = host.in_memory(session.model_name(), **session.load_options())
    return None if model is None else thinking_format(model)


def draw_settings() -> None:
    """Draw the settings, if the model thinks."""
    found = form()
    if found is None or not (found.has_switch or found.by_default):
        return
    how = "Its chat template has a switch." if found.has_switch else "Off, an empty thought stands before the answer."
    thinks = st.toggle(
        "Thinking",
        found.by_default,
        key=THINKING,
        persist_state="session",
        help=f"Whether the model writes a thought before its answer. {how} The maximum length covers both.",
    )
    st.segmented_control(
        "Steering acts in",
        list(PARTS),
        default="both",
        required=True,
        key=STEERS,
        format_func=lambda part: PARTS[part],
        disabled=not thinks,
        persist_state="session",
        help="Thought only: the unsteered model reads the thought and writes the answer, so the answers differ only "
        "because of the thought's words. Answer only: the unsteered model writes the thought, the steered model reads "
        "it and writes the answer.",
    )


def wanted() -> bool | None:
    """Whether the model is asked to think; None: as its template decides."""
    found = st.session_state.get(THINKING)
    return None if found is None else bool(found)


def steered_part() -> SteeredPart:
    """The part in which steering acts."""
    return st.session_state.get(STEERS) or "both"


def settled(model: LoadedModel, thinking: bool | None, part: SteeredPart) -> tuple[bool, SteeredPart]:
    """The settings that apply to this model: one that does not think has no thought to steer."""
    found = thinking_format(model)
    thinks = found is not None and found.thinks(thinking)
    return thinks, part if thinks else "both"


def meter_note() -> str:
    """What the gate meter says of a model that thinks, in a sentence; "" for one that does not."""
    found = form()
    if found is None or not found.thinks(wanted()):
        return ""
    return (
        " It is read with thinking off: it says how the answer opens without a thought, and cannot say how it opens "
        "after one."
    )
