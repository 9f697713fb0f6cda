"""Reading a circuit's neurons in a running model, before anything is changed in them.

Changes nothing. Knows neither methods nor decoding.
"""

import contextlib
import functools
from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cna_core.circuits.circuit import Circuit
from cna_core.models.layers import NeuronView
from cna_core.models.loaded import LoadedModel


class Watch:
    """A circuit's neurons by layer, and how they are summed up.

    The activity of a layer is the sum over its circuit neurons of sign(δ) · activation, divided by the size of the
    circuit: the layers' activities add up to the circuit's mean. Positive: as on positive prompts.

    Args:
        circuit: whose neurons are read.
        model: the model they are read in.

    Raises:
        CircuitError: the circuit belongs to another model.
    """

    def __init__(self, circuit: Circuit, model: LoadedModel) -> None:
        circuit.check_model(model.identity)
        self.circuit = circuit
        self.layers: tuple[int, ...] = tuple(np.unique(circuit.layers).tolist())
        """The layers that hold neurons of the circuit, ascending."""
        # A random control has no δ (NaN): its neurons count as they are.
        signs = np.nan_to_num(np.sign(circuit.delta), nan=1.0).astype(np.float32) / max(1, len(circuit))
        self._tables: dict[int, tuple[Tensor, Tensor]] = {}
        for index in self.layers:
            here = circuit.layers == index
            self._tables[index] = (
                torch.from_numpy(circuit.neurons[here]).to(model.device),
                torch.from_numpy(signs[here]).to(model.device),
            )

    def at_last_token(self, index: int, view: NeuronView) -> Tensor:
        """(rows,) float32: the activity of layer `index` at the last token of a pass."""
        neurons, signs = self._tables[index]
        values = view.of(neurons)[:, -1].float()
        return values @ signs.to(values.device)

    def at_every_token(self, index: int, view: NeuronView) -> Tensor:
        """(rows, tokens) float32: the same at each token."""
        neurons, signs = self._tables[index]
        values = view.of(neurons).float()
        return values @ signs.to(values.device)


@contextlib.contextmanager
def recorded_activity(model: LoadedModel, watch: Watch, rows: int, parts: list[Tensor]) -> Iterator[None]:
    """While the block runs, append to `parts` each pass's activity: (rows, tokens, layers of the circuit) float32, CPU.

    Enter it before steering is hooked on: what comes first sees the neurons before they are changed.
    """
    found: dict[int, Tensor] = {}

    def visit(index: int, view: NeuronView) -> None:
        here = watch.at_every_token(index, view).cpu()
        found[index] = found[index] + here if index in found else here

    def note(*_: object) -> None:
        parts.append(torch.stack([found[index] for index in watch.layers], dim=-1))
        found.clear()

    with contextlib.ExitStack() as stack:
        for index in watch.layers:
            stack.callback(model.neuron_layers[index].attach(functools.partial(visit, index), rows).remove)
        stack.callback(model.network.register_forward_hook(note).remove)
        yield


@contextlib.contextmanager
def recorded_neurons(model: LoadedModel, circuit: Circuit, values: NDArray[np.float32]) -> Iterator[None]:
    """While the block runs, write the circuit's activations at the last token into `values`, (rows, n) in rank order.

    Enter it before steering is hooked on; each pass overwrites what the one before left.
    """

    def clear(*_: object) -> None:
        values[:] = 0

    def visit(chosen: Tensor, columns: NDArray[np.int64], view: NeuronView) -> None:
        values[:, columns] += view.of(chosen)[:, -1].float().cpu().numpy()  # a layer's parts are seen one by one

    with contextlib.ExitStack() as stack:
        stack.callback(model.network.register_forward_pre_hook(clear).remove)
        for index in np.unique(circuit.layers).tolist():
            columns = np.flatnonzero(circuit.layers == index)
            visiting = functools.partial(visit, torch.from_numpy(circuit.neurons[columns]), columns)
            stack.callback(model.neuron_layers[index].attach(visiting, len(values)).remove)
        yield
