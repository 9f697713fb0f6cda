"""The decode of a chat turn: a background job that lives as long as its browser session.

A rerun (a slider moves, another page opens) interrupts the page's script, but not the decode; the next run shows its
state. When the session ends, because the tab was closed, the decode stops and frees the model. The chats of several
sessions with one model are written together (`SharedDecode`).
"""

import contextlib
import threading
import time
import uuid
from typing import Any

from cna_core.decoding.conversation import Turn
from cna_core.decoding.inspection import begun_steps
from cna_core.decoding.lanes import requests
from cna_core.decoding.shared import Asked, SharedDecode
from cna_core.models.host import host
from cna_core.models.loaded import LoadedModel
from pages.chatting.asking import Request
from pages.chatting.prefixes import prefixes_of
from pages.common import jobs

PATIENCE_SECONDS = 2.0
"""How long an answer continues after its page has disconnected."""


_decodes: dict[str, SharedDecode] = {}  # they hold a model only while they write
_lock = threading.Lock()


def start(turn: Turn, request: Request) -> jobs.Job:
    """Start generating the turn's answers. The turn's outcome is set before the job counts as finished."""

    def work(job: jobs.Job) -> None:
        started_at = 0.0

        def prepare(model: LoadedModel) -> Asked:
            nonlocal started_at
            asked = _asked(turn, request, model, job)
            started_at = time.monotonic()
            return asked

        steps = decode_of(request).write(prepare, stop=job.stop, progress=job.progress)
        with contextlib.closing(steps):
            for step in steps:
                turn.answers[step.lane].add(step, time.monotonic() - started_at)

    def note(job: jobs.Job) -> None:
        turn.stopped, turn.error = job.stopped, job.error

    return jobs.start(f"chat-{uuid.uuid4().hex}", "Answer", work, patience_seconds=PATIENCE_SECONDS, ended=note)


def decode_of(request: Request) -> SharedDecode:
    """The running decode that all sessions' chats with this model share."""
    options = request.load_options
    with _lock:
        key = repr((request.model_name, sorted(options.items())))
        return _decodes.setdefault(key, SharedDecode(host, request.model_name, options, prefixes_of))


def _asked(turn: Turn, request: Request, model: LoadedModel, job: jobs.Job) -> Asked:
    """The turn's answers, for a thread that holds the model."""
    lanes = request.decoded_lanes(model, job)
    for number, lane in enumerate(lanes):
        if lane.begun:
            watching: dict[str, Any] = {"number": number, "steer_prompt": request.steer_prompt, "stop": job.stop}
            turn.answers[number].begin(begun_steps(model, lane, request.circuit, **watching))
    settings: dict[str, Any] = {"max_new_tokens": request.max_new_tokens, "sampling": request.sampling, "record": True}
    measure = request.measure or model.dtype.itemsize == 2
    wanted = requests(model, lanes, request.circuit, measure=measure, **settings)
    return Asked(wanted, request.circuit, request.steer_prompt)
