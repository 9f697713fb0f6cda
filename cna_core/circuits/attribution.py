"""Select a circuit from activations or effects, ranked over all layers together: `attribute`.

Activations are ranked by |δ| or |effect size|, without universal neurons; effects by their value, most negative first
(effect_circuit.py). docs/method.md has the definitions. This is array code over the flat neuron axis; it never uses a
model.
"""

import dataclasses

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from cna_core.circuits.activations import Activations, largest
from cna_core.circuits.circuit import Circuit, CircuitPrompts, CircuitSettings, Score
from cna_core.circuits.effect_circuit import circuit_by_effect
from cna_core.circuits.effects import Effects
from cna_core.errors import CircuitError
from cna_core.models.layout import NeuronLayout
from cna_core.outside import first_problem


def attribute(
    recorded: Activations | Effects,
    fraction: float | None = 0.001,
    top_k: int | None = None,
    score: Score | None = None,
    skip_layers: int = 0,
    universal_threshold: float | None = 0.8,
    universal_fraction: float = 0.001,
    activations: Activations | None = None,
) -> Circuit:
    """Select the neurons with the highest |score|, or with the most negative effect, in rank order.

    Args:
        recorded: the activations of a contrast set, or measured effects.
        fraction: the circuit's size as a share of all neurons: round(fraction · all neurons), at least 1.
        top_k: the circuit's size as a number of neurons; overrides `fraction`.
        score: "delta" (default) or "effect-size" for activations, "attribution-patching" for effects.
        skip_layers: the number of first layers to leave out of the ranking.
        universal_threshold, universal_fraction: leave out universal neurons, which are among the top
            `universal_fraction` of all neurons by |a| on at least this share of the prompts. None includes them. For
            effects, they are left out only if `activations` are given.
        activations: for effects: activations of the same model, which give the circuit's neurons their δ and means.

    Raises:
        CircuitError: a setting is out of range, or there are fewer neurons to choose from than requested.
    """
    by_effect = isinstance(recorded, Effects)
    score = score or ("attribution-patching" if by_effect else "delta")
    if by_effect != (score == "attribution-patching"):
        given, wanted = ("effects", "attribution-patching") if by_effect else ("activations", "delta or effect-size")
        raise CircuitError(f"The score {score} cannot rank {given}; use {wanted}.")
    known = activations if isinstance(recorded, Effects) else recorded
    try:
        settings = CircuitSettings(
            score=score,
            fraction=fraction,
            top_k=top_k,
            skip_layers=skip_layers,
            universal_threshold=universal_threshold if known is not None else None,
            universal_fraction=universal_fraction,
        )
    except ValidationError as error:
        raise CircuitError(f"A setting of the circuit is out of range: {first_problem(error)}.") from error
    layout = recorded.model.layout
    size = circuit_size(layout, settings)
    left_out = excluded_neurons(known, settings) if known is not None else np.empty(0, dtype=np.int64)
    if isinstance(recorded, Effects):
        return circuit_by_effect(recorded, settings, size, left_out, activations)
    magnitude = np.abs(scores(recorded, score))
    magnitude[left_out] = -1
    magnitude[: layout.offsets[skip_layers]] = -1
    return circuit_at(recorded, top_neurons(magnitude, size), settings)


def universal_neurons(activations: Activations, threshold: float = 0.8, fraction: float = 0.001) -> NDArray[np.int64]:
    """(n,) int64 flat positions, ascending, of the universal neurons: those that are active on most prompts.

    Args:
        activations: the activations of the prompts.
        threshold: the share of all prompts on which a neuron must be active.
        fraction: a neuron is active on a prompt if it is among this share of all neurons by |a| there.
    """
    total = activations.model.layout.total
    firing = max(1, round(fraction * total))
    top = activations.top[:, :firing]
    if top.shape[1] < firing:  # more than the stored ranking has
        top = largest(activations.values, firing)
    prompts_fired = np.bincount(top.ravel(), minlength=total)
    return np.flatnonzero(prompts_fired >= threshold * len(top) - 1e-9)  # 0.8 · 205 is 164.00000000000003 in floats


def circuit_size(layout: NeuronLayout, settings: CircuitSettings) -> int:
    """The size of the circuit: `top_k`, or round(fraction · all neurons), at least 1.

    Raises:
        CircuitError: the settings have neither.
    """
    if settings.top_k is not None:
        return settings.top_k
    if settings.fraction is None:
        raise CircuitError("Give the circuit's size: a fraction of all neurons, or a number of neurons.")
    return max(1, round(settings.fraction * layout.total))


def excluded_neurons(activations: Activations, settings: CircuitSettings) -> NDArray[np.int64]:
    """(n,) int64 flat positions of the universal neurons that the settings leave out; empty if they include them.

    Raises:
        CircuitError: all layers are left out, or fewer neurons remain than the circuit's size.
    """
    layout = activations.model.layout
    if settings.skip_layers >= layout.layers:
        raise CircuitError(f"The model has {layout.layers} layers: leave out fewer than that.")
    left_out = np.empty(0, dtype=np.int64)
    if settings.universal_threshold is not None:
        left_out = universal_neurons(activations, settings.universal_threshold, settings.universal_fraction)
    first = int(layout.offsets[settings.skip_layers])
    choice = layout.total - first - int((left_out >= first).sum())
    size = circuit_size(layout, settings)
    if size > choice:
        raise CircuitError(
            f"A circuit of {size:,} neurons was requested, but only {choice:,} are left to choose from; "
            "choose a smaller size, leave out fewer layers, or include universal neurons."
        )
    return left_out


def scores(activations: Activations, score: Score) -> NDArray[np.float32]:
    """(total,) float32: δ or effect size of every neuron.

    Raises:
        CircuitError: activations do not have this score.
    """
    if score == "attribution-patching":
        raise CircuitError("This circuit was found by effect, which needs measured effects, not activations.")
    return activations.delta if score == "delta" else activations.effect_size


def top_neurons(magnitude: NDArray[np.floating], size: int) -> NDArray[np.int64]:
    """(size,) int64: positions of the largest values, largest first, ties by position."""
    cutoff = np.partition(magnitude, len(magnitude) - size)[len(magnitude) - size]
    candidates = np.flatnonzero(magnitude >= cutoff)
    return candidates[np.argsort(-magnitude[candidates], kind="stable")[:size]]


def circuit_at(activations: Activations, flat: NDArray[np.int64], settings: CircuitSettings) -> Circuit:
    """The circuit of the neurons at flat positions (n,), in this order, with their statistics from the activations."""
    layers, neurons = activations.model.layout.locate(flat)
    return Circuit(
        model=activations.model,
        settings=settings.model_copy(update={"top_k": len(flat)}),
        prompts=CircuitPrompts(
            positive=len(activations.positive), negative=len(activations.negative), sha256=activations.sha256
        ),
        layers=layers,
        neurons=neurons,
        delta=activations.delta[flat],
        positive_mean=activations.positive_mean[flat],
        negative_mean=activations.negative_mean[flat],
        effect_size=activations.effect_size[flat],
    )


def with_statistics(circuit: Circuit, activations: Activations) -> Circuit:
    """The circuit with δ, means and effect size from these activations, if its file did not have means.

    Raises:
        CircuitError: it belongs to another model.
    """
    circuit.check_model(activations.model)
    if np.isfinite(circuit.positive_mean).all():
        return circuit
    known = circuit_at(activations, circuit.flat, circuit.settings)
    return dataclasses.replace(known, model=circuit.model, prompts=circuit.prompts, effect=circuit.effect)
