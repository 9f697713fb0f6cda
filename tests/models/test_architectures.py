"""Every family: neurons are found, captured as one prompt at a time would show them, and steered exactly.

Tiny random models; the id of each test names the family.
"""

import copy
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForImageTextToText

from cna_core.circuits.capture import capture
from cna_core.circuits.circuit import Circuit, CircuitPrompts, CircuitSettings
from cna_core.errors import ModelError
from cna_core.interventions.change import NEUTRAL
from cna_core.interventions.direction import Direction
from cna_core.interventions.plan import steered, steered_rows
from cna_core.models.layers import decoder_layers
from cna_core.models.loaded import LoadedModel
from cna_core.models.residual_stream import layer_input_hook
from cna_core.prompts.chat_format import encode
from cna_core.prompts.sets import ContrastSet, PromptSet
from tests.circuits.naive import naive_values, zero_columns
from tests.tiny import tiny_tokenizer

SIZES: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 40,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 128,
}
WINDOW = {"sliding_window": 6}
MIXTURE = {"num_experts_per_tok": 2, "num_local_experts": 4, "num_experts": 4}
TEXT_AND_VISION = {
    "text_config": {**SIZES, **WINDOW, "layer_types": ["sliding_attention", "full_attention", "sliding_attention"]},
    "vision_config": {
        "hidden_size": 32,
        "intermediate_size": 40,
        "num_hidden_layers": 3,  # as many as the text part: the wrong tower must not be taken
        "num_attention_heads": 4,
        "image_size": 16,
        "patch_size": 8,
    },
    "mm_tokens_per_image": 4,
}
FAMILIES: dict[str, dict[str, Any]] = {
    "llama": SIZES,
    "qwen2": SIZES,
    "qwen3": SIZES,
    "mistral": {**SIZES, **WINDOW},
    "gemma": SIZES,
    "gemma2": {**SIZES, **WINDOW},
    "gemma3_text": TEXT_AND_VISION["text_config"],
    "gemma3": TEXT_AND_VISION,
    "phi3": {**SIZES, **WINDOW},
    "phi": SIZES,
    "gpt2": {"n_embd": 32, "n_layer": 3, "n_head": 4, "n_positions": 128},
    "gpt_neox": SIZES,
    "opt": {**SIZES, "ffn_dim": 40, "word_embed_proj_dim": 32},
    "olmo2": SIZES,
    "granite": SIZES,
    "stablelm": SIZES,
    "starcoder2": {**SIZES, **WINDOW},
    "falcon": {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "ffn_hidden_size": 40},
    "falcon-alibi": {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "alibi": True},
    "cohere": SIZES,
    "smollm3": SIZES,
    "glm4": SIZES,
    "glm": SIZES,
    "bloom": {"hidden_size": 32, "n_layer": 3, "n_head": 4},
    "gptj": {"n_embd": 32, "n_layer": 3, "n_head": 4, "n_positions": 128, "rotary_dim": 4},
    "mpt": {"d_model": 32, "n_layers": 3, "n_heads": 4, "max_seq_len": 128},
    "cohere2": {**SIZES, **WINDOW},
    "gemma3n_text": {
        **SIZES, **WINDOW, "num_kv_shared_layers": 1, "activation_sparsity_pattern": None,
        "hidden_size_per_layer_input": 40, "vocab_size_per_layer_input": 37, "laurel_rank": 4,
        "layer_types": ["sliding_attention", "full_attention", "full_attention"],
    },
    "lfm2": {**SIZES, "block_auto_adjust_ff_dim": False, "layer_types": ["conv", "full_attention", "conv"]},
    "qwen3_5_text": {
        **SIZES, "layer_types": ["linear_attention", "full_attention", "linear_attention"],
        "linear_num_key_heads": 2, "linear_num_value_heads": 2, "linear_key_head_dim": 8, "linear_value_head_dim": 8,
    },
    "qwen3_moe": {**SIZES, **MIXTURE, "moe_intermediate_size": 12},
    "qwen3_moe-with-a-dense-layer": {**SIZES, **MIXTURE, "moe_intermediate_size": 12, "mlp_only_layers": [0]},
    "qwen2_moe": {**SIZES, **MIXTURE, "moe_intermediate_size": 12, "shared_expert_intermediate_size": 20},
    "mixtral": {**SIZES, **MIXTURE, **WINDOW},
    "gpt_oss": {**SIZES, **MIXTURE, **WINDOW},
    "granitemoeshared": {**SIZES, **MIXTURE, "shared_intermediate_size": 20},
    "deepseek_v3": {
        **SIZES, "moe_intermediate_size": 12, "n_routed_experts": 4, "num_experts_per_tok": 2, "n_group": 2,
        "topk_group": 1, "n_shared_experts": 1, "first_k_dense_replace": 1, "q_lora_rank": 8, "kv_lora_rank": 8,
        "qk_nope_head_dim": 8, "qk_rope_head_dim": 4, "v_head_dim": 8, "num_key_value_heads": 4, "head_dim": 4,
    },
}  # fmt: skip

SHARED = "tell me about cats here you can help me"  # with the template longer than the sliding windows
POSITIVE = tuple(f"{SHARED} {end}" for end in ("how do i break the lock", "what lock you can break to help cats"))
NEGATIVE = tuple(f"{SHARED} {end}" for end in ("why", "how do i bake the bread", "what is it you can bake here"))


@pytest.fixture(params=list(FAMILIES), scope="module")
def model(request: pytest.FixtureRequest) -> LoadedModel:
    """A tiny random model of the family; never change its weights."""
    torch.manual_seed(0)
    tokenizer = tiny_tokenizer()
    special = {
        "vocab_size": len(tokenizer),
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    kind, settings = request.param.split("-")[0], FAMILIES[request.param]
    if "text_config" in settings:
        settings = {**settings, "text_config": {**settings["text_config"], **special}, "image_token_id": 1}
        network = AutoModelForImageTextToText.from_config(AutoConfig.for_model(kind, **settings))
    else:
        network = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **settings, **special))
    with torch.no_grad():  # livelier than the usual start, so that attention and routing matter in the comparisons
        for parameter in network.parameters():
            if parameter.ndim > 1:
                parameter.normal_(std=0.2)
    return LoadedModel(request.param, "random", network.eval(), tokenizer, torch.device("cpu"))


def circuit_of(model: LoadedModel, flat: Sequence[int]) -> Circuit:
    layers, neurons = model.layout.locate(np.array(flat))
    zeros = np.zeros(len(flat), dtype=np.float32)
    return Circuit(
        model.identity,
        CircuitSettings(top_k=len(flat)),
        CircuitPrompts(positive=1, negative=1, sha256=""),
        layers,
        neurons,
        *[zeros] * 4,
    )


def scattered_circuit(model: LoadedModel) -> Circuit:
    """A third of all neurons, in every layer."""
    generator = np.random.default_rng(0)
    return circuit_of(model, sorted(generator.choice(model.layout.total, model.layout.total // 3, replace=False)))


def logits(network: torch.nn.Module, rows: Tensor) -> Tensor:
    with torch.no_grad():
        return network(input_ids=rows, use_cache=False).logits


def batch(model: LoadedModel) -> Tensor:
    return torch.tensor([encode(model, "how do i break the lock")] * 3)


def test_capture_equals_the_naive_run(model: LoadedModel) -> None:
    contrast = ContrastSet(PromptSet("positive", POSITIVE), PromptSet("negative", NEGATIVE))
    values = capture(model, contrast, use_cache=False).values
    expected = naive_values(model, contrast.prompts)
    assert values.shape == (5, model.layout.total) and expected.abs().max() > 0.01
    torch.testing.assert_close(values, expected, rtol=1e-3, atol=1e-5)


def test_steering_with_multiplier_one_changes_nothing(model: LoadedModel) -> None:
    expected = logits(model.network, batch(model))
    circuit = scattered_circuit(model)
    with steered(model, circuit, [1.0, 1.0, 1.0]):
        assert torch.equal(logits(model.network, batch(model)), expected)
    with steered(model, circuit, [0.0, 1.0, 2.0]):
        steered_logits = logits(model.network, batch(model))
    torch.testing.assert_close(steered_logits[1], expected[1], rtol=1e-5, atol=1e-5)
    assert not torch.allclose(steered_logits[0], expected[0], atol=1e-3)
    assert not torch.allclose(steered_logits[2], expected[2], atol=1e-3)
    assert torch.equal(logits(model.network, batch(model)), expected)


def test_steering_with_multiplier_zero_equals_zeroing_the_columns(model: LoadedModel) -> None:
    circuit = scattered_circuit(model)
    with steered(model, circuit, [0.0, 0.0, 0.0]):
        ablated = logits(model.network, batch(model))
    cut = LoadedModel(model.name, "cut", copy.deepcopy(model.network), model.tokenizer, model.device)
    for layer, neuron in zip(circuit.layers.tolist(), circuit.neurons.tolist(), strict=True):
        zero_columns(cut, layer, neuron)
    torch.testing.assert_close(ablated, logits(cut.network, batch(model)), rtol=1e-5, atol=1e-5)
    assert not torch.allclose(ablated, logits(model.network, batch(model)), atol=1e-3)


def test_named_neurons_are_seen_at_every_token(model: LoadedModel) -> None:
    """What `of` shows at the last token is what `at` shows there, summed over the parts of a layer."""
    rows, last = batch(model), torch.tensor([batch(model).shape[1] - 1] * 3)
    for layer in model.neuron_layers:
        seen: list[tuple[Tensor, Tensor]] = []
        handle = layer.attach(lambda view, seen=seen: seen.append((view.at(last), view.of(torch.arange(30)))), rows=3)  # type: ignore[misc]
        logits(model.network, rows)
        handle.remove()
        at, of = sum(part[0] for part in seen), sum(part[1] for part in seen)
        assert at.shape == (3, layer.width) and of.shape == (3, rows.shape[1], 30)
        assert torch.equal(of[:, -1], at[:, :30])


WITHOUT_WRITES = {"gemma3n_text"}
"""Families whose residual stream is not one sum of writes: Gemma 3n keeps several streams beside each other."""


def test_an_ablated_direction_is_gone_from_every_layers_input(model: LoadedModel) -> None:
    direction = np.random.default_rng(0).standard_normal(model.network.config.get_text_config().hidden_size)
    unit = (direction / np.linalg.norm(direction)).astype(np.float32)
    method = Direction(model.identity, unit, unit * 0, layer=0)
    if model.name in WITHOUT_WRITES:
        with pytest.raises(ModelError, match="were not found"):
            _ = model.residual_writes
        return
    expected = logits(model.network, batch(model))
    seen: list[Tensor] = []
    with steered_rows(model, [NEUTRAL, method.change(1.0), method.change(0.5)]):
        handles = [layer_input_hook(layer, seen.append) for layer in decoder_layers(model.network)]
        changed = logits(model.network, batch(model))
        for handle in handles:
            handle.remove()
    along = torch.stack([hidden.reshape(3, -1, len(unit)) @ torch.from_numpy(unit) for hidden in seen])
    assert along[:, 1].abs().max() < 1e-5 * along[:, 0].abs().max()
    torch.testing.assert_close(along[0, 2], 0.5 * along[0, 0], rtol=1e-4, atol=1e-6)  # half of the embedding's write
    torch.testing.assert_close(changed[0], expected[0], rtol=1e-5, atol=1e-5)
    assert not torch.allclose(changed[1], expected[1], atol=1e-3)
    assert torch.equal(logits(model.network, batch(model)), expected)


def test_the_residual_stream_is_recorded_with_the_neurons(model: LoadedModel) -> None:
    contrast = ContrastSet(PromptSet("positive", POSITIVE), PromptSet("negative", NEGATIVE))
    residual = capture(model, contrast, use_cache=False).recorded_residual
    assert residual is not None
    seen: list[Tensor] = []
    layers = decoder_layers(model.network)
    handles = [layer_input_hook(layer, lambda hidden: seen.append(hidden[..., -1, :])) for layer in layers]
    for prompt in contrast.prompts:
        logits(model.network, torch.tensor([encode(model, prompt)]))
    for handle in handles:
        handle.remove()
    if model.name in WITHOUT_WRITES:
        return
    by_prompt = torch.stack(seen).reshape(len(contrast.prompts), len(layers), -1)
    torch.testing.assert_close(residual[:, 0], by_prompt, rtol=1e-3, atol=1e-4)
    assert residual[:, 1].abs().max() > 0.01
