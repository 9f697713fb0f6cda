"""Apply changes: within a block, each row of a batch is changed in its own way.

All hooks are removed when the block ends, also after an exception, and weights are never changed. Rows are identified
by their position in the batch only; there is no global steering state.
"""

import contextlib
import copy
import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn

from cna_core.circuits.circuit import Circuit
from cna_core.errors import CircuitError
from cna_core.interventions.change import RowChange
from cna_core.interventions.scale import Scale
from cna_core.interventions.watch import Watch
from cna_core.models.layers import NeuronView, decoder_layers
from cna_core.models.loaded import LoadedModel
from cna_core.models.residual_stream import edit_output


@contextlib.contextmanager
def steered(model: LoadedModel, circuit: Circuit, multipliers: ArrayLike) -> Iterator[None]:
    """Multiply a circuit's neurons row by row within the block. Before and after, the model is bit-identical.

    Steering acts at every token position of every pass in the block, so a KV cache is valid only for the multipliers it
    was computed with.

    Args:
        model: the model to steer.
        circuit: the neurons to multiply.
        multipliers: (rows,), or (rows, n) with one multiplier for each neuron in rank order, for batches of that many
            rows. (1,) or (1, n) steers all rows of any batch alike.

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
            f"Multipliers of shape {values.shape} do not fit a circuit of {len(circuit)} neurons: "
            f"give one for each row, or (rows, {len(circuit)})."
        )
    circuit.check_model(model.identity)
    scale = Scale(circuit)
    with steered_rows(model, [scale.change(1.0 - row) for row in values]):
        yield


@contextlib.contextmanager
def steered_rows(model: LoadedModel, rows: Sequence[RowChange]) -> Iterator[None]:
    """Change each row of a batch in its own way within the block.

    Raises:
        CircuitError: as for `steered`.
    """
    with SteeringPlan(model, rows).attached():
        yield


class SteeringPlan:
    """The tables for a batch's changes, computed once and used for any number of passes.

    Only layers in which a row is changed get hooks.

    Args:
        rows: the change of each row; a single one applies to all rows of any batch. The caller has checked that they
            belong to this model.
        watched: a circuit whose activity is recorded in the same pass (see `layer_activity`), or None.
    """

    def __init__(self, model: LoadedModel, rows: Sequence[RowChange], watched: Circuit | None = None) -> None:
        if not rows:
            raise CircuitError("There are no rows to steer: give one multiplier for each row of the batch.")
        self.model = model
        self.rows = tuple(rows)
        self.watched = watched
        self._activity: dict[int, Tensor] = {}
        self._neurons = _neuron_tables(model, self.rows)
        self._additions = _addition_tables(model, self.rows)
        self._direction = _Directions.of(model, self.rows)
        self._watch = Watch(watched, model) if watched is not None else None

    @property
    def layer_activity(self) -> Tensor:
        """(rows, layers of the watched circuit) float32 on the CPU: its activity at the last token of the last pass.

        See `Watch`. It is read before the change; in a row whose circuit is ablated it is what the ablation removed.
        """
        if self._watch is None or not self._activity:
            return torch.zeros(len(self.rows), 0 if self._watch is None else len(self._watch.layers))
        first = self._activity[self._watch.layers[0]].device
        return torch.stack([self._activity[index].to(first) for index in self._watch.layers], dim=1).cpu()

    def select(self, places: Sequence[int]) -> "SteeringPlan":
        """The plan for a batch with only these rows; its tables are selected from this plan's."""
        plan = copy.copy(self)
        plan.rows = tuple(self.rows[place] for place in places)
        plan._activity = {}
        plan._neurons = {index: tables.select(places) for index, tables in self._neurons.items() if tables.act(places)}
        plan._additions = _addition_tables(self.model, plan.rows) if self._additions else {}
        plan._direction = _Directions.of(self.model, plan.rows) if self._direction is not None else None
        return plan

    @contextlib.contextmanager
    def attached(self) -> Iterator[None]:
        """Change, and record, every pass in the block."""
        with contextlib.ExitStack() as stack:
            if len(self.rows) > 1:
                check = self.model.network.register_forward_pre_hook(self._check_rows, with_kwargs=True)
                stack.callback(check.remove)
            if self._direction is not None:
                stack.enter_context(self._direction.edited())
            watched = self._watch.layers if self._watch is not None else ()
            for index in sorted(self._neurons.keys() | set(watched)):
                layer = self.model.neuron_layers[index]
                stack.callback(layer.attach(functools.partial(self.visit, index), len(self.rows)).remove)
            if self._additions:
                layers = decoder_layers(self.model.network)
                for index, additions in self._additions.items():
                    stack.callback(edit_output(layers[index], functools.partial(_added, additions)).remove)
            self._activity.clear()
            yield

    def visit(self, index: int, view: NeuronView) -> None:
        """Called by layer `index` in each pass, with its neurons."""
        if self._watch is not None and index in self._watch.layers:
            here = self._watch.at_last_token(index, view)
            self._activity[index] = self._activity[index] + here if index in self._activity else here
        tables = self._neurons.get(index)
        if tables is not None:
            view.multiply(tables.multipliers)
            if tables.additions is not None:
                view.add(tables.additions)

    def _check_rows(self, _module: nn.Module, inputs: tuple[object, ...], named: dict[str, object]) -> None:
        for given in (named.get("input_ids"), named.get("inputs_embeds"), *inputs[:1]):
            if isinstance(given, torch.Tensor) and len(given) != len(self.rows):
                raise CircuitError(
                    f"The batch has {len(given)} rows, but there are multipliers for {len(self.rows)}: "
                    "give one for each row, or a single one for all."
                )


class _Directions:
    """A direction for each row, to be projected out of what is written to the residual stream.

    Args:
        model: the model whose writes are edited.
        directions: (rows, hidden) float32; 0 for a row without one.
        amounts: (rows,) float32.
        offsets: (rows,) float32: what is added along the direction at the first write.
    """

    def __init__(self, model: LoadedModel, directions: Tensor, amounts: Tensor, offsets: Tensor) -> None:
        self.writes = model.residual_writes  # found now, before any hook is attached
        self.directions = directions
        self.taken = directions * amounts[:, None]
        self.left = directions * (amounts * offsets)[:, None]

    @classmethod
    def of(cls, model: LoadedModel, rows: Sequence[RowChange]) -> "_Directions | None":
        found = [(place, row.direction) for place, row in enumerate(rows) if row.direction and row.direction.amount]
        if not found:
            return None
        hidden = len(found[0][1].direction)
        directions, numbers = np.zeros((len(rows), hidden), dtype=np.float32), np.zeros((2, len(rows)), np.float32)
        for place, change in found:
            directions[place] = change.direction
            numbers[:, place] = change.amount, change.offset
        tables = (torch.from_numpy(values).to(model.device) for values in (directions, *numbers))
        return cls(model, *tables)

    def edited(self) -> contextlib.AbstractContextManager[None]:
        """Edit every write of every pass in the block."""
        return self.writes.edited(self.edit_embedding, self.edit)

    def edit(self, hidden: Tensor) -> Tensor:
        """The edited hidden states: (rows, tokens, hidden), or flattened over rows and tokens."""
        by_row = self._by_row(hidden)
        along = torch.einsum("rth,rh->rt", by_row, self.directions.to(hidden.device))
        edited = by_row - along[:, :, None] * self.taken.to(hidden.device)[:, None, :]
        return edited.to(hidden.dtype).reshape(hidden.shape)

    def edit_embedding(self, hidden: Tensor) -> Tensor:
        edited = self._by_row(self.edit(hidden)) + self.left.to(hidden.device)[:, None, :]
        return edited.to(hidden.dtype).reshape(hidden.shape)

    def _by_row(self, hidden: Tensor) -> Tensor:
        """(rows, tokens, hidden) float32; a table with a single row applies to any batch."""
        rows = len(self.directions) if len(self.directions) > 1 or hidden.ndim == 2 else len(hidden)
        return hidden.reshape(rows, -1, hidden.shape[-1]).float()


@dataclass(frozen=True)
class _NeuronTables:
    """The multipliers and additions of one layer's neurons.

    Args:
        multipliers, additions: (rows, width) in the model's dtype; None if nothing is added.
        acting: the rows in which any neuron is changed.
    """

    multipliers: Tensor
    additions: Tensor | None
    acting: frozenset[int]

    def act(self, places: Sequence[int]) -> bool:
        return any(place in self.acting for place in places)

    def select(self, places: Sequence[int]) -> "_NeuronTables":
        index = torch.tensor(places, device=self.multipliers.device)
        additions = None if self.additions is None else self.additions[index]
        acting = frozenset(number for number, place in enumerate(places) if place in self.acting)
        return _NeuronTables(self.multipliers[index], additions, acting)


def _neuron_tables(model: LoadedModel, rows: Sequence[RowChange]) -> dict[int, _NeuronTables]:
    """The tables of each layer in which any row's neurons are changed."""
    multipliers: dict[int, NDArray[np.float32]] = {}
    additions: dict[int, NDArray[np.float32]] = {}
    acting: dict[int, set[int]] = {}
    for place, row in enumerate(rows):
        change = row.neurons
        if change is None:
            continue
        acts = change.acts
        for index in np.unique(change.layers[acts]).tolist():
            here = acts & (change.layers == index)
            shape = len(rows), model.neuron_layers[index].width
            if index not in multipliers:
                multipliers[index], acting[index] = np.ones(shape, dtype=np.float32), set()
            multipliers[index][place, change.neurons[here]] = change.multipliers[here]
            acting[index].add(place)
            if change.additions[here].any():
                if index not in additions:
                    additions[index] = np.zeros(shape, dtype=np.float32)
                additions[index][place, change.neurons[here]] = change.additions[here]

    def table(values: NDArray[np.float32] | None) -> Tensor | None:
        return None if values is None else torch.from_numpy(values).to(model.device, model.dtype)

    return {
        index: _NeuronTables(values, table(additions.get(index)), frozenset(acting[index]))
        for index, numbers in multipliers.items()
        if (values := table(numbers)) is not None
    }


def _addition_tables(model: LoadedModel, rows: Sequence[RowChange]) -> dict[int, Tensor]:
    """A (rows, hidden) table in the model's dtype for each layer; empty if no row adds vectors."""
    adding = [(place, row.additions) for place, row in enumerate(rows) if row.additions is not None]
    if not any(additions.any() for _, additions in adding):
        return {}
    layers, hidden = adding[0][1].shape
    tables = np.zeros((layers, len(rows), hidden), dtype=np.float32)
    for place, additions in adding:
        tables[:, place] = additions
    return {index: torch.from_numpy(table).to(model.device, model.dtype) for index, table in enumerate(tables)}


def _added(additions: Tensor, hidden: Tensor) -> Tensor:
    """`additions` (rows, hidden) added at every token."""
    by_row = hidden.reshape(len(additions), -1, hidden.shape[-1]) if hidden.ndim == 2 else hidden
    return (by_row + additions.to(hidden)[:, None, :]).reshape(hidden.shape)  # OPT has (rows · tokens, hidden)
