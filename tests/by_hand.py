"""The definition of docs/method.md worked by hand, with plain transformers and nothing of this project's engine."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray


def activations_one_by_one(network: Any, tokenizer: Any, prompts: Sequence[str]) -> NDArray[np.float64]:
    """(prompts, layers · neurons) float64: the input of every `mlp.down_proj` at the last token, prompt by prompt."""
    seen: dict[int, torch.Tensor] = {}

    def recorder(index: int) -> Any:
        return lambda _module, inputs: seen.__setitem__(index, inputs[0][0, -1].double())

    handles = [
        layer.mlp.down_proj.register_forward_pre_hook(recorder(index))
        for index, layer in enumerate(network.model.layers)
    ]
    rows = []
    try:
        for prompt in prompts:
            text = tokenizer.apply_chat_template(
                [{"role": "user", "content": prompt}], tokenize=False, add_generation_prompt=True
            )
            tokens = tokenizer(text, add_special_tokens=False, return_tensors="pt").input_ids
            with torch.inference_mode():
                network(tokens)
            rows.append(torch.cat([seen[index] for index in range(len(handles))]).numpy())
    finally:
        for handle in handles:
            handle.remove()
    return np.stack(rows)


def top_neurons(delta: NDArray[np.float64], layers: int, count: int, skip_layers: int) -> dict[tuple[int, int], float]:
    """The `count` neurons of largest |δ| after the first `skip_layers` layers, with their δ."""
    table = delta.reshape(layers, -1).copy()
    ranked = np.abs(table)
    ranked[:skip_layers] = -1
    flat = np.argsort(-ranked, axis=None)[:count]
    return {(int(i // table.shape[1]), int(i % table.shape[1])): float(table.flat[i]) for i in flat}
