"""Linear layers with a copy of their weights in the layout of the CPU's kernels ("prepacked"): `prepack`.

torch's CPU kernels rearrange a weight matrix every time it is used. Rearranging it once, as torch's own compiler does
for frozen models, makes decoding faster (benchmarks/prepacked.py). The copy takes as much memory as the weights, so it
is made only if there is enough. The original weights stay in place and are authoritative: if a layer's weight is
changed, the layer uses the changed weight.
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
"""Smaller matrices stay in the CPU's cache, where the layout makes no difference."""
ROOM = 3
"""Weights are packed only if this many times their size was free before they were loaded; packing doubles them."""
_DTYPES = (torch.float32, torch.bfloat16)
_ROWS = 256  # rows that the layout is made for; fewer and more gained as much


@dataclass(frozen=True)
class Packed:
    """A weight in the kernels' layout, and the identity of the original."""

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
        """None, because a copied layer has its own weight, which is not packed."""


class PrepackedLinear(nn.Linear):
    """A Linear that uses its packed weight while the original has not changed."""

    packed: Packed | None = None
    in_use: bool = True

    def forward(self, input: Tensor) -> Tensor:
        packed = self.packed
        if packed is None or not self.in_use or input.requires_grad or not packed.is_of(self.weight):
            return functional.linear(input, self.weight, self.bias)
        return _multiply(input, packed.weight, self.bias)


def prepack(network: nn.Module) -> int:
    """Prepack the network's Linear layers on the CPU, if the kernels support it and there is enough memory.

    Returns:
        The number of prepacked layers: all that can be prepacked, or none.
    """
    layers = [module for module in network.modules() if isinstance(module, nn.Linear) and _can_be(module)]
    weights = sum(weight.nbytes for weight in network.parameters())
    free = free_memory_bytes(torch.device("cpu"))
    too_large = free is not None and free + weights < ROOM * weights  # the weights are already loaded
    if too_large or not all(_kernels_work(dtype) for dtype in {layer.weight.dtype for layer in layers}):
        return 0
    for layer in layers:
        layer.__class__ = PrepackedLinear  # keeps the module, with its hooks, name and `state_dict`
        layer.packed = Packed.of(layer.weight)  # type: ignore[assignment]
    return len(layers)


@contextmanager
def unpacked(network: nn.Module) -> Iterator[None]:
    """A context in which the network uses its original weights, to measure the gain of packing."""
    layers = [module for module in network.modules() if isinstance(module, PrepackedLinear)]
    for layer in layers:
        layer.in_use = False
    try:
        yield
    finally:
        for layer in layers:
            layer.in_use = True


def packed_bytes(network: nn.Module) -> int:
    """Memory of the packed copies of the network's weights."""
    layers = (module for module in network.modules() if isinstance(module, PrepackedLinear))
    return sum(layer.weight.nbytes for layer in layers if layer.packed is not None)


def _can_be(layer: nn.Linear) -> bool:
    weight = layer.weight
    return (
        type(layer) in (nn.Linear, PrepackedLinear)  # subclasses may multiply differently
        and weight.device.type == "cpu"
        and weight.dtype in _DTYPES
        and weight.numel() >= FEWEST_WEIGHTS
        and weight.is_contiguous()
        and not hasattr(layer, "_hf_hook")  # accelerate moves this layer's weight
    )


def _multiply(rows: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    result: Tensor = torch.ops.mkldnn._linear_pointwise(rows, weight, bias, "none", [], "")
    return result


@functools.cache
def _kernels_work(dtype: torch.dtype) -> bool:
    """Whether this build of torch has the kernels, which are not part of its public interface, and they are correct."""
    rows, weight = torch.eye(3, 32, dtype=dtype), torch.arange(1024).reshape(32, 32).to(dtype)
    try:
        product = _multiply(rows, Packed.of(weight).weight, None)
    except (AttributeError, RuntimeError, TypeError):
        return False
    return torch.equal(product, functional.linear(rows, weight))
