"""The pages that the tour leads to, and what it can know without the libraries that models need."""

from typing import NamedTuple

import streamlit as st


class Stop(NamedTuple):
    """A step's place.

    Args:
        page: the name of its page.
        title: its title.
    """

    page: str
    title: str


STOPS = (
    Stop("gate", "The map"),
    Stop("neurons", "One neuron"),
    Stop("chat", "The slider"),
    Stop("chat", "Two answers"),
    Stop("chat", "The control"),
)


class AnswerSeen(NamedTuple):
    """The answer that Chat writes or wrote last.

    Args:
        key: its job's key; "" if nothing was asked.
        ended: whether it has ended.
    """

    key: str
    ended: bool


def answer_seen() -> AnswerSeen:
    """The answer that Chat writes or wrote last, as it is now."""
    job = st.session_state.get("chat-stream")
    return AnswerSeen("", True) if job is None else AnswerSeen(job.key, job.finished)
