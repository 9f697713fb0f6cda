"""Record every neuron at the last token of every prompt, fast: `capture`.

The common beginning of all prompts (chat template, system prompt) is computed once. The rest runs in batches with a
token budget (last_tokens.py), either as trees of prompts with common beginnings or sorted by length. Batches are halved
if memory is short, and shared between processes if there are several. The result is cached on disk.

The caller must hold the model (models/host.py).
"""

import hashlib
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cna_core.circuits.activations import CACHE, FORMAT, Activations
from cna_core.circuits.circuit import Circuit
from cna_core.circuits.last_tokens import last_token_neurons, reads_trees, run_prefix, shares_prefix
from cna_core.circuits.processes import Processes, processes_for
from cna_core.circuits.token_tree import tree_batches
from cna_core.errors import ModelError
from cna_core.models.layout import ModelIdentity
from cna_core.models.loaded import LoadedModel
from cna_core.models.memory import if_memory_allows
from cna_core.progress import Report, Stage, raise_if_stopped, tell
from cna_core.prompts.chat_format import encode, shared_prefix_length
from cna_core.prompts.sets import ContrastSet

Partial = Callable[[NDArray[np.float32], int], None]
"""Called between batches with δ so far (total,) and the number of prompts it is based on."""

BATCH_TOKENS = {"cpu": 640, "mps": 4_096, "cuda": 16_384}
"""Tokens in a batch by kind of device: the smallest efficient number, so that δ is updated often."""
TREE_TOKENS = 2_048
"""Batches of up to this many tokens run as trees, because attention within a tree grows with its square."""
_PREFIX_TOKENS_PER_BATCH_TOKEN = 8  # copies of the shared prefix's keys and values that a batch may need


def capture(
    model: LoadedModel,
    contrast: ContrastSet,
    *,
    progress: Report | None = None,
    stop: threading.Event | None = None,
    partial: Partial | None = None,
    batch_tokens: int | None = None,
    use_cache: bool = True,
) -> Activations:
    """Record the contrast set's activations, or read them from the cache folder.

    Under `torchrun` and `accelerate launch`, the processes share the batches, and all end with all activations.

    Args:
        model: the model, held by the caller.
        contrast: the prompts.
        progress: reports the number of prompts recorded.
        stop: stops the recording.
        partial: called with δ so far after every batch, once both classes have prompts.
        batch_tokens: tokens in a batch, including padding; the device's default if not given.
        use_cache: whether to read the result from the cache folder, and to store it there.

    Raises:
        PromptError: a prompt is empty or longer than the model's context.
        ModelError: a single prompt does not fit in memory.
        StoppedError: `stop` was set; checked between layers.
    """
    processes = processes_for(model.device)
    tokens = [encode(model, prompt) for prompt in contrast.prompts]
    depends_on = _depends_on(model, tokens, contrast.sha256)
    found = CACHE.find(*depends_on) if use_cache else None
    everywhere = all(processes.gather(found is not None))
    if found is None or not everywhere:
        recording = _Recording(model, tokens, contrast.is_positive, processes, progress, stop, partial)
        values = recording.run(batch_tokens or _usual_batch_tokens(model))
        neurons, residual = values[:, : model.layout.total], values[:, model.layout.total :]
        found = Activations.of_values(
            model.identity,
            contrast.positive.prompts,
            contrast.negative.prompts,
            contrast.sha256,
            neurons,
            residual.reshape(len(residual), 2, model.layout.layers, -1),
        )
        if use_cache and processes.writes:
            CACHE.keep(found, *depends_on)
        processes.gather(None)  # so that the next call finds it stored
    else:
        tell(progress, Stage.READING_KEPT, len(tokens), len(tokens), "prompts")
    if use_cache and processes.writes:
        CACHE.note(depends_on, *_known_before(model.identity, contrast.sha256))
    if partial is not None:
        partial(found.delta, len(tokens))
    return found


def kept_activations(name: str, revision: str, dtype: str, contrast: ContrastSet) -> Activations | None:
    """The activations that an earlier `capture` stored, without the model; None if there are none.

    Args:
        name, revision, dtype: the model, as in its `ModelIdentity`.
    """
    return CACHE.find_noted(FORMAT, name, revision, dtype, contrast.sha256)


def kept_activations_of(circuit: Circuit) -> Activations | None:
    """The stored activations that a circuit was selected from, without the model; None if they are not here."""
    model, prompts = circuit.model, circuit.prompts
    found = CACHE.find_noted(FORMAT, model.name, model.revision, model.dtype, prompts.sha256)
    if found is None or found.model != model:
        return None
    counts = (len(found.positive), len(found.negative))
    return found if counts == (prompts.positive, prompts.negative) else None  # or it used some of them only


def _known_before(identity: ModelIdentity, contrast_sha256: str) -> list[object]:
    return [FORMAT, identity.name, identity.revision, identity.dtype, contrast_sha256]


@dataclass
class _Recording:
    """One run over this process's share of the prompts."""

    model: LoadedModel
    tokens: Sequence[Sequence[int]]
    is_positive: NDArray[np.bool_]
    processes: Processes
    progress: Report | None
    stop: threading.Event | None
    partial: Partial | None

    def __post_init__(self) -> None:
        self.prompts = len(self.tokens)  # of this process
        self.recorded: list[tuple[list[int], Tensor]] = []  # prompts, and their neurons (prompts, total) on the CPU
        self.stage = Stage.CAPTURING
        self.sums: Tensor | None = None  # (2, total) float32 where the batches come from: negative, positive
        self.counts = np.zeros(2, dtype=np.int64)

    @torch.no_grad()
    def run(self, batch_tokens: int) -> Tensor:
        """(prompts, values) on the CPU in the model's dtype, from all processes: see `last_token_neurons`."""
        shared = shared_prefix_length(self.tokens) if shares_prefix(self.model) else 0
        rows = {index: tokens[shared:] for index, tokens in enumerate(self.tokens)}
        self._tell()
        raise_if_stopped(self.stop)
        prefix = if_memory_allows(run_prefix, self.model, self.tokens[0][:shared], self.stop)
        if prefix is None:
            raise self._too_little_memory()
        as_tree = batch_tokens <= TREE_TOKENS and reads_trees(self.model, max(map(len, self.tokens)))
        planned = self._planned(rows, shared, batch_tokens, as_tree)
        if len(planned) < self.processes.count and self.model.device.type != "cpu":  # leave no GPU idle
            planned = self._planned(rows, shared, -(-sum(map(len, rows.values())) // self.processes.count), as_tree)
        # Processes share batches, not prompts, so that the results do not depend on the number of processes.
        waiting = self.processes.share(classes_together(planned, self.is_positive))
        self.prompts = sum(map(len, waiting))
        while waiting:
            raise_if_stopped(self.stop)
            batch = waiting.pop(0)
            suffixes = [rows[index] for index in batch]
            neurons = if_memory_allows(last_token_neurons, self.model, suffixes, prefix, self.stop, as_tree)
            if neurons is not None:
                self._take(batch, neurons)
            elif len(batch) == 1:
                raise self._too_little_memory()
            else:
                waiting = self._halved([batch, *waiting])
        return self._gathered()

    def _planned(
        self, rows: Mapping[int, Sequence[int]], shared: int, batch_tokens: int, as_tree: bool
    ) -> list[list[int]]:
        return tree_batches(rows, batch_tokens) if as_tree else padded_batches(rows, shared, batch_tokens)

    def _gathered(self) -> Tensor:
        parts = [part for process in self.processes.gather(self.recorded) for part in process]
        values = torch.empty(len(self.tokens), parts[0][1].shape[1], dtype=parts[0][1].dtype)
        for prompts, neurons in parts:
            values[torch.tensor(prompts)] = neurons
        return values

    def _take(self, batch: list[int], neurons: Tensor) -> None:
        self.recorded.append((batch, neurons.cpu()))
        self._tell()
        if self.partial is None:
            return
        neurons = neurons[:, : self.model.layout.total]
        if self.sums is None:
            self.sums = torch.zeros(2, neurons.shape[1], device=neurons.device)
        positive = self.is_positive[batch]
        for side in (0, 1):
            rows = torch.from_numpy(np.flatnonzero(positive == side)).to(neurons.device)
            self.sums[side] += neurons[rows].float().sum(0)
            self.counts[side] += len(rows)
        if self.counts.all():
            delta = self.sums[1] / int(self.counts[1]) - self.sums[0] / int(self.counts[0])
            self.partial(delta.cpu().numpy(), int(self.counts.sum()))

    def _halved(self, batches: list[list[int]]) -> list[list[int]]:
        self.stage = Stage.CAPTURING_IN_HALVES
        self._tell()
        limit = (len(batches[0]) + 1) // 2
        return [batch[start : start + limit] for batch in batches for start in range(0, len(batch), limit)]

    def _too_little_memory(self) -> ModelError:
        return ModelError(
            f"There is too little memory for a single prompt with {self.model.name}; close other programs, choose a "
            "smaller model, or load it with offload or quantisation."
        )

    def _tell(self) -> None:
        tell(self.progress, self.stage, sum(len(batch) for batch, _ in self.recorded), self.prompts, "prompts")


def padded_batches(rows: Mapping[int, Sequence[int]], prefix_length: int, batch_tokens: int) -> list[list[int]]:
    """Batches of prompts of similar length, within the token budget.

    Args:
        rows: the tokens of each prompt that are not shared, by the prompt's number.
        prefix_length: the number of tokens that all prompts share.
        batch_tokens: the limit for a batch's rows times its longest prompt; a single prompt may exceed it.
    """
    batches: list[list[int]] = []
    for index in sorted(rows, key=lambda index: (len(rows[index]), index)):
        count = len(batches[-1]) + 1 if batches else 1
        prefix_copies = count * prefix_length > batch_tokens * _PREFIX_TOKENS_PER_BATCH_TOKEN
        if count == 1 or count * len(rows[index]) > batch_tokens or prefix_copies:
            batches.append([])
        batches[-1].append(index)
    return batches


def classes_together(batches: Sequence[list[int]], is_positive: NDArray[np.bool_]) -> list[list[int]]:
    """The batches in an order in which both classes progress together.

    Args:
        is_positive: (prompts,) bool.
    """
    planned, left = [], list(batches)
    everything = [index for batch in batches for index in batch]
    share = is_positive[everything].mean() if everything else 0
    positives = prompts = 0
    while left:  # take the batch that brings the share of positives so far closest to that of the whole set
        off = [abs((positives + is_positive[batch].sum()) / (prompts + len(batch)) - share) for batch in left]
        planned.append(left.pop(int(np.argmin(off))))
        positives, prompts = positives + int(is_positive[planned[-1]].sum()), prompts + len(planned[-1])
    return planned


def _usual_batch_tokens(model: LoadedModel) -> int:
    # Offloaded weights are loaded once for each batch, which takes longer than the batch itself: use few large batches.
    offloaded = any(weight.is_meta for weight in model.network.parameters())
    return BATCH_TOKENS.get("cuda" if offloaded else model.device.type, BATCH_TOKENS["mps"])


def _depends_on(model: LoadedModel, tokens: Sequence[Sequence[int]], contrast_sha256: str) -> list[object]:
    """Everything that activations depend on: model, a sample of its weights, tokens (which include the template)."""
    identity = model.identity.model_dump(mode="json")
    return [FORMAT, identity, list(map(list, tokens)), contrast_sha256, weights_sample(model)]


def weights_sample(model: LoadedModel) -> str:
    """A hash of a few numbers of every weight, which changes if the model is trained further or quantised."""
    digest = hashlib.sha256()
    for name, weight in model.network.named_parameters():
        digest.update(f"{name} {tuple(weight.shape)} {weight.dtype}".encode())
        if weight.device.type != "meta" and weight.numel():
            flat = weight.detach().reshape(-1)
            few = flat[:: max(1, flat.numel() // 32)][:32]
            digest.update(few.contiguous().view(torch.uint8).cpu().numpy().tobytes())
    return digest.hexdigest()
