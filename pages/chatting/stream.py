"""The decode behind a turn of the chat: a background job that lives as long as its browser session does.

A script that is rerun (a slider moves, another page opens) leaves its thread in the middle; here the decode goes on,
and whatever run comes next looks again. When the session has gone, because the tab was closed, it ends and the model is
free.
"""

import contextlib
import threading
import time
import uuid
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from cna_core.circuits.circuit import Circuit
from cna_core.decoding.conversation import Turn
from cna_core.decoding.lanes import Lane, generate
from cna_core.decoding.prefix_cache import PrefixCaches
from cna_core.models.host import host
from cna_core.models.loaded import LoadedModel
from cna_core.progress import Stage, tell
from pages.common import jobs

PATIENCE_SECONDS = 2.0
"""How long an answer is written on when its page has gone."""

_prefixes: "weakref.WeakKeyDictionary[LoadedModel, PrefixCaches]" = weakref.WeakKeyDictionary()
_prefixes_lock = threading.Lock()


def prefixes_of(model: LoadedModel) -> PrefixCaches:
    """What a model in memory has read, for all sessions; to be used while holding the model."""
    with _prefixes_lock:
        return _prefixes.setdefault(model, PrefixCaches(model))


@dataclass(frozen=True)
class Request:
    """What is to be decoded, and on which model; everything is read from the session before the thread starts.

    Args:
        measure: measure activity and divergence even where that costs time. In 16 bits a row more costs nothing, so
            there it is always measured, and can be looked at later.
    """

    model_name: str
    load_options: dict[str, Any]
    lanes: Sequence[Lane]
    circuit: Circuit
    options: dict[str, Any]
    measure: bool = False


def start(turn: Turn, request: Request) -> jobs.Job:
    """Begin to write the turn's answers; the turn knows how it ended before the job is seen finished."""

    def work(job: jobs.Job) -> None:
        watching: dict[str, Any] = {"progress": job.progress, "stop": job.stop}
        with host.acquire(request.model_name, **request.load_options, **watching) as model:
            tell(job.progress, Stage.READING_MESSAGE)
            _write(turn, request, model, job.stop)

    def note(job: jobs.Job) -> None:
        turn.stopped, turn.error = job.stopped, job.error

    return jobs.start(f"chat-{uuid.uuid4().hex}", "Answer", work, patience_seconds=PATIENCE_SECONDS, ended=note)


def _write(turn: Turn, request: Request, model: LoadedModel, stop: threading.Event) -> None:
    started_at = time.monotonic()
    steps = generate(
        model,
        request.lanes,
        request.circuit,
        **request.options,
        measure=request.measure or model.dtype.itemsize == 2,
        prefixes=prefixes_of(model),
        stop=stop,
    )
    with contextlib.closing(steps):
        for step in steps:
            turn.answers[step.lane].add(step, time.monotonic() - started_at)
