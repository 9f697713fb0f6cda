"""Would other neurons do as well? Compares random circuits of the same size, matched by layer or by output size, and
the neurons that push hardest against refusal."""

from collections.abc import Iterator
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray

from cna_core.circuits.circuit import Circuit
from cna_core.circuits.controls import random_circuit
from cna_core.circuits.effect_circuit import circuit_with_effects
from cna_core.errors import CircuitError
from cna_core.evaluation.checks.bench import Bench, percent
from cna_core.evaluation.checks.contract import Check, Figure, Row
from cna_core.evaluation.intervals import mean_with_interval
from cna_core.models.loaded import LoadedModel
from cna_core.models.neurons import DenseLayer

NEAREST = 20
"""A matched neuron is drawn from this many neurons with the closest output size."""


class NullCircuits(Check):
    key: ClassVar[str] = "null-circuits"
    title: ClassVar[str] = "Null circuits"
    question: ClassVar[str] = "Does ablating equally many other neurons in the same layers lower refusal as much?"

    def run(self, bench: Bench) -> list[Row]:
        own, unchanged = bench.chances(bench.few_harmful, [bench.circuit, None]).mean(1)
        value = mean_with_interval(bench.chances(bench.few_harmful, [bench.circuit])[0])
        rows = []
        for words, draw in (
            ("random neurons of the same layers", self._of_the_same_layers),
            ("random neurons of the same layers and output size, |a|·‖w_down‖", self._that_write_as_much),
            ("neurons of the same layers that push hardest against refusal", self._reversed),
        ):
            try:
                drawn = list(draw(bench))
            except CircuitError as error:
                rows.append(self.not_measured(f"{error}", f"mean refusal chance, {words}", "chance"))
                continue
            means = bench.chances(bench.few_harmful, drawn).mean(1)
            low, high = np.quantile(means, [0.025, 0.975])
            below = int((means <= own).sum())
            rows.append(
                Row(
                    check=self.key,
                    quantity=f"mean refusal chance of {len(bench.few_harmful)} prompts",
                    unit="chance",
                    value=Figure(value=value.value, low=value.low, high=value.high),
                    control=Figure(value=float(means.mean()), low=float(low), high=float(high)),
                    control_words=f"{words}, {len(means)} drawn" if len(means) > 1 else words,
                    passed=below == 0,
                    verdict=f"The refusal chance is {percent(unchanged)} without ablation, {percent(own)} with this "
                    f"circuit ablated and {percent(means.mean())} with {words} ablated; {below} of {len(means)} lower "
                    "it as much.",
                    details={"draws": np.round(means, 4).tolist(), "unchanged": float(unchanged)},
                )
            )
        return rows

    @staticmethod
    def _of_the_same_layers(bench: Bench) -> Iterator[Circuit]:
        for draw in range(bench.settings.draws):
            yield random_circuit(bench.circuit, bench.settings.seed + draw)

    @staticmethod
    def _that_write_as_much(bench: Bench) -> Iterator[Circuit]:
        values = bench.activations.values[: len(bench.activations.positive)].float().abs().mean(0).numpy()
        written = values * output_norms(bench.model)
        for draw in range(bench.settings.draws):
            generator = np.random.default_rng(bench.settings.seed + draw)
            yield with_neurons(bench.circuit, matched(bench.circuit, written, generator))

    @staticmethod
    def _reversed(bench: Bench) -> Iterator[Circuit]:
        effects, circuit = bench.effects, bench.circuit
        layout, neurons = circuit.model.layout, np.empty_like(circuit.neurons)
        if circuit.layers.max() >= effects.layers:
            raise CircuitError("the circuit has neurons in layers whose effects were not measured.")
        for layer in np.unique(circuit.layers):
            mine = circuit.layers == layer
            neurons[mine] = np.argsort(-layout.split(effects.effect)[layer], kind="stable")[: mine.sum()]
        yield circuit_with_effects(effects, layout.flat(circuit.layers, neurons), circuit.settings)


def output_norms(model: LoadedModel) -> NDArray[np.float32]:
    """(total,) float32: the norm of each neuron's output weights, ‖w_down‖.

    Raises:
        CircuitError: a layer's weights cannot be read (routed experts, quantised or offloaded weights).
    """
    norms = []
    for layer in model.neuron_layers:
        weight = getattr(layer.down_projection, "weight", None) if isinstance(layer, DenseLayer) else None
        if not isinstance(weight, torch.Tensor) or weight.is_meta or not weight.is_floating_point() or weight.ndim != 2:
            raise CircuitError("the down projections' weights cannot be read in this model.")
        assert isinstance(layer, DenseLayer)
        by_input = weight.detach().T if hasattr(layer.down_projection, "nx") else weight.detach()  # GPT-2's Conv1D
        norms.append(by_input.float().norm(dim=0).cpu().numpy())
    return np.concatenate(norms)


def matched(circuit: Circuit, written: NDArray[np.floating], generator: np.random.Generator) -> NDArray[np.int64]:
    """(n,) int64: for each neuron of the circuit, another neuron of its layer with a similar output size.

    Args:
        written: (total,), the output size of every neuron.

    Raises:
        CircuitError: a layer has too few other neurons.
    """
    layout = circuit.model.layout
    chosen = np.empty_like(circuit.neurons)
    for layer in np.unique(circuit.layers):
        mine = np.flatnonzero(circuit.layers == layer)
        size = np.log(layout.split(written)[layer].astype(np.float64) + 1e-12)
        free = np.ones(layout.widths[layer], dtype=bool)
        free[circuit.neurons[mine]] = False
        if free.sum() < len(mine):
            raise CircuitError(f"layer {layer} has too few neurons outside the circuit.")
        for place in mine:
            distance = np.where(free, np.abs(size - size[circuit.neurons[place]]), np.inf)
            nearest = np.argsort(distance, kind="stable")[: min(NEAREST, int(free.sum()))]
            chosen[place] = generator.choice(nearest)
            free[chosen[place]] = False
    return chosen


def with_neurons(circuit: Circuit, neurons: NDArray[np.int64]) -> Circuit:
    """A copy of the circuit with other neurons (n,) in the same layers; their statistics are NaN."""
    unknown = np.full(len(circuit), np.nan, dtype=np.float32)
    return Circuit(
        model=circuit.model,
        settings=circuit.settings,
        prompts=circuit.prompts,
        layers=circuit.layers,
        neurons=neurons,
        delta=unknown,
        positive_mean=unknown,
        negative_mean=unknown,
        effect_size=unknown,
    )
