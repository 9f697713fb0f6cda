"""Small circuits and activations that the tests of this floor and of the figures share."""

import numpy as np
import torch
from numpy.typing import NDArray

from cna_core.circuits.activations import Activations
from cna_core.circuits.circuit import Circuit, CircuitPrompts, CircuitSettings
from cna_core.circuits.circuit_file import EffectSettings
from cna_core.circuits.effects import Effects
from cna_core.models.layout import ModelIdentity


def identity(widths: int | tuple[int, ...] = 6, layers: int = 4, **changes: str) -> ModelIdentity:
    fields = {"name": "sample", "revision": "r1", "dtype": "float32"} | changes
    return ModelIdentity(layers=layers, neurons_per_layer=widths, **fields)


def circuit_of(
    pairs: list[tuple[int, int]], model: ModelIdentity | None = None, delta: list[float] | None = None
) -> Circuit:
    """A circuit of these (layer, neuron) pairs, δ falling from n to 1 unless given."""
    model = model or identity()
    size = len(pairs)
    values = np.array(delta if delta is not None else np.arange(size, 0, -1), dtype=np.float32)
    return Circuit(
        model=model,
        settings=CircuitSettings(top_k=size),
        prompts=CircuitPrompts(positive=2, negative=2, sha256="0" * 64),
        layers=np.array([layer for layer, _ in pairs], dtype=np.int64),
        neurons=np.array([neuron for _, neuron in pairs], dtype=np.int64),
        delta=values,
        positive_mean=values / 2,
        negative_mean=-values / 2,
        effect_size=values / 4,
    )


def activations_of(
    positive: NDArray[np.floating],
    negative: NDArray[np.floating],
    model: ModelIdentity | None = None,
    dtype: torch.dtype = torch.float32,
) -> Activations:
    """Activations with these values, (prompts, total) each; one layer as wide as they are unless a model is given."""
    values = torch.tensor(np.concatenate([positive, negative]), dtype=dtype)
    return Activations.of_values(
        model or identity(values.shape[1], layers=1),
        tuple(f"positive {number}" for number in range(len(positive))),
        tuple(f"negative {number}" for number in range(len(negative))),
        "0" * 64,
        values,
    )


def random_activations(
    prompts: int = 12, model: ModelIdentity | None = None, seed: int = 0, dtype: torch.dtype = torch.float32
) -> Activations:
    """Noise with as many positive as negative prompts: later layers are louder, and neuron 0 of each layer differs
    between the sets by five standard deviations."""
    model = model or identity(20, layers=4)
    generator = np.random.default_rng(seed)
    loudness = np.repeat(np.arange(1, model.layers + 1), model.layout.widths)
    values = generator.normal(size=(prompts, model.layout.total)) * loudness
    half = prompts // 2
    values[:half, model.layout.offsets[:-1]] += 5 * np.arange(1, model.layers + 1)
    return activations_of(values[:half], values[half:], model, dtype)


def random_effects(model: ModelIdentity | None = None, prompts: int = 6, seed: int = 1) -> Effects:
    """Noise: effects of all layers on so many refused prompts."""
    model = model or identity(20, layers=4)
    values = np.random.default_rng(seed).normal(size=(prompts, model.layout.total))
    return Effects(
        model=model,
        positive=tuple(f"positive {number}" for number in range(prompts)),
        negative=(),
        sha256="0" * 64,
        settings=EffectSettings(layers="all"),
        openings=(7,),
        values=torch.tensor(values, dtype=torch.float32),
        log_odds=np.ones(prompts, dtype=np.float32),
    )
