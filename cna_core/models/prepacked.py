"""Linear layers whose weights lie ready for this CPU's multiplication ("prepacked"): `prepack`.

torch's CPU kernels bring a weight matrix into the order they multiply in every time it is used. Bringing it into that
order once, as torch's own compiler does for frozen models, makes decoding faster (benchmarks/prepacked.py) for as much
memory as the weights take: it is done only where that much is to spare. The weights themselves stay where they are, can
be read, and are what counts: a layer whose weight has changed since takes it as it is. Knows nothing of what the layers
compute for.
"""

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from cna_core.models.memory import free_memory_bytes

FEWEST_WEIGHTS = 1 << 16
"""Smaller matrices stay in the CPU's cache, where the order makes no difference."""
ROOM = 3
"""Weights are packed only where so many times their size was free before they were loaded, as packing doubles them."""
_DTYPES = (torch.float32, torch.bfloat16)
_ROWS = 256  # rows that the order is made for; fewer and more were seen to gain as much


@dataclass(frozen=True)
class Packed:
    """A weight in the kernels' order, and which weight that was."""

    weight: Tensor  # opaque to all but the kernels
    address: int
    version: int

    @classmethod
    def of(cls, weight: Tensor) -> "Packed":
        reordered = torch.ops.mkldnn._reorder_linear_weight(weight.detach(), _ROWS)
        return cls(reordered, weight.data_ptr(), weight._version)

    def is_of(self, weight: Tensor) -> bool:
        return weight.data_ptr() == self.address and weight._version == self.version

    def __deepcopy__(self, _memo: object) -> None:
        """None: a copied layer has a weight of its own, which is not packed."""


class PrepackedLinear(nn.Linear):
    """A Linear that multiplies by its packed weight for as long as that is its weight."""

    packed: Packed | None = None
    in_use: bool = True

    def forward(self, input: Tensor) -> Tensor:
        packed = self.packed
        if packed is None or not self.in_use or input.requires_grad or not packed.is_of(self.weight):
            return functional.linear(input, self.weight, self.bias)
        return _multiply(input, packed.weight, self.bias)


def prepack(network: nn.Module) -> int:
    """Prepack the network's Linear layers on the CPU, where that works and memory for it is free.

    Returns:
        How many layers were prepacked: all that can be, or none.
    """
    layers = [module for module in network.modules() if isinstance(module, nn.Linear) and _can_be(module)]
    weights = sum(weight.nbytes for weight in network.parameters())
    free = free_memory_bytes(torch.device("cpu"))
    too_large = free is not None and free + weights < ROOM * weights  # the weights are loaded by now
    if too_large or not all(_kernels_work(dtype) for dtype in {layer.weight.dtype for layer in layers}):
        return 0
    for layer in layers:
        layer.__class__ = PrepackedLinear  # the same module, for hooks, names and `state_dict`
        layer.packed = Packed.of(layer.weight)  # type: ignore[assignment]
    return len(layers)


@contextmanager
def unpacked(network: nn.Module) -> Iterator[None]:
    """While this is open, the network multiplies by its weights as they lie: what packing is measured against."""
    layers = [module for module in network.modules() if isinstance(module, PrepackedLinear)]
    for layer in layers:
        layer.in_use = False
    try:
        yield
    finally:
        for layer in layers:
            layer.in_use = True


def packed_bytes(network: nn.Module) -> int:
    """What the packed copies of the network's weights take in memory."""
    layers = (module for module in network.modules() if isinstance(module, PrepackedLinear))
    return sum(layer.weight.nbytes for layer in layers if layer.packed is not None)


def _can_be(layer: nn.Linear) -> bool:
    weight = layer.weight
    return (
        type(layer) in (nn.Linear, PrepackedLinear)  # others may multiply in a way of their own
        and weight.device.type == "cpu"
        and weight.dtype in _DTYPES
        and weight.numel() >= FEWEST_WEIGHTS
        and weight.is_contiguous()
        and not hasattr(layer, "_hf_hook")  # accelerate moves this layer's weight about
    )


def _multiply(rows: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    result: Tensor = torch.ops.mkldnn._linear_pointwise(rows, weight, bias, "none", [], "")
    return result


@functools.cache
def _kernels_work(dtype: torch.dtype) -> bool:
    """Whether this build of torch has the kernels, which are not part of its public interface, and they multiply."""
    rows, weight = torch.eye(3, 32, dtype=dtype), torch.arange(1024).reshape(32, 32).to(dtype)
    try:
        product = _multiply(rows, Packed.of(weight).weight, None)
    except (AttributeError, RuntimeError, TypeError):
        return False
    return torch.equal(product, functional.linear(rows, weight))
