"""Adding to the residual stream: what a decoder layer hands to the next one.

Knows how layers return it; knows no neurons and no steering.
"""

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle


def add_to_output(layer: nn.Module, additions: Tensor) -> RemovableHandle:
    """Add to a decoder layer's output at every token until the handle is removed; `additions` is (rows, hidden)."""

    def after_layer(_module: nn.Module, _inputs: object, output: Tensor | tuple[Tensor, ...]) -> object:
        if isinstance(output, tuple):
            return (_added(output[0], additions), *output[1:])
        return _added(output, additions)

    return layer.register_forward_hook(after_layer)


def _added(hidden: Tensor, additions: Tensor) -> Tensor:
    by_row = hidden.reshape(len(additions), -1, hidden.shape[-1]) if hidden.ndim == 2 else hidden
    return (by_row + additions.to(hidden)[:, None, :]).reshape(hidden.shape)  # OPT's is (rows · tokens, hidden)
