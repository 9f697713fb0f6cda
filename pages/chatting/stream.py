"""The decode of a chat turn: a background job that lives as long as its browser session.

A rerun (a slider moves, another page opens) interrupts the page's script, but not the decode; the next run shows its
state. When the session ends, because the tab was closed, the decode stops and frees the model.
"""

import contextlib
import threading
import time
import uuid
from typing import Any

from cna_core.decoding.conversation import Turn
from cna_core.decoding.inspection import begun_steps
from cna_core.decoding.lanes import Lane, generate
from cna_core.models.host import host
from cna_core.models.loaded import LoadedModel
from cna_core.progress import Stage, tell
from pages.chatting.asking import Request
from pages.chatting.prefixes import prefixes_of
from pages.common import jobs

PATIENCE_SECONDS = 2.0
"""How long an answer continues after its page has disconnected."""


def start(turn: Turn, request: Request) -> jobs.Job:
    """Start generating the turn's answers. The turn's outcome is set before the job counts as finished."""

    def work(job: jobs.Job) -> None:
        watching: dict[str, Any] = {"progress": job.progress, "stop": job.stop}
        with host.acquire(request.model_name, **request.load_options, **watching) as model:
            lanes = request.decoded_lanes(model, job)
            tell(job.progress, Stage.READING_MESSAGE)
            _write(turn, request, lanes, model, job.stop)

    def note(job: jobs.Job) -> None:
        turn.stopped, turn.error = job.stopped, job.error

    return jobs.start(f"chat-{uuid.uuid4().hex}", "Answer", work, patience_seconds=PATIENCE_SECONDS, ended=note)


def _write(turn: Turn, request: Request, lanes: list[Lane], model: LoadedModel, stop: threading.Event) -> None:
    started_at = time.monotonic()
    for number, lane in enumerate(lanes):
        if lane.begun:
            watching: dict[str, Any] = {"number": number, "steer_prompt": request.steer_prompt, "stop": stop}
            turn.answers[number].begin(begun_steps(model, lane, request.circuit, **watching))
    steps = generate(
        model,
        lanes,
        request.circuit,
        max_new_tokens=request.max_new_tokens,
        sampling=request.sampling,
        steer_prompt=request.steer_prompt,
        record=True,
        measure=request.measure or model.dtype.itemsize == 2,
        prefixes=prefixes_of(model),
        stop=stop,
    )
    with contextlib.closing(steps):
        for step in steps:
            turn.answers[step.lane].add(step, time.monotonic() - started_at)
