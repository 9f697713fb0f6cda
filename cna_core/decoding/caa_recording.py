"""Records the steering vectors of Contrastive Activation Addition: what a layer's MLP adds, positive minus negative.

Knows how to read MLP outputs; the vectors themselves are interventions/caa.py's.
"""

import contextlib
import hashlib
import json
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from cna_core.decoding.prefix_cache import PrefixCaches
from cna_core.decoding.row_batch import RowBatch
from cna_core.errors import CircuitError, ModelError
from cna_core.interventions.caa import FORMAT, CaaVectors
from cna_core.interventions.plan import NEUTRAL, SteeringPlan
from cna_core.models.experts import MixtureLayer
from cna_core.models.layers import DenseLayer, NeuronLayer, decoder_layers
from cna_core.models.loaded import LoadedModel
from cna_core.paths import cache_folder
from cna_core.progress import Report, Stage, raise_if_stopped, tell
from cna_core.prompts.chat_format import encode, shared_prefix_length
from cna_core.prompts.sets import ContrastSet

__all__ = ["CaaVectors", "caa_vectors"]

BATCH_TOKENS = 768


def caa_vectors(
    model: LoadedModel,
    contrast: ContrastSet,
    *,
    progress: Report | None = None,
    stop: threading.Event | None = None,
    use_cache: bool = True,
) -> CaaVectors:
    """Record a contrast set's vectors, or find them in the cache folder.

    The caller has the model to itself while this runs (models/host.py).

    Args:
        use_cache: look for the result in the cache folder and keep it there; not for models of unknown revision.

    Raises:
        PromptError: a prompt is empty or longer than the model's context.
        ModelError: a layer's MLP was not found.
        StoppedError: `stop` was set; checked between layers.
    """
    prompts = [encode(model, prompt) for prompt in contrast.prompts]
    path = _cache_path(model, prompts, contrast) if use_cache and model.revision != "local" else None
    found = _find_cached(path)
    if found is not None:
        tell(progress, Stage.READING_KEPT, len(prompts), len(prompts), "prompts")
        return found
    sums = torch.zeros(2, len(model.neuron_layers), model.network.config.get_text_config(decoder=True).hidden_size)
    shared, prefixes, done = shared_prefix_length(prompts), PrefixCaches(model), 0
    with _recording(model) as outputs:
        for places in _batches(prompts, shared):
            tell(progress, Stage.FITTING_METHOD, done, len(prompts), "prompts", subject="CAA")
            raise_if_stopped(stop)
            rows = [prompts[place] for place in places]
            plan = SteeringPlan(model, [NEUTRAL] * len(rows))
            prefixes.prefill(RowBatch(model, stop), rows, [shared] * len(rows), plan)
            side = torch.from_numpy(contrast.is_positive[places]).long()
            for layer, output in enumerate(outputs):
                sums[:, layer].index_add_(0, side, output)
            done += len(rows)
    tell(progress, Stage.FITTING_METHOD, done, len(prompts), "prompts", subject="CAA")
    positives = int(contrast.is_positive.sum())
    difference = sums[1] / positives - sums[0] / (len(prompts) - positives)
    vectors = CaaVectors(model.identity, difference.numpy(), contrast.sha256)
    if path is not None:
        vectors.save(path)
    return vectors


@contextlib.contextmanager
def _recording(model: LoadedModel) -> Iterator[list[Tensor]]:
    """A list that holds, after each pass, every layer's MLP output at the last token: (rows, hidden) float32, CPU."""
    outputs: list[Tensor] = [torch.empty(0)] * len(model.neuron_layers)

    def note(index: int, rows_first: Tensor | Sequence[Tensor]) -> None:
        output = rows_first if isinstance(rows_first, Tensor) else rows_first[0]
        outputs[index] = output.reshape(-1, *output.shape[-2:])[:, -1].float().cpu()

    with contextlib.ExitStack() as stack:
        pairs = zip(decoder_layers(model.network), model.neuron_layers, strict=True)
        for index, (layer, neurons) in enumerate(pairs):
            hook = mlp_of(layer, neurons).register_forward_hook(
                lambda _module, _inputs, output, index=index: note(index, output)
            )
            stack.callback(hook.remove)
        yield outputs


def mlp_of(layer: nn.Module, neurons: NeuronLayer) -> nn.Module:
    """The child of a decoder layer whose output is the MLP's: the one that the layer's neurons are in.

    Raises:
        ModelError: there is none.
    """
    inside = neurons.routed.experts if isinstance(neurons, MixtureLayer) else None
    inside = neurons.down_projection if isinstance(neurons, DenseLayer) else inside
    for child in layer.children():
        if any(module is inside for module in child.modules()):
            return child
    raise ModelError(f"The MLP of layer {neurons.index} was not found, so CAA is not possible; leave it out.")


def _batches(prompts: Sequence[Sequence[int]], shared: int) -> Iterator[list[int]]:
    """Prompts of like length together, never one alone: bfloat16 computes a lone row differently (MODEL_FACTS.md)."""
    waiting = sorted(range(len(prompts)), key=lambda place: (len(prompts[place]), place))
    while waiting:
        count = 2
        while count < len(waiting) and (count + 1) * (len(prompts[waiting[count]]) - shared) <= BATCH_TOKENS:
            count += 1
        if len(waiting) - count == 1:
            count += 1
        yield waiting[:count]
        waiting = waiting[count:]


def _cache_path(model: LoadedModel, prompts: Sequence[Sequence[int]], contrast: ContrastSet) -> Path:
    about = [FORMAT, model.identity.model_dump(mode="json"), list(prompts), contrast.sha256]
    return cache_folder("vectors") / f"{hashlib.sha256(json.dumps(about).encode()).hexdigest()}.safetensors"


def _find_cached(path: Path | None) -> CaaVectors | None:
    """The vectors kept there; a damaged file is thrown away, so that they are recorded again."""
    if path is None or not path.exists():
        return None
    try:
        return CaaVectors.load(path)
    except CircuitError:
        path.unlink(missing_ok=True)
        return None
