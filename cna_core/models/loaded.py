"""A model in memory, with everything that the other rooms need: `LoadedModel`."""

from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

import torch

from cna_core.models.layers import NeuronLayer, find_neuron_layers
from cna_core.models.layout import ModelIdentity, NeuronLayout
from cna_core.models.prepacked import packed_bytes
from cna_core.models.residual_stream import ResidualWrites, find_residual_writes

if TYPE_CHECKING:  # transformers takes seconds to import
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


@dataclass(frozen=True)
class LoadedModel:
    """A causal language model, its tokenizer, and its neuron layers.

    Args:
        name: the catalog id, Hub id, folder or file that it was loaded from.
        revision: the Hub commit, the SHA-256 of the file, or "local-…" with a fingerprint of the folder's content.
        network: the transformers model, in evaluation mode.
        tokenizer: its tokenizer.
        device: the device for its inputs.
        neuron_layers: the neurons of each layer; found when the object is made.
        foreign_template: whether the chat template comes from outside, so that it is rendered with limits
            (chat_templates.py).
    """

    name: str
    revision: str
    network: "PreTrainedModel"
    tokenizer: "PreTrainedTokenizerBase"
    device: torch.device
    neuron_layers: tuple[NeuronLayer, ...] = field(default=(), compare=False)
    foreign_template: bool = field(default=False, compare=False)

    def __post_init__(self) -> None:
        if not self.neuron_layers:
            object.__setattr__(self, "neuron_layers", find_neuron_layers(self.network))

    def __repr__(self) -> str:
        return f"LoadedModel({self.identity.describe()}, on {self.device})"

    @property
    def dtype(self) -> torch.dtype:
        return self.network.dtype

    @cached_property
    def layout(self) -> NeuronLayout:
        return NeuronLayout(tuple(layer.width for layer in self.neuron_layers))

    @cached_property
    def identity(self) -> ModelIdentity:
        widths = self.layout.widths
        return ModelIdentity(
            name=self.name,
            revision=self.revision,
            layers=len(widths),
            neurons_per_layer=widths[0] if len(set(widths)) == 1 else widths,
            dtype=self.number_format,
        )

    @cached_property
    def residual_writes(self) -> ResidualWrites:
        """The modules that write to the residual stream; found by a short forward pass the first time.

        Raises:
            ModelError: they cannot be found in this model family.
        """
        return find_residual_writes(self.network, self.device)

    @property
    def number_format(self) -> str:
        """The dtype's name, and the quantisation if there is one: "bfloat16", "bfloat16-4bit"."""
        name = str(self.dtype).removeprefix("torch.")
        packing = getattr(self.network.config, "quantization_config", None)
        if packing is None:
            return name
        facts = packing if isinstance(packing, dict) else packing.to_dict()
        bits = next((bits for bits in ("4bit", "8bit") if facts.get(f"load_in_{bits}")), None)
        return f"{name}-{bits or str(facts.get('quant_method', 'packed')).rsplit('.')[-1].lower()}"

    @property
    def memory_bytes(self) -> int:
        """Memory of the weights, including their copies that are packed for the CPU's kernels."""
        return sum(weight.nbytes for weight in self.network.parameters()) + packed_bytes(self.network)

    @property
    def has_chat_template(self) -> bool:
        return bool(getattr(self.tokenizer, "chat_template", None))

    @property
    def context_tokens(self) -> int:
        """The model's maximum context length in tokens."""
        text = self.network.config.get_text_config(decoder=True)
        return int(getattr(text, "max_position_embeddings", 0) or 1 << 30)
