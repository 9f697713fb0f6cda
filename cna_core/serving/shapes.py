"""Answers in the formats of the OpenAI API, complete and streamed. This module knows no HTTP."""

import json
import secrets
import time
from collections.abc import Sequence
from typing import Any, Protocol

from cna_core.decoding.reading import TokenChances
from cna_core.decoding.session import Request, Step
from cna_core.models.loaded import LoadedModel


class Choice(Protocol):
    """One answer of a request: the prompt, and the steps so far."""

    index: int
    request: Request
    echoed: list[TokenChances | None] | None
    steps: list[Step]


def event(content: dict[str, Any]) -> bytes:
    """One server-sent event."""
    return f"data: {json.dumps(content, ensure_ascii=False)}\n\n".encode()


def model_card(name: str) -> dict[str, Any]:
    """One entry of `/v1/models`."""
    return {"id": name, "object": "model", "created": 0, "owned_by": "refusal-gate-explorer"}


class _Shape:
    """The common part of chats and completions.

    Args:
        model: the model of the tokens.
        name: the client's name for the model.
    """

    kind = ""
    piece_kind = ""
    prefix = ""

    def __init__(self, model: LoadedModel, name: str) -> None:
        self.model, self.name = model, name
        self._about = {"id": f"{self.prefix}-{secrets.token_hex(12)}", "created": int(time.time()), "model": name}

    def _whole(self, choices: Sequence[Choice], described: list[dict[str, Any]]) -> dict[str, Any]:
        return {**self._about, "object": self.kind, "choices": described, "usage": _usage(choices)}

    def _piece(self, described: list[dict[str, Any]]) -> dict[str, Any]:
        return {**self._about, "object": self.piece_kind, "choices": described}

    def usage_piece(self, choices: Sequence[Choice]) -> dict[str, Any]:
        """The last piece, if the client requested the token counts."""
        return self._piece([]) | {"usage": _usage(choices)}

    def token(self, token_id: int) -> str:
        """A token as text."""
        return str(self.model.tokenizer.decode([token_id], clean_up_tokenization_spaces=False))


class Chat(_Shape):
    """`/v1/chat/completions`.

    Args:
        logprobs: whether to return the tokens' log-probabilities.
    """

    kind, piece_kind, prefix = "chat.completion", "chat.completion.chunk", "chatcmpl"

    def __init__(self, model: LoadedModel, name: str, logprobs: bool) -> None:
        super().__init__(model, name)
        self.logprobs = logprobs

    def whole(self, choices: Sequence[Choice]) -> dict[str, Any]:
        """The answer to a request that does not stream."""
        return self._whole(
            choices,
            [
                {
                    "index": choice.index,
                    "message": {"role": "assistant", "content": _text(choice.steps), **_reasoning(choice.steps)},
                    "logprobs": self._logprobs(choice.steps),
                    "finish_reason": _finish_reason(choice),
                }
                for choice in choices
            ],
        )

    def opening(self, choice: Choice) -> dict[str, Any] | None:
        """The first piece of an answer: its role."""
        return self._delta(choice, {"role": "assistant", "content": ""}, None, None)

    def piece(self, choice: Choice, step: Step) -> dict[str, Any]:
        """One token."""
        delta = {"content": step.text} if step.text else {}
        delta |= {"reasoning_content": step.thought} if step.thought else {}
        return self._delta(choice, delta, step.finish_reason, self._logprobs([step]))

    def _delta(self, choice: Choice, delta: dict[str, str], reason: str | None, logprobs: Any) -> dict[str, Any]:
        return self._piece([{"index": choice.index, "delta": delta, "logprobs": logprobs, "finish_reason": reason}])

    def _logprobs(self, steps: Sequence[Step]) -> dict[str, Any] | None:
        if not self.logprobs:
            return None
        return {"content": [self._entry(step.token_id, step.chances) for step in steps if step.chances is not None]}

    def _entry(self, token_id: int, chances: TokenChances) -> dict[str, Any]:
        likeliest = [self._one(other, logprob) for other, logprob in chances.likeliest]
        return self._one(token_id, chances.logprob) | {"top_logprobs": likeliest}

    def _one(self, token_id: int, logprob: float) -> dict[str, Any]:
        text = self.token(token_id)
        return {"token": text, "logprob": logprob, "bytes": list(text.encode())}


class Text(_Shape):
    """`/v1/completions`.

    Args:
        logprobs: the number of likeliest tokens to return; None: no log-probabilities.
        echo: whether the prompt stands before the answer.
    """

    kind, piece_kind, prefix = "text_completion", "text_completion", "cmpl"

    def __init__(self, model: LoadedModel, name: str, logprobs: int | None, echo: bool) -> None:
        super().__init__(model, name)
        self.logprobs, self.echo = logprobs, echo

    def whole(self, choices: Sequence[Choice]) -> dict[str, Any]:
        """The answer to a request that does not stream."""
        return self._whole(choices, [self._choice(choice) for choice in choices])

    def opening(self, _choice: Choice) -> dict[str, Any] | None:
        """No piece precedes the first token."""
        return None

    def piece(self, choice: Choice, step: Step) -> dict[str, Any]:
        """One token."""
        logprobs = self._logprobs([step.token_id], [step.chances])
        return self._piece(
            [{"index": choice.index, "text": step.text, "logprobs": logprobs, "finish_reason": step.finish_reason}]
        )

    def _choice(self, choice: Choice) -> dict[str, Any]:
        tokens = [step.token_id for step in choice.steps]
        chances = [step.chances for step in choice.steps]
        text = _text(choice.steps)
        if self.echo:
            prompt = list(choice.request.prompt.tokens)
            text = str(self.model.tokenizer.decode(prompt, clean_up_tokenization_spaces=False)) + text
            tokens, chances = prompt + tokens, [*(choice.echoed or [None] * len(prompt)), *chances]
        return {
            "index": choice.index,
            "text": text,
            "logprobs": self._logprobs(tokens, chances),
            "finish_reason": _finish_reason(choice),
        }

    def _logprobs(self, tokens: Sequence[int], chances: Sequence[TokenChances | None]) -> dict[str, Any] | None:
        if self.logprobs is None:
            return None
        texts = [self.token(token) for token in tokens]
        offsets = [0]
        for text in texts[:-1]:
            offsets.append(offsets[-1] + len(text))
        return {
            "tokens": texts,
            "token_logprobs": [None if one is None else one.logprob for one in chances],
            "top_logprobs": [None if one is None else self._likeliest(one) for one in chances],
            "text_offset": offsets[: len(texts)],
        }

    def _likeliest(self, chances: TokenChances) -> dict[str, float]:
        found: dict[str, float] = {}
        for token, logprob in chances.likeliest:
            found.setdefault(self.token(token), logprob)  # two tokens may have the same text: keep the likelier one
        return found


def _text(steps: Sequence[Step]) -> str:
    return "".join(step.text for step in steps)


def _reasoning(steps: Sequence[Step]) -> dict[str, str]:
    """The thought before the answer, under the name that clients of reasoning models know; nothing without one."""
    thought = "".join(step.thought for step in steps)
    return {"reasoning_content": thought} if thought else {}


def _finish_reason(choice: Choice) -> str:
    return (choice.steps[-1].finish_reason if choice.steps else None) or "length"


def _usage(choices: Sequence[Choice]) -> dict[str, Any]:
    """The counts of prompt and answer tokens; a prompt with several answers counts once, thoughts are answer tokens."""
    read = sum(len(prompt.tokens) for prompt in {id(c.request.prompt): c.request.prompt for c in choices}.values())
    written = sum(len(choice.steps) for choice in choices)
    counts: dict[str, Any] = {"prompt_tokens": read, "completion_tokens": written, "total_tokens": read + written}
    if thought := sum(choice.steps[-1].thought_tokens for choice in choices if choice.steps):
        counts["completion_tokens_details"] = {"reasoning_tokens": thought}
    return counts
