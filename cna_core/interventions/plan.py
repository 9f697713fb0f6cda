"""Steering: while a block runs, some rows of a batch have their circuit multiplied and vectors added.

Whatever touches the model is undone when the block ends, also after an exception: weights are never changed. Rows are
told apart by their place in the batch alone; there is no global steering state. Knows nothing of tokens and decoding.
"""

import contextlib
import functools
import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn

from cna_core.circuits.circuit import Circuit
from cna_core.errors import CircuitError
from cna_core.interventions.caa import CaaVectors
from cna_core.interventions.residual import add_to_output
from cna_core.models.layers import NeuronView, decoder_layers
from cna_core.models.loaded import LoadedModel


@dataclass(frozen=True)
class RowSteering:
    """How one row of a batch is steered.

    Args:
        circuit: whose neurons are multiplied; None leaves every neuron as it is.
        multiplier: one for the whole circuit, or (n,), one a neuron in rank order. 1 changes nothing, 0 ablates.
        vectors: CAA vectors, or None.
        vector_strength: s; −s · vector is added to the residual stream (see CaaVectors for the sign).
    """

    circuit: Circuit | None = None
    multiplier: float | NDArray[np.floating] = 1.0
    vectors: CaaVectors | None = None
    vector_strength: float = 0.0

    @property
    def multiplies(self) -> bool:
        return self.circuit is not None and bool(np.any(np.asarray(self.multiplier) != 1.0))

    @property
    def adds(self) -> bool:
        return self.vectors is not None and self.vector_strength != 0.0

    @property
    def is_neutral(self) -> bool:
        """Whether the row is the untouched model's."""
        return not (self.multiplies or self.adds)

    @property
    def key(self) -> tuple[object, ...]:
        """Equal for rows that are steered alike: their neurons, multipliers and vectors by content."""
        neurons = multipliers = vectors = b""
        if self.multiplies and self.circuit is not None:
            neurons = self.circuit.flat.tobytes()
            multipliers = _checked(self.multiplier, self.circuit).tobytes()
        if self.adds and self.vectors is not None:
            vectors = hashlib.sha256(self.vectors.vectors.tobytes()).digest()
        return (neurons, multipliers, vectors, self.vector_strength if vectors else 0.0)


NEUTRAL = RowSteering()
"""The untouched model's row."""


@contextlib.contextmanager
def steered(model: LoadedModel, circuit: Circuit, multipliers: ArrayLike) -> Iterator[None]:
    """Multiply a circuit's neurons row by row while the block runs; before and after, the model is bit-identical.

    Steering acts at every token position of every pass in the block, so a KV cache holds only for the multipliers it
    was computed with.

    Args:
        multipliers: (rows,), or (rows, n) with one multiplier a neuron in rank order, for batches of that many rows;
            (1,) or (1, n) steers every row of any batch alike.

    Raises:
        CircuitError: the circuit belongs to another model, the multipliers have the wrong shape or are not finite, or
            (inside the block) a batch has another number of rows.

    Example:
        with steered(model, circuit, [1.0, 0.0]):
            logits = model.network(input_ids=two_rows).logits
    """
    values = np.asarray(multipliers, dtype=np.float64)
    if values.ndim not in (1, 2) or (values.ndim == 2 and values.shape[1] != len(circuit)):
        raise CircuitError(
            f"Multipliers of shape {values.shape} do not fit a circuit of {len(circuit)} neurons; "
            f"give one a row, or (rows, {len(circuit)})."
        )
    with steered_rows(model, [RowSteering(circuit, row if values.ndim == 2 else float(row)) for row in values]):
        yield


@contextlib.contextmanager
def steered_rows(model: LoadedModel, rows: Sequence[RowSteering]) -> Iterator[None]:
    """Steer each row of a batch in its own way while the block runs: other circuits, multipliers, vectors.

    Raises:
        CircuitError: as for `steered`.
    """
    with SteeringPlan(model, rows).attached():
        yield


class SteeringPlan:
    """The tables for a batch's steering, made once, to be hooked on for as many passes as needed.

    Hooks go only on layers that need one: a layer whose multipliers are all 1 is left alone.

    Args:
        rows: how each row is steered; a single one holds for every row of any batch.
        watched: a circuit whose activity is recorded in the same pass (see `activity`), or None.
    """

    def __init__(self, model: LoadedModel, rows: Sequence[RowSteering], watched: Circuit | None = None) -> None:
        if not rows:
            raise CircuitError("No rows to steer; give one multiplier for each row of the batch.")
        for circuit in {id(row.circuit): row.circuit for row in rows if row.circuit is not None}.values():
            circuit.check_model(model.identity)
        self.model = model
        self.rows = tuple(rows)
        self.watched = watched
        self._activity_parts: list[Tensor] = []
        self._multipliers = _multiplier_tables(model, self.rows)
        self._additions = _addition_tables(model, self.rows)
        self._watches = _signs_by_layer(watched, model) if watched is not None else {}

    @property
    def activity(self) -> Tensor:
        """(rows,) float32 on the CPU: how active the watched circuit was at the last token of the last pass.

        The mean over its neurons of sign(δ) · activation, after multiplying. Positive: as on positive prompts. A row
        with the circuit ablated has 0.
        """
        return sum((part.cpu() for part in self._activity_parts), torch.zeros(len(self.rows)))

    def select(self, places: Sequence[int]) -> "SteeringPlan":
        """The plan for a batch of these rows of this one's."""
        return SteeringPlan(self.model, [self.rows[place] for place in places], self.watched)

    @contextlib.contextmanager
    def attached(self) -> Iterator[None]:
        """Steer (and record) every pass in the block."""
        with contextlib.ExitStack() as stack:
            if len(self.rows) > 1:
                check = self.model.network.register_forward_pre_hook(self._check_rows, with_kwargs=True)
                stack.callback(check.remove)
            for index in sorted(self._multipliers.keys() | self._watches.keys()):
                layer = self.model.neuron_layers[index]
                stack.callback(layer.attach(functools.partial(self.visit, index), len(self.rows)).remove)
            if self._additions:
                layers = decoder_layers(self.model.network)
                for index, additions in self._additions.items():
                    stack.callback(add_to_output(layers[index], additions).remove)
            self._activity_parts.clear()
            yield

    def visit(self, index: int, view: NeuronView) -> None:
        """Called by layer `index` in each pass, with its neurons."""
        table = self._multipliers.get(index)
        if table is not None:
            view.multiply(table)
        watch = self._watches.get(index)
        if watch is not None:
            neurons, signs = watch
            values = view.of(neurons)[:, -1].float()  # (rows, n): the last token alone
            self._activity_parts.append(values @ signs.to(values.device))

    def _check_rows(self, _module: nn.Module, inputs: tuple[object, ...], named: dict[str, object]) -> None:
        for given in (named.get("input_ids"), named.get("inputs_embeds"), *inputs[:1]):
            if isinstance(given, torch.Tensor) and len(given) != len(self.rows):
                raise CircuitError(
                    f"A batch of {len(given)} rows met multipliers for {len(self.rows)}; "
                    "give one for each row, or a single one for all."
                )


def _multiplier_tables(model: LoadedModel, rows: Sequence[RowSteering]) -> dict[int, Tensor]:
    """A (rows, width) table in the model's dtype for each layer that has a multiplier other than 1."""
    tables: dict[int, NDArray[np.float32]] = {}
    for place, row in enumerate(rows):
        if row.circuit is None or not row.multiplies:
            continue
        multipliers = _checked(row.multiplier, row.circuit)
        for index in np.unique(row.circuit.layers[multipliers != 1.0]).tolist():
            width = model.neuron_layers[index].width
            table = tables.setdefault(index, np.ones((len(rows), width), dtype=np.float32))
            here = row.circuit.layers == index
            table[place, row.circuit.neurons[here]] = multipliers[here]
    return {index: torch.from_numpy(table).to(model.device, model.dtype) for index, table in tables.items()}


def _checked(multiplier: float | NDArray[np.floating], circuit: Circuit) -> NDArray[np.float32]:
    """(n,) float32."""
    values = np.asarray(multiplier, dtype=np.float32)
    if values.ndim > 1 or values.size not in (1, len(circuit)):
        raise CircuitError(f"{values.size} multipliers do not fit a circuit of {len(circuit)} neurons.")
    if not np.isfinite(values).all():
        raise CircuitError("A multiplier is not a finite number; use 1 for baseline and 0 for ablated.")
    return np.broadcast_to(values, len(circuit))


def _addition_tables(model: LoadedModel, rows: Sequence[RowSteering]) -> dict[int, Tensor]:
    """A (rows, hidden) table in the model's dtype for each layer, where any row adds vectors."""
    adding = [(place, row) for place, row in enumerate(rows) if row.adds]
    if not adding:
        return {}
    first = adding[0][1].vectors
    assert first is not None
    tables = np.zeros((first.vectors.shape[0], len(rows), first.vectors.shape[1]), dtype=np.float32)
    for place, row in adding:
        assert row.vectors is not None
        row.vectors.check_model(model.identity)
        tables[:, place] = -row.vector_strength * row.vectors.vectors
    return {index: torch.from_numpy(table).to(model.device, model.dtype) for index, table in enumerate(tables)}


def _signs_by_layer(circuit: Circuit, model: LoadedModel) -> dict[int, tuple[Tensor, Tensor]]:
    """For each layer that has neurons of the circuit: those neurons, int64, and sign(δ) / circuit size, float32."""
    circuit.check_model(model.identity)
    # A random control has no δ (NaN): its neurons count as they are.
    signs = np.nan_to_num(np.sign(circuit.delta), nan=1.0).astype(np.float32) / max(1, len(circuit))
    by_layer = {}
    for index in np.unique(circuit.layers).tolist():
        here = circuit.layers == index
        by_layer[index] = (
            torch.from_numpy(circuit.neurons[here]).to(model.device),
            torch.from_numpy(signs[here]).to(model.device),
        )
    return by_layer
