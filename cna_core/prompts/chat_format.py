"""Format prompts with the model's chat template, or as plain text if it has none, and encode them to tokens.

Formatting is the same on every day and machine: templates that print today's date get a fixed date. Thinking is off
unless it is asked for, so that the answer starts with the first generated token: the template's switch turns it off,
or, if the template has none, an empty thought ends the prompt.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from cna_core.errors import PromptError
from cna_core.models.chat_templates import TemplateRejectedError, render, template_of
from cna_core.models.loaded import LoadedModel
from cna_core.prompts.thinking import Thinking, ThoughtMarkers, markers_in
from cna_core.shown import is_whole

Message = dict[str, str]
"""`{"role": "system" | "user" | "assistant", "content": text}`."""

_SYSTEM_PROBE = "c4f1e0-system-probe"


def as_messages(prompt: str, system: str | None = None) -> list[Message]:
    """A conversation with one user message, after the system message if there is one."""
    opening = [{"role": "system", "content": system}] if system else []
    return [*opening, {"role": "user", "content": prompt}]


def has_system_role(model: LoadedModel) -> bool:
    """Whether the model's template prints a system message. If not, its text is added to the user message."""
    if not model.has_chat_template:
        return False
    try:
        return _SYSTEM_PROBE in _render(model, as_messages("probe", system=_SYSTEM_PROBE))
    except TemplateRejectedError:
        return False


@dataclass(frozen=True)
class ThinkingFormat:
    """How a model thinks, as its chat template shows.

    Args:
        markers: the markers of its thought.
        has_switch: whether the template can turn thinking on and off.
        by_default: whether the model thinks if the template decides.
    """

    markers: ThoughtMarkers
    has_switch: bool
    by_default: bool

    def thinks(self, thinking: bool | None) -> bool:
        """Whether the model is asked to think; `thinking` as for `format_messages`."""
        if thinking is None or not (self.has_switch or self.by_default):
            return self.by_default
        return thinking


def thinking_format(model: LoadedModel) -> ThinkingFormat | None:
    """How the model thinks; None if its template contains no markers of a thought.

    A template without a switch makes its model think if it opens the thought, or if its system prompt has the markers.
    A template that only removes thoughts from earlier answers does not: then thoughts are recognised, nothing more.
    """
    if not model.has_chat_template:
        return None
    probe = as_messages("probe")
    try:
        markers = markers_in(template_of(model.tokenizer))
        if markers is None:
            return None
        decides, on, off = (_render(model, probe, thinking) for thinking in (None, True, False))
    except TemplateRejectedError:
        return None
    if on != off:
        return ThinkingFormat(markers, True, decides == on)
    return ThinkingFormat(markers, False, markers.instructs or markers.open_at_end(decides) or markers.are_in(decides))


def settled_thinking(model: LoadedModel, thinking: bool | None) -> bool:
    """Whether the model thinks under this setting: on, off, or None for the template's own default.

    Raises:
        PromptError: it is to think and cannot.
    """
    form = thinking_format(model)
    if thinking and (form is None or not form.thinks(True)):
        raise PromptError(f"{model.name} has no thinking that could be turned on: its chat template has no switch.")
    return form is not None and form.thinks(thinking)


def thinking_after(
    model: LoadedModel, prompt: str | Sequence[Message], thinking: bool | None = False
) -> Thinking | None:
    """How the text after a prompt is split into thought and answer; None if the model has no markers.

    Arguments and errors as for `encode`.
    """
    form = thinking_format(model)
    if form is None:
        return None
    messages = as_messages(prompt) if isinstance(prompt, str) else prompt
    is_open = form.markers.open_at_end(format_messages(model, messages, thinking))
    return Thinking(form.markers, is_open, form.thinks(thinking))


def format_messages(model: LoadedModel, messages: Sequence[Message], thinking: bool | None = False) -> str:
    """The conversation as the model reads it, up to the start of its answer.

    Args:
        messages: the conversation.
        thinking: whether the model is asked to think before it answers, if it can; None: as its template does by
            default. If a template without a switch makes its model think, False ends the prompt with an empty thought.

    With a chat template, this is the template with the generation prompt. If the template has no system role (such as
    Gemma's), the system text is put before the first user message, separated by a blank line. Without a template (base
    models), it is the messages' contents, separated by blank lines.

    Raises:
        PromptError: the conversation is empty, or the template does not accept it.
    """
    if not messages or not any(message["content"].strip() for message in messages):
        raise PromptError("The prompt is empty: type something first.")
    if any(not is_whole(message["content"]) for message in messages):
        raise PromptError("The prompt has half of a character (a lone surrogate), which no model reads: type it again.")
    if not model.has_chat_template:
        return "\n\n".join(message["content"] for message in messages)
    if messages[0]["role"] == "system" and not has_system_role(model):
        messages = _system_in_user_message(messages)
    try:
        text = _render(model, messages, thinking)
    except TemplateRejectedError as problem:
        raise PromptError(
            f"The chat template of {model.name} does not accept this conversation ({problem}): start with a user "
            "message, and alternate user and assistant messages."
        ) from problem
    form = thinking_format(model) if thinking is False else None
    if form is not None and form.by_default and not form.has_switch:
        return form.markers.without_thought(text)
    return text


def encode(model: LoadedModel, prompt: str | Sequence[Message], thinking: bool | None = False) -> list[int]:
    """Token ids of a formatted prompt, with special tokens added once.

    Args:
        prompt: a user message, or a whole conversation.
        thinking: as for `format_messages`.

    Raises:
        PromptError: it is empty, the template does not accept it, or it is longer than the model's context.
    """
    messages = as_messages(prompt) if isinstance(prompt, str) else prompt
    text = format_messages(model, messages, thinking)
    tokens = model.tokenizer(text, add_special_tokens=not model.has_chat_template)["input_ids"]
    if not tokens:
        raise PromptError("The prompt has no tokens for this model: type something else.")
    if len(tokens) > model.context_tokens:
        raise PromptError(
            f"The prompt has {len(tokens):,} tokens, and {model.name} reads up to {model.context_tokens:,}: shorten it."
        )
    return list(tokens)


def shared_prefix_length(rows: Sequence[Sequence[int]]) -> int:
    """The number of first tokens that all rows share, leaving every row at least one token of its own."""
    if not rows:
        return 0
    # What the lexicographically smallest and largest rows share, all rows share.
    smallest, largest = min(map(tuple, rows)), max(map(tuple, rows))
    limit = min(len(row) for row in rows) - 1
    shared = 0
    while shared < limit and smallest[shared] == largest[shared]:
        shared += 1
    return shared


def _render(model: LoadedModel, messages: Sequence[Message], thinking: bool | None = False) -> str:
    # Templates call their switch by one of these names; None leaves the template its default.
    switches: dict[str, Any] = {} if thinking is None else {"enable_thinking": thinking, "thinking": thinking}
    return render(model.name, model.tokenizer, messages, switches, apart=model.foreign_template)


def _system_in_user_message(messages: Sequence[Message]) -> list[Message]:
    system, *rest = messages
    first_user = next((place for place, message in enumerate(rest) if message["role"] == "user"), None)
    if first_user is None:
        raise PromptError("The conversation has only a system message: add a user message.")
    merged = {"role": "user", "content": f"{system['content']}\n\n{rest[first_user]['content']}"}
    return [*rest[:first_user], merged, *rest[first_user + 1 :]]
