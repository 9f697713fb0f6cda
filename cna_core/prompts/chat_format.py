"""How a prompt becomes tokens: the model's chat template, or plain text where it has none.

Knows templates and token ids; knows nothing about prompt sets, batches or neurons. Formatting is the same on every day
and every machine: templates that print today's date get a fixed one, and templates with a thinking mode have it off, so
that the answer itself begins at the first generated token.
"""

from collections.abc import Sequence

from jinja2 import TemplateError

from cna_core.errors import PromptError
from cna_core.models.loaded import LoadedModel

Message = dict[str, str]
"""`{"role": "system" | "user" | "assistant", "content": text}`."""

_FIXED_DATE = (
    "{%- macro strftime_now(format) -%}{{ format | replace('%Y', '2024') | replace('%m', '07') | replace('%d', '26')"
    " | replace('%b', 'Jul') | replace('%B', 'July') | replace('%y', '24') }}{%- endmacro -%}"
)
"""Shadows the clock that templates are given; the date is the one that Llama 3's template falls back to."""

_SYSTEM_PROBE = "c4f1e0-system-probe"


def as_messages(prompt: str, system: str | None = None) -> list[Message]:
    """A conversation of one user message, with a system message before it where there is one."""
    opening = [{"role": "system", "content": system}] if system else []
    return [*opening, {"role": "user", "content": prompt}]


def has_system_role(model: LoadedModel) -> bool:
    """Whether the model's template prints a system message; if not, its text joins the user message."""
    if not model.has_chat_template:
        return False
    try:
        return _SYSTEM_PROBE in _render(model, as_messages("probe", system=_SYSTEM_PROBE))
    except TemplateError:
        return False


def format_messages(model: LoadedModel, messages: Sequence[Message]) -> str:
    """The conversation as the model reads it, ending where its answer begins.

    With a chat template: the template, with the generation prompt. A template without a system role (Gemma's, say) gets
    the system text in front of the first user message, a blank line between. Without a template (base models): the
    contents alone, blank lines between them.

    Raises:
        PromptError: the conversation is empty, or the template refuses it.
    """
    if not messages or not any(message["content"].strip() for message in messages):
        raise PromptError("The prompt is empty; write something to ask.")
    if not model.has_chat_template:
        return "\n\n".join(message["content"] for message in messages)
    if messages[0]["role"] == "system" and not has_system_role(model):
        messages = _system_in_user_message(messages)
    try:
        return _render(model, messages)
    except TemplateError as problem:
        raise PromptError(
            f"The chat template of {model.name} does not take this conversation ({problem}); "
            "start with a user message and let user and assistant take turns."
        ) from problem


def encode(model: LoadedModel, prompt: str | Sequence[Message]) -> list[int]:
    """Token ids of a formatted prompt, special tokens included once.

    Args:
        prompt: a user message, or a whole conversation.

    Raises:
        PromptError: it is empty, the template refuses it, or it is longer than the model's context.
    """
    messages = as_messages(prompt) if isinstance(prompt, str) else prompt
    text = format_messages(model, messages)
    tokens = model.tokenizer(text, add_special_tokens=not model.has_chat_template)["input_ids"]
    if not tokens:
        raise PromptError("The prompt has no tokens for this model; write something to ask.")
    if len(tokens) > model.context_tokens:
        raise PromptError(
            f"A prompt has {len(tokens):,} tokens and {model.name} reads at most {model.context_tokens:,}; shorten it."
        )
    return list(tokens)


def shared_prefix_length(rows: Sequence[Sequence[int]]) -> int:
    """How many first tokens all rows share, such that every row keeps at least one token of its own."""
    if not rows:
        return 0
    # Lexicographic extremes: what the smallest and the largest row share, all rows share.
    smallest, largest = min(map(tuple, rows)), max(map(tuple, rows))
    limit = min(len(row) for row in rows) - 1
    shared = 0
    while shared < limit and smallest[shared] == largest[shared]:
        shared += 1
    return shared


def _render(model: LoadedModel, messages: Sequence[Message]) -> str:
    template = model.tokenizer.get_chat_template()
    text = model.tokenizer.apply_chat_template(
        list(messages),
        chat_template=_FIXED_DATE + template if "strftime_now" in template else template,
        tokenize=False,
        add_generation_prompt=True,
        enable_thinking=False,
    )
    return str(text)


def _system_in_user_message(messages: Sequence[Message]) -> list[Message]:
    system, *rest = messages
    first_user = next((place for place, message in enumerate(rest) if message["role"] == "user"), None)
    if first_user is None:
        raise PromptError("A system message alone is no prompt; add a user message.")
    merged = {"role": "user", "content": f"{system['content']}\n\n{rest[first_user]['content']}"}
    return [*rest[:first_user], merged, *rest[first_user + 1 :]]
