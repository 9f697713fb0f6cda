"""Select a circuit from measured effects: the neurons whose ablation is estimated to lower refusals most.

This is array code over the flat neuron axis; it never uses a model.
"""

import numpy as np
from numpy.typing import NDArray

from cna_core.circuits.activations import Activations
from cna_core.circuits.circuit import Circuit, CircuitPrompts, CircuitSettings
from cna_core.circuits.effects import Effects
from cna_core.errors import CircuitError


def circuit_by_effect(
    effects: Effects, settings: CircuitSettings, size: int, left_out: NDArray[np.int64], activations: Activations | None
) -> Circuit:
    """The `size` neurons with the most negative effect, in rank order.

    Args:
        settings: the settings for the circuit's file.
        left_out: (n,) flat positions that are not ranked.
        activations: gives the neurons their δ, means and effect size, which are NaN without it.

    Raises:
        CircuitError: fewer neurons push towards refusal.
    """
    flat = most_negative(effects.effect, size, left_out, effects.model.layout.offsets[settings.skip_layers])
    return circuit_with_effects(effects, flat, settings, activations)


def circuit_with_effects(
    effects: Effects, flat: NDArray[np.int64], settings: CircuitSettings, activations: Activations | None = None
) -> Circuit:
    """The circuit of the neurons at flat positions (n,), in that order, with their effects."""
    layers, neurons = effects.model.layout.locate(flat)
    unknown = np.full(len(flat), np.nan, dtype=np.float32)
    return Circuit(
        model=effects.model,
        settings=settings.model_copy(update={"top_k": len(flat), "effect": effects.settings}),
        prompts=CircuitPrompts(positive=len(effects.positive), negative=len(effects.negative), sha256=effects.sha256),
        layers=layers,
        neurons=neurons,
        delta=unknown if activations is None else activations.delta[flat],
        positive_mean=unknown if activations is None else activations.positive_mean[flat],
        negative_mean=unknown if activations is None else activations.negative_mean[flat],
        effect_size=unknown if activations is None else activations.effect_size[flat],
        effect=effects.effect[flat],
    )


def most_negative(
    effect: NDArray[np.floating], size: int, left_out: NDArray[np.int64], first: int = 0
) -> NDArray[np.int64]:
    """(size,) int64: positions of the most negative effects, most negative first, ties by position.

    Args:
        effect: (total,); NaN if not measured.
        left_out: (n,) positions that are not ranked.
        first: earlier positions are not ranked.

    Raises:
        CircuitError: fewer neurons have a negative effect.
    """
    ranked = np.where(np.isnan(effect), 0, effect)
    ranked[left_out] = 0
    ranked[:first] = 0
    choice = int((ranked < 0).sum())
    if size > choice:
        raise CircuitError(
            f"A circuit of {size:,} neurons was requested, but only {choice:,} of the measured neurons push towards "
            "refusal; choose a smaller size."
        )
    cutoff = np.partition(ranked, size - 1)[size - 1]
    candidates = np.flatnonzero(ranked <= cutoff)
    return candidates[np.argsort(ranked[candidates], kind="stable")[:size]]
