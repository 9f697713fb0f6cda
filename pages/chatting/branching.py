"""Branches of the last turn, which continue from another token. The original turn is kept."""

from dataclasses import replace

import streamlit as st

from cna_core.decoding.conversation import Answer, Branch, Conversation, Turn
from cna_core.decoding.inspection import Alternative
from pages.chatting import stream
from pages.chatting.answers import name_of
from pages.chatting.asking import AskedLane, Request
from pages.common import jobs, keys

STREAM = "chat-stream"


def start(conversation: Conversation, turn: Turn, request: Request) -> None:
    """Begin to generate a turn that is in the conversation, and remember what it asked for."""
    st.session_state.setdefault(keys.REQUESTS, {})[turn.sent_at] = request
    st.session_state[keys.TOKEN_PICKED] = None
    st.session_state[STREAM] = stream.start(turn, request)


def request_of(turn: Turn) -> Request | None:
    """What a turn asked for; None for a turn of before this page was loaded."""
    found: dict[float, Request] = st.session_state.get(keys.REQUESTS, {})
    return found.get(turn.sent_at)


def go_on(conversation: Conversation, turn: Turn, lane: int, place: int, alternative: Alternative) -> None:
    """Callback: let all lanes continue from the lane's text up to a token, with another token in its place."""
    request, running = request_of(turn), st.session_state.get(STREAM)
    if request is None or (isinstance(running, jobs.Job) and not running.finished):
        return
    source = turn.answers[lane]
    begun = (*source.token_ids[:place], alternative.token)
    answers = [
        Answer(answer.kind, answer.strength, method=answer.method, steers=answer.steers) for answer in turn.answers
    ]
    lanes = [AskedLane(asked.messages, answer, begun) for asked, answer in zip(request.lanes, answers, strict=True)]
    branch = Branch(source.kind, place, alternative.token, alternative.text)
    other = Turn(turn.message, answers, turn.settings, branch=branch)
    conversation.branch_last(other)
    start(conversation, other, replace(request, lanes=lanes))


def draw_versions(conversation: Conversation) -> None:
    """Buttons for the versions of the last turn, where there are several."""
    versions = conversation.last_versions
    if len(versions) < 2:
        return
    shown = next(place for place, turn in enumerate(versions) if turn is conversation.turns[-1])
    key = f"chat-version-{len(versions)}-{shown}"  # named by what it shows: a branch of before must not come back
    st.segmented_control(
        "Versions of this turn",
        range(len(versions)),
        default=shown,
        required=True,
        key=key,
        format_func=lambda place: _name(versions[place]),
        on_change=lambda: _show(conversation, int(st.session_state[key])),
        help="Each branch continues both answers from another token.",
    )


def _show(conversation: Conversation, place: int) -> None:
    conversation.show_last(place)
    st.session_state[keys.TOKEN_PICKED] = None


def _name(turn: Turn) -> str:
    if turn.branch is None:
        return "First answers"
    lane = next(answer for answer in turn.answers if answer.kind == turn.branch.kind)
    return f"{name_of(lane)}, token {turn.branch.place + 1}: {_quoted(turn.branch.text)}"


def _quoted(text: str) -> str:
    """A token inside a label, in which Markdown must not take anything for markup."""
    shown = text.replace("\n", "⏎").strip() or "␣"
    return "“" + "".join(f"\\{letter}" if letter in "\\`*_{}[]()#+-.!|<>$~:" else letter for letter in shown) + "”"
