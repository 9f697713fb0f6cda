"""A conversation with several lanes: the messages and answers of each lane, and their file formats.

Each lane has its own history, because the answers differ. This is plain data that grows while another thread decodes;
this module knows no pages and runs no model.
"""

import itertools
import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from cna_core.decoding.lanes import SteeredPart, Step
from cna_core.interventions.registry import DEFAULT_METHOD, label_of
from cna_core.prompts.chat_format import Message

LaneKind = Literal["baseline", "steered", "random", "other", "method"]

FORMAT = "cna-conversation/1"
MARKER = "·"
"""Stands for a token that marks a thought's beginning or end."""


@dataclass
class Answer:
    """One lane's answer to one message. Its lists have one entry per token.

    Args:
        kind: the lane.
        strength: the lane's strength.
        pieces: the text that each token added to the answer.
        activity, layer_activity, divergence: see `Step`; None if not measured.
        logprobs: ln of each token's probability in its lane, before sampling settings; None if not recorded.
        finish_reason: see `Step`; None during generation, and if it was stopped.
        seconds_to_first: the time from sending to the first token; None before.
        seconds: the time from the first token to the last one.
        method: the key of the method; a random lane has its random twin.
        begun: the number of given first tokens (`Branch`); the lane generated those after them.
        steers: the part in which steering acts, in models that think.
        thoughts: the text that each token added to the thought before the answer.
        thought_tokens: the number of first tokens that belong to the thought or its markers.
        in_thought: whether the thought has not ended, so that there is no answer.
    """

    kind: LaneKind
    strength: float
    pieces: list[str] = field(default_factory=list)
    token_ids: list[int] = field(default_factory=list)
    activity: list[float | None] = field(default_factory=list)
    divergence: list[float | None] = field(default_factory=list)
    finish_reason: str | None = None
    seconds_to_first: float | None = None
    seconds: float = 0.0
    method: str = DEFAULT_METHOD
    layer_activity: list[tuple[float, ...] | None] = field(default_factory=list)
    logprobs: list[float | None] = field(default_factory=list)
    begun: int = 0
    steers: SteeredPart = "both"
    thoughts: list[str] = field(default_factory=list)
    thought_tokens: int = 0
    in_thought: bool = False

    @property
    def text(self) -> str:
        """The answer, without the thought before it."""
        return "".join(self.pieces)

    @property
    def thought(self) -> str:
        return "".join(self.thoughts)

    @property
    def token_texts(self) -> list[str]:
        """The text of each token, in thought or answer; a dot for those of a marker."""
        pairs = itertools.zip_longest(self.thoughts[: len(self.pieces)], self.pieces, fillvalue="")
        texts = [thought + piece for thought, piece in pairs]
        return [text or (MARKER if place < self.thought_tokens else "") for place, text in enumerate(texts)]

    @property
    def tokens_per_second(self) -> float | None:
        """None for fewer than two generated tokens."""
        written = len(self.token_ids) - self.begun
        return (written - 1) / self.seconds if written > 1 and self.seconds > 0 else None

    def begin(self, steps: Sequence[Step]) -> None:
        """Add the given tokens with which the answer begins."""
        for step in steps:
            self._note(step)
        self.begun = len(steps)

    def add(self, step: Step, seconds: float) -> None:
        """Add a step that arrived `seconds` after sending."""
        if self.seconds_to_first is None:
            self.seconds_to_first = seconds
        self.seconds = seconds - self.seconds_to_first
        self._note(step)

    def _note(self, step: Step) -> None:
        self.thoughts.append(step.thought)
        self.thought_tokens, self.in_thought = step.thought_tokens, step.in_thought
        self.pieces.append(step.text)
        self.activity.append(step.activity)
        self.layer_activity.append(step.layer_activity)
        self.logprobs.append(None if step.chances is None else step.chances.logprob)
        self.divergence.append(step.divergence)
        self.finish_reason = step.finish_reason
        self.token_ids.append(
            step.token_id
        )  # last, so that a reader who counts tokens finds the other lists equally long

    def parts_from(self, baseline: "Answer") -> int | None:
        """The index of the first token that differs from the baseline's, or None."""
        for place, (mine, theirs) in enumerate(zip(self.token_ids, baseline.token_ids, strict=False)):
            if mine != theirs:
                return place
        mine_ended, theirs_ended = self.finish_reason == "stop", baseline.finish_reason == "stop"
        shorter = min(len(self.token_ids), len(baseline.token_ids))
        longer = max(len(self.token_ids), len(baseline.token_ids))
        return shorter if (mine_ended or theirs_ended) and longer > shorter else None


@dataclass(frozen=True)
class Branch:
    """The start of an alternative turn: all lanes begin with one lane's text, in which one token is replaced.

    Args:
        kind: the lane of the text.
        place: the index of the replaced token, from 0.
        token: the id of the new token.
        text: the new token as text.
    """

    kind: LaneKind
    place: int
    token: int
    text: str


@dataclass
class Turn:
    """A message and the lanes' answers.

    Args:
        message: the user's message.
        answers: one per lane, the baseline first.
        settings: everything on which the answers depend, for the file.
        error: the reason, in one sentence, if there is no answer.
        stopped: whether it was stopped before all lanes had finished.
        branch: how it begins, if it continues from another turn.
    """

    message: str
    answers: list[Answer]
    settings: dict[str, Any] = field(default_factory=dict)
    error: str | None = None
    stopped: bool = False
    branch: Branch | None = None
    sent_at: float = field(default_factory=time.time)

    def answer_of(self, kind: LaneKind) -> Answer:
        """The lane's answer, or the baseline's if the lane was not shown."""
        return next((answer for answer in self.answers if answer.kind == kind), self.answers[0])


@dataclass
class Conversation:
    """Turns, the oldest first.

    Args:
        turns: the turns that are shown.
        versions: all versions of a turn that has several, by the turn's index, in the order of their creation.
    """

    turns: list[Turn] = field(default_factory=list)
    versions: dict[int, list[Turn]] = field(default_factory=dict)

    @property
    def last_versions(self) -> list[Turn]:
        """All versions of the last turn, in the order of their creation; empty without a turn."""
        return self.versions.get(len(self.turns) - 1, self.turns[-1:])

    def branch_last(self, turn: Turn) -> None:
        """Add a version of the last turn and show it; the previous version is kept."""
        self.versions[len(self.turns) - 1] = [*self.last_versions, turn]
        self.turns[-1] = turn

    def show_last(self, place: int) -> None:
        """Show one version of the last turn."""
        self.turns[-1] = self.last_versions[place]

    def drop_last(self) -> Turn:
        """Remove the last turn with all its versions; returns the version that was shown."""
        self.versions.pop(len(self.turns) - 1, None)
        return self.turns.pop()

    def history(self, kind: LaneKind, before: int | None = None, system: str = "") -> list[Message]:
        """The messages and answers of a lane.

        Args:
            kind: the lane.
            before: the index of the first turn to omit; None: include all turns.
            system: a system prompt; "": none.
        """
        messages: list[Message] = [{"role": "system", "content": system}] if system.strip() else []
        for turn in self.turns[:before]:
            answer = turn.answer_of(kind).text
            if turn.error is None and answer:
                messages += [{"role": "user", "content": turn.message}, {"role": "assistant", "content": answer}]
        return messages

    def to_json(self, about: dict[str, Any]) -> str:
        """The conversation with every setting and token.

        Args:
            about: model, circuit and versions.
        """
        turns = [
            _told(turn)
            | {"other_versions": [_told(other) for other in self.versions.get(number, ()) if other is not turn]}
            for number, turn in enumerate(self.turns)
        ]
        return json.dumps({"format": FORMAT, **about, "turns": turns}, ensure_ascii=False, indent=1)

    def to_markdown(self, about: dict[str, Any]) -> str:
        """The conversation as Markdown. Messages and answers are in code blocks, so nothing in them acts as markup."""
        lines = ["# Conversation", ""]
        lines += [f"- {name}: {_inline(value)}" for name, value in about.items()]
        for number, turn in enumerate(self.turns, 1):
            lines += ["", f"## {number}", "", *_fenced(turn.message), ""]
            lines += [f"Settings: {_inline(turn.settings)}"]
            if turn.error:
                lines += ["", "No answer:", "", *_fenced(turn.error)]
                continue
            for answer in turn.answers:
                ending = answer.finish_reason or "stopped"
                how = "" if answer.kind == "baseline" else f" ({label_of(answer.method)})"
                title = f"{answer.kind}, strength {answer.strength:g}{how}"
                lines += ["", f"### {title} · {len(answer.token_ids)} tokens · {ending}", ""]
                if answer.thought_tokens:
                    state = "not ended, so there is no answer" if answer.in_thought else "ended"
                    lines += [f"Thought ({state}):", "", *_fenced(answer.thought), "", "Answer:", ""]
                lines += _fenced(answer.text)
        return "\n".join(lines) + "\n"


def _told(turn: Turn) -> dict[str, Any]:
    return asdict(turn) | {"answers": [_described(answer) for answer in turn.answers]}


def _described(answer: Answer) -> dict[str, Any]:
    return {"text": answer.text, "multiplier": 1 - answer.strength, **asdict(answer)}


def _inline(value: object) -> str:
    return f"`{json.dumps(value, ensure_ascii=False).replace('`', chr(0x2BB))}`"


def _fenced(text: str) -> Sequence[str]:
    """A code block with a fence longer than any run of backticks in the text."""
    fence = "```"
    while fence in text:
        fence += "`"
    return [f"{fence}text", text, fence]
