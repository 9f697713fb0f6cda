"""Tiny models and circuits that the tests of steering share."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from transformers import Gemma2Config, Gemma2ForCausalLM, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerBase

from cna_core.circuits.circuit import Circuit
from cna_core.decoding.lanes import Step
from cna_core.models.loaded import LoadedModel
from tests.circuits.samples import circuit_of
from tests.tiny import tiny_tokenizer


def spread_circuit(model: LoadedModel, size: int = 24, seed: int = 0, first_layer: int = 0) -> Circuit:
    """A random circuit of this model over its layers from `first_layer` on, δ of both signs."""
    random = np.random.default_rng(seed)
    flat = random.choice(np.arange(model.layout.offsets[first_layer], model.layout.total), size=size, replace=False)
    layers, neurons = model.layout.locate(flat)
    pairs = list(zip(layers.tolist(), neurons.tolist(), strict=True))
    return circuit_of(pairs, model.identity, random.normal(size=size).tolist())


def loud_model() -> LoadedModel:
    """A random 4-layer Llama with weights so large that steering changes what it writes."""
    torch.manual_seed(1)
    tokenizer = tiny_tokenizer()
    network = LlamaForCausalLM(LlamaConfig(**shape_of(tokenizer))).eval()
    return LoadedModel("tiny-loud", "random", network, tokenizer, torch.device("cpu"))


def sliding_window_model(window: int = 8) -> LoadedModel:
    """A random 4-layer Gemma 2: every other layer looks back only `window` tokens; logits are soft-capped."""
    torch.manual_seed(1)
    tokenizer = tiny_tokenizer()
    config = Gemma2Config(**shape_of(tokenizer), head_dim=8, sliding_window=window, tie_word_embeddings=False)
    return LoadedModel("tiny-gemma2", "random", Gemma2ForCausalLM(config).eval(), tokenizer, torch.device("cpu"))


def shape_of(tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
    """The fields of a tiny loud model's configuration for this tokenizer's vocabulary."""
    return {
        "vocab_size": len(tokenizer),
        "hidden_size": 16,
        "intermediate_size": 24,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 256,
        "initializer_range": 0.4,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }


def tokens_by_lane(steps: Sequence[Step], lanes: int) -> list[list[int]]:
    return [[step.token_id for step in steps if step.lane == lane] for lane in range(lanes)]


def text_of(steps: Sequence[Step], lane: int = 0) -> str:
    return "".join(step.text for step in steps if step.lane == lane)
