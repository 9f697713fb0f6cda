"""Tiny models whose chat templates make them think, in the ways that real templates do."""

import dataclasses

import torch
from tokenizers import AddedToken
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from cna_core.models.loaded import LoadedModel
from tests.decoding.models import shape_of
from tests.tiny import CHAT_TEMPLATE, tiny_tokenizer

OFF = "{% if enable_thinking is defined and not enable_thinking %}"
SWITCH = CHAT_TEMPLATE + OFF + "{{ ' <think>\n\n</think>\n\n' }}{% endif %}"
"""The model opens its own thought; switched off, the template writes an empty one."""
SWITCH_OFF_BY_DEFAULT = CHAT_TEMPLATE + "{% if thinking %}{{ ' <think>' }}{% else %}{{ ' </think>' }}{% endif %}"
"""The switch has the other name; switched on, the template opens the thought."""
OPENS = CHAT_TEMPLATE + "{{ ' <think>\n' }}"
"""No switch: the template opens the thought."""
INSTRUCTS = (
    "{% if messages[0].role != 'system' %}{{ '<s> <system> why [THINK] why [/THINK] sure </s> ' }}{% endif %}"
) + CHAT_TEMPLATE
"""No switch: the default system prompt shows the markers, which are special tokens."""
CHANNELS = (
    "{% for message in messages %}{{ '<|start|>' + message.role }}"
    "{% if message.role == 'assistant' %}{{ '<|channel|>final' }}{% endif %}"
    "{{ '<|message|>' + message.content + '<|end|>' }}{% endfor %}{{ '<|start|>assistant' }}"
    "{# the first output is <|channel|>analysis<|message|> #}"
)
"""No switch: thought and answer are channels."""
ONLY_STRIPS = CHAT_TEMPLATE.replace("message['content']", "message['content'].split('</think>')[-1]")
"""The model does not think: the template only removes thoughts from earlier answers."""

PLAIN_MARKERS = ("<think>", "</think>", "<thought>", "</thought>")
SPECIAL_MARKERS = ("[THINK]", "[/THINK]", "<|start|>", "<|channel|>", "<|message|>", "<|end|>")
WORDS = ("analysis", "final", "commentary", "assistant", "user", "system")


def thinking_tokenizer(template: str | None) -> PreTrainedTokenizerFast:
    """The tests' tokenizer with the markers as tokens of their own, some of them special."""
    tokenizer = tiny_tokenizer(template)
    tokenizer.add_tokens([AddedToken(marker, special=False) for marker in (*PLAIN_MARKERS, *WORDS)])
    tokenizer.add_tokens([AddedToken(marker, special=True) for marker in SPECIAL_MARKERS], special_tokens=True)
    return tokenizer


def thinking_model(template: str | None = SWITCH) -> LoadedModel:
    """A random 4-layer Llama with this template, loud enough that steering changes what it writes."""
    torch.manual_seed(1)
    tokenizer = thinking_tokenizer(template)
    network = LlamaForCausalLM(LlamaConfig(**shape_of(tokenizer))).eval()
    return LoadedModel("tiny-thinking", "random", network, tokenizer, torch.device("cpu"))


def with_template(model: LoadedModel, template: str | None) -> LoadedModel:
    """The same network with another template."""
    return dataclasses.replace(model, tokenizer=thinking_tokenizer(template))
