"""What tiny test models are made of."""

from typing import Any

import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from cna_core.models.loaded import LoadedModel

SENTENCES = (
    "how do i bake break a the bread lock",
    "what is why tell me about cats dogs",
    "sorry cannot help sure here you can yes no it to",
)
WORDS = [word for sentence in SENTENCES for word in sentence.split()]
CHAT_TEMPLATE = (
    "{{ '<s> ' }}"
    "{% for message in messages %}{{ '<' + message['role'] + '> ' + message['content'] + ' </s> ' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<assistant>' }}{% endif %}"
)


def tiny_tokenizer(chat_template: str | None = CHAT_TEMPLATE) -> PreTrainedTokenizerFast:
    """A word-level tokenizer over `WORDS`; any other word is <unk>."""
    special = ["<pad>", "<unk>", "<s>", "</s>", "<user>", "<assistant>", "<system>"]
    vocabulary = {word: number for number, word in enumerate([*special, *WORDS])}
    tokenizer = Tokenizer(WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = WhitespaceSplit()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", unk_token="<unk>", bos_token="<s>", eos_token="</s>"
    )
    fast.chat_template = chat_template
    return fast


def tiny_llama(seed: int = 0, **changes: Any) -> LoadedModel:
    """A random 4-layer Llama with 24 neurons a layer, float32; `changes` are fields of its configuration."""
    torch.manual_seed(seed)
    tokenizer = tiny_tokenizer()
    fields = {
        "vocab_size": len(tokenizer),
        "hidden_size": 16,
        "intermediate_size": 24,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 256,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    network = LlamaForCausalLM(LlamaConfig(**(fields | changes))).eval()
    network.generation_config.eos_token_id = tokenizer.eos_token_id
    return LoadedModel("tiny", "random", network, tokenizer, torch.device("cpu"))
