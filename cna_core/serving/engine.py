"""The thread that runs the endpoint's model: answers share one decode, and other work runs between two tokens.

This module knows the decode session and threads; it knows nothing about HTTP.
"""

import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

from cna_core.decoding.lanes import end_tokens
from cna_core.decoding.prefix_cache import PrefixCaches
from cna_core.decoding.session import DecodeSession, Request, Step
from cna_core.errors import CnaError
from cna_core.models.loaded import LoadedModel

Event = Step | Exception


class Answer:
    """One answer that the engine generates.

    Args:
        request: the prompt, steering and sampling.
        tell: called in the engine's thread with each step, or with the error that ended the answer.
    """

    def __init__(self, request: Request, tell: Callable[[Event], None]) -> None:
        self.request, self.tell = request, tell
        self.is_over = False
        """Whether the client no longer waits for it; the engine drops its row before the next token."""


@dataclass
class _Work:
    do: Callable[[LoadedModel, PrefixCaches], Any]
    future: "Future[Any]"


class Engine:
    """One model and the thread that runs it; all use of the model goes through here.

    Args:
        model: the model; the engine has exclusive use of it.
    """

    def __init__(self, model: LoadedModel) -> None:
        self.model = model
        self.prefixes = PrefixCaches(model)
        self.session = DecodeSession(model, end_tokens(model), prefixes=self.prefixes)
        self._answers: dict[int, Answer] = {}
        self._inbox: queue.SimpleQueue[Answer | _Work | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        self._closed = False

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def close(self) -> None:
        """End the thread after the present token; running answers end with an error."""
        self._closed = True
        self._inbox.put(None)
        self._thread.join()

    @property
    def answers(self) -> int:
        """The number of waiting and running answers."""
        return self.session.answers

    @property
    def rows(self) -> int:
        """The number of rows of the running batch."""
        return self.session.rows

    def write(self, answers: list[Answer]) -> None:
        """Add answers at the next token, together, so that a shared prompt is computed once."""
        for answer in answers:
            self._inbox.put(answer)

    def do(self, work: Callable[[LoadedModel, PrefixCaches], Any]) -> "Future[Any]":
        """Run a function with the model and its prefix caches, between two tokens."""
        future: Future[Any] = Future()
        self._inbox.put(_Work(work, future))
        return future

    def _run(self) -> None:
        while not self._closed:
            self._take_in()
            self._let_go()
            if not self.session.answers:
                continue
            try:
                steps = self.session.step()
            except Exception as error:  # noqa: BLE001  whatever it was: those who wait must hear of it
                self._fail(error)
                continue
            for step in steps:
                answer = self._answers[step.lane]
                if step.finished:
                    del self._answers[step.lane]
                answer.tell(step)
        self._fail(CnaError("The endpoint is closing; send the request again later."))

    def _take_in(self) -> None:
        """Process new work; wait for some if there are no answers to generate."""
        wait = not self.session.answers
        while True:
            try:
                item = self._inbox.get(block=wait)
            except queue.Empty:
                return
            if isinstance(item, Answer):
                self._answers[self.session.add(item.request)] = item
            elif isinstance(item, _Work):
                self._work(item)
            wait = False
            if item is None:
                return

    def _work(self, work: _Work) -> None:
        if not work.future.set_running_or_notify_cancel():
            return
        try:
            work.future.set_result(work.do(self.model, self.prefixes))
        except Exception as error:  # noqa: BLE001  the caller gets it
            work.future.set_exception(error)

    def _let_go(self) -> None:
        for ticket in [ticket for ticket, answer in self._answers.items() if answer.is_over]:
            self.session.remove(ticket)
            del self._answers[ticket]

    def _fail(self, error: Exception) -> None:
        self.session.release()
        answers, self._answers = list(self._answers.values()), {}
        for answer in answers:
            answer.tell(error)
