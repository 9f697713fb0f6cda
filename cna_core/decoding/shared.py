"""Answers of several callers, written by one running decode instead of one after the other.

While anybody wants answers of a model, one thread holds it (`models.host`) and writes a token of every answer in turn;
callers join at the next token. Where other work waits for the model, nobody more is let in: the answers that have
begun are finished, and then it is the other work's turn. Knows no pages.
"""

import queue
import threading
from collections.abc import Callable, Generator
from dataclasses import dataclass, field, replace
from typing import Any

from cna_core.circuits.circuit import Circuit
from cna_core.decoding.lanes import end_tokens
from cna_core.decoding.prefix_cache import PrefixCaches
from cna_core.decoding.session import DecodeSession, Request, Step
from cna_core.errors import StoppedError
from cna_core.models.host import ModelHost
from cna_core.models.loaded import LoadedModel
from cna_core.progress import Progress, Report, Stage, raise_if_stopped, tell


@dataclass(frozen=True)
class Asked:
    """What one caller wants written.

    Args:
        requests: its answers; a step's `lane` is the place in this list.
        watched: the circuit whose activity is measured, or None.
        steer_prompt: False steers written tokens only.
    """

    requests: list[Request]
    watched: Circuit | None = None
    steer_prompt: bool = True


@dataclass(eq=False)
class _Call:
    """One caller: what it wants, and what it is told."""

    prepare: Callable[[LoadedModel], Asked]
    stop: threading.Event
    progress: Report | None
    events: "queue.SimpleQueue[list[Step] | BaseException | None]" = field(default_factory=queue.SimpleQueue)
    session: DecodeSession | None = None
    lanes: dict[int, int] = field(default_factory=dict)  # places among its answers, by ticket
    gone: bool = False  # the caller listens no more

    @property
    def is_over(self) -> bool:
        return self.gone or self.stop.is_set()


class _AllOver(threading.Event):
    """Set when none of some callers waits any more; with one caller, as soon as it stops."""

    def __init__(self, calls: Callable[[], list[_Call]]) -> None:
        super().__init__()
        self._calls = calls

    def is_set(self) -> bool:
        calls = self._calls()
        return bool(calls) and all(call.is_over for call in calls)


class SharedDecode:
    """The running decode of one model for any number of callers.

    Args:
        host: who lends the model.
        name, load_options: as for `ModelHost.acquire`.
        prefixes_of: what a model has read before.
    """

    def __init__(
        self,
        host: ModelHost,
        name: str,
        load_options: dict[str, Any],
        prefixes_of: Callable[[LoadedModel], PrefixCaches],
    ) -> None:
        self._host, self._name, self._options, self._prefixes_of = host, name, load_options, prefixes_of
        self._lock = threading.Lock()
        self._waiting: list[_Call] = []
        self._living: list[_Call] = []
        self._ended: list[tuple[_Call, BaseException | None]] = []
        self._sessions: dict[tuple[object, ...], DecodeSession] = {}
        self._running = False

    @property
    def rows(self) -> int:
        """How many rows the running batches have."""
        return sum(session.rows for session in list(self._sessions.values()))

    def write(
        self, prepare: Callable[[LoadedModel], Asked], *, stop: threading.Event, progress: Report | None = None
    ) -> Generator[Step, None, None]:
        """Write a caller's answers; yields one `Step` an answer and token. Close it to let the rows go.

        Args:
            prepare: called in another thread with the model, once it is held; others' answers wait meanwhile.
            stop: when set, no further step is yielded, and `StoppedError` is raised within a token.
            progress: of waiting and loading.

        Raises:
            StoppedError: stopped. Else what `prepare`, loading or the decode raised.
        """
        call, stopped = _Call(prepare, stop, progress), False
        with self._lock:
            self._waiting.append(call)
            if not self._running:
                self._running = True
                threading.Thread(target=self._run, name=f"decode {self._name}", daemon=True).start()
        try:
            while (event := call.events.get()) is not None:
                if isinstance(event, BaseException):
                    raise event
                for step in event:
                    stopped = stopped or stop.is_set()
                    if not stopped:
                        yield step
            if stopped:
                raise_if_stopped(stop)
        finally:
            call.gone = True

    # --- the thread that holds the model ------------------------------------------------------------------------------

    def _run(self) -> None:
        while self._goes_on():
            try:
                self._hold()
            except StoppedError as error:
                self._end([call for call in self._waiting if call.is_over], error)
            except BaseException as error:  # noqa: BLE001  whatever it was, those who wait must hear of it
                self._end([*self._waiting, *self._living], error)
            self._tell_ended()

    def _goes_on(self) -> bool:
        with self._lock:
            self._running = bool(self._waiting)
            return self._running

    def _hold(self) -> None:
        stop = _AllOver(lambda: list(self._waiting))
        with self._host.acquire(self._name, progress=self._tell, stop=stop, **self._options) as model:
            try:
                self._write(model)
            finally:
                for session in self._sessions.values():
                    session.release()
                self._sessions = {}

    def _tell(self, progress: Progress) -> None:
        """Tell those who wait; those who stopped meanwhile wait no more."""
        over = [call for call in self._waiting if call.is_over]
        if over and len(over) < len(self._waiting):
            self._end(over, StoppedError("Stopped. Finished work is saved."))
            self._tell_ended()
        for call in list(self._waiting):
            if call.progress is not None:
                call.progress(progress)

    def _write(self, model: LoadedModel) -> None:
        """Write until everybody has what they asked for, or other work waits and what has begun is finished."""
        self._let_in(model)
        while self._living:
            self._tell_ended()
            for session in list(self._sessions.values()):
                self._step(session)
            self._end([call for call in self._living if call.is_over], StoppedError("Stopped. Finished work is saved."))
            if self._host.others_wait(self._name, **self._options):
                self._tell(Progress(Stage.WAITING_FOR_MODEL, place=1))
            else:
                self._let_in(model)

    def _let_in(self, model: LoadedModel) -> None:
        for call in list(self._waiting):
            try:
                raise_if_stopped(call.stop)
                asked = call.prepare(model)
                call.session = self._session(model, asked)
                tell(call.progress, Stage.READING_MESSAGE)
                call.lanes = {call.session.add(request): place for place, request in enumerate(asked.requests)}
            except BaseException as error:  # noqa: BLE001  the caller gets it; the others' answers go on
                self._end([call], error)
                continue
            with self._lock:
                self._waiting.remove(call)
            self._living.append(call)

    def _session(self, model: LoadedModel, asked: Asked) -> DecodeSession:
        """The session that these answers join. Callers that measure other circuits take turns, token by token."""
        kind = (asked.watched.sha256 if asked.watched is not None else None, asked.steer_prompt)
        if kind not in self._sessions:
            self._sessions[kind] = DecodeSession(
                model,
                end_tokens(model),
                watched=asked.watched,
                steer_prompt=asked.steer_prompt,
                prefixes=self._prefixes_of(model),
                stop=_AllOver(lambda: [call for call in self._living if call.session is self._sessions.get(kind)]),
            )
        return self._sessions[kind]

    def _step(self, session: DecodeSession) -> None:
        """One token of every answer in this session, told to those who asked."""
        calls = [call for call in self._living if call.session is session]
        if not calls:
            return
        try:
            steps = session.step()
        except BaseException as error:  # noqa: BLE001  the callers get it; other sessions go on
            session.release()
            self._end(calls, error)
            return
        for call in calls:
            mine = [replace(step, lane=call.lanes[step.lane]) for step in steps if step.lane in call.lanes]
            call.events.put(mine)
            for step in steps:
                if step.finished:
                    call.lanes.pop(step.lane, None)
        self._end([call for call in calls if not call.lanes], None)

    def _end(self, calls: list[_Call], outcome: BaseException | None) -> None:
        """Let these callers' rows go. They are told with the next token, or once the model is free."""
        for call in calls:
            if call.session is not None:
                for ticket in call.lanes:
                    call.session.remove(ticket)
            call.session, call.lanes = None, {}
            self._ended.append((call, outcome))
        with self._lock:
            self._waiting = [call for call in self._waiting if call not in calls]
        self._living = [call for call in self._living if call not in calls]

    def _tell_ended(self) -> None:
        ended, self._ended = self._ended, []
        for call, outcome in ended:
            call.events.put(outcome)
