"""Who reads the batches of a capture: one reader, or two at once on a CPU.

Two trees of tokens at once, each on half of the cores, are read faster than one after the other on all of them
(benchmarks/capture.py): what is not matrix multiplication makes poor use of further cores. Each reader has modules of
its own on the same weights. Knows token ids; knows nothing about prompts, classes or statistics.
"""

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, CancelledError, Executor, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from functools import cache
from typing import ParamSpec, Self, TypeVar

import torch
from torch import Tensor

from cna_core.circuits.last_tokens import first_tree, last_token_neurons, prefix_to_come
from cna_core.circuits.prefix import Prefix
from cna_core.models.loaded import LoadedModel
from cna_core.models.memory import if_memory_allows
from cna_core.models.twin import can_have_twin, twin

Given = ParamSpec("Given")
Result = TypeVar("Result")

FEWEST_TOKENS = 128
"""Tokens that a reader must find to do. About there, two neither gain nor lose (benchmarks/capture.py --prompts 10)."""


def readers_at_once(model: LoadedModel, tokens: int) -> int:
    """2 on a CPU whose threads can be shared evenly, if there are tokens enough for both; 1 otherwise."""
    shares = model.device.type == "cpu" and torch.get_num_threads() % 2 == 0 and can_have_twin(model)
    return 2 if shares and tokens >= 2 * FEWEST_TOKENS else 1


@dataclass(frozen=True)
class Batch:
    """What a reader reads: which rows, with what, and whether it was the only reader when it began."""

    rows: list[int]
    model: LoadedModel
    prefix: Prefix
    alone: bool


class Readers:
    """Readers at work: `begin` a batch while one is `idle`, and take what has been read by `next_read`.

    A reader that runs out of memory goes, unless it is the last, so that the other finds more. Use as a context
    manager: leaving waits for those at work, and after an exception stops them.

    Args:
        model: what they read with; nobody else uses it meanwhile.
        count: how many; more than one only as `readers_at_once` says.
        shared: how many tokens all rows begin with.
        prefix: their keys and values; None: the first batch brings them along, as a tree.
        as_tree: compute what several rows of a batch begin with once; only where `reads_trees`.
    """

    def __init__(
        self,
        model: LoadedModel,
        count: int,
        shared: int,
        prefix: Prefix | None,
        as_tree: bool,
        stop: threading.Event | None,
    ) -> None:
        self.idle = [model, *(twin(model) for _ in range(count - 1))]
        self.shared, self.prefix, self.as_tree, self.halt = shared, prefix, as_tree, _EitherStop(stop)
        self.reading: dict[Future[Tensor | None], Batch] = {}
        self.hands = _threads(count, torch.get_num_threads()) if count > 1 else _Here()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, problem: object, *_: object) -> None:
        if problem is not None:
            self.halt.set()
            if self.prefix is not None:
                self.prefix.give_up()
        wait(self.reading)

    def begin(self, rows: list[int], tokens: Sequence[Sequence[int]]) -> None:
        """Let an idle reader read some rows, whose whole token ids are given."""
        model = self.idle.pop(0)
        prefix, first = self.prefix, False
        if prefix is None or prefix.is_lost:
            prefix, first = prefix_to_come(model, self.shared), True
            self.prefix = prefix
        batch = Batch(rows, model, prefix, alone=not self.idle and not self.reading)
        self.reading[self.hands.submit(self._read, model, tokens, prefix, first)] = batch

    def next_read(self) -> tuple[Batch, Tensor | None]:
        """A batch that has been read, and its neurons (rows, total neurons) in the model's dtype; None instead of them
        where memory ran short. Waits for it."""
        done = wait(self.reading, return_when=FIRST_COMPLETED).done.pop()
        neurons = done.result()
        batch = self.reading.pop(done)
        if neurons is None and not batch.prefix.is_here:
            batch.prefix.give_up()  # if another waits for it, that one ends as well
        if neurons is not None or (not self.reading and not self.idle):
            self.idle.append(batch.model)
        return batch, neurons

    @torch.no_grad()
    def _read(self, model: LoadedModel, tokens: Sequence[Sequence[int]], prefix: Prefix, first: bool) -> Tensor | None:
        if first:
            return if_memory_allows(first_tree, model, tokens, prefix, self.halt)
        rest = [row[prefix.length :] for row in tokens]
        try:
            return if_memory_allows(last_token_neurons, model, rest, prefix, self.halt, self.as_tree)
        except CancelledError:  # the reader that was to bring the prefix did not
            return None


class _EitherStop(threading.Event):
    """Set by itself, or by another event."""

    def __init__(self, other: threading.Event | None) -> None:
        super().__init__()
        self.other = other

    def is_set(self) -> bool:
        return super().is_set() or (self.other is not None and self.other.is_set())


class _Here(Executor):
    """Does at once what it is given, in the caller's thread, which knows its process's CUDA device."""

    def submit(self, work: Callable[Given, Result], /, *given: Given.args, **named: Given.kwargs) -> Future[Result]:
        future: Future[Result] = Future()
        try:
            future.set_result(work(*given, **named))
        except Exception as problem:  # noqa: BLE001  # handed on by `Future.result`
            future.set_exception(problem)
        return future


@cache
def _threads(count: int, everyone: int) -> ThreadPoolExecutor:
    """Threads that work, each with its share of the `everyone` threads that this one has for an operation.

    They stay: memory that a thread has used is taken again faster than what is new to it.
    """
    ready = threading.Barrier(count + 1)

    def begin() -> None:
        torch.set_num_threads(everyone // count)
        torch.get_num_threads()  # makes it this thread's: a thread takes on what was set last when it first asks
        ready.wait()

    hands = ThreadPoolExecutor(count, "reader", begin)
    for _ in range(count):
        hands.submit(int)  # a thread comes with each, as those before it wait
    ready.wait()
    torch.set_num_threads(everyone)
    return hands
