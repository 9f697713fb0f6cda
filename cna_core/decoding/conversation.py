"""A conversation with several lanes: what each has been told and has answered, and the conversation as a file.

Each lane keeps a history of its own, because their answers differ. Plain data that grows while a decode runs in another
thread; knows no pages and runs no model.
"""

import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from cna_core.decoding.lanes import Step
from cna_core.interventions.registry import DEFAULT_METHOD, label_of
from cna_core.prompts.chat_format import Message

LaneKind = Literal["baseline", "steered", "random", "other", "method"]

FORMAT = "cna-conversation/1"


@dataclass
class Answer:
    """One lane's answer to one message; lists grow together, one entry a token.

    Args:
        kind: which lane.
        strength: its strength.
        pieces: what each token added to the text.
        activity, layer_activity, divergence: see `Step`; None where not measured.
        logprobs: ln of each token's probability in its lane, before sampling settings; None where not recorded.
        finish_reason: see `Step`; None while it is written, and where it was stopped.
        seconds_to_first: from sending to the first token; None before.
        seconds: from the first token to the last one.
        method: the key of how it is steered; a random lane has its random twin.
        begun: how many first tokens were given to it (`Branch`); the lane wrote those after them.
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

    @property
    def text(self) -> str:
        return "".join(self.pieces)

    @property
    def tokens_per_second(self) -> float | None:
        """None before it wrote two tokens."""
        written = len(self.token_ids) - self.begun
        return (written - 1) / self.seconds if written > 1 and self.seconds > 0 else None

    def begin(self, steps: Sequence[Step]) -> None:
        """Note the tokens that the answer was begun with."""
        for step in steps:
            self._note(step)
        self.begun = len(steps)

    def add(self, step: Step, seconds: float) -> None:
        """Note a step that came `seconds` after sending."""
        if self.seconds_to_first is None:
            self.seconds_to_first = seconds
        self.seconds = seconds - self.seconds_to_first
        self._note(step)

    def _note(self, step: Step) -> None:
        self.pieces.append(step.text)
        self.activity.append(step.activity)
        self.layer_activity.append(step.layer_activity)
        self.logprobs.append(None if step.chances is None else step.chances.logprob)
        self.divergence.append(step.divergence)
        self.finish_reason = step.finish_reason
        self.token_ids.append(step.token_id)  # last: whoever counts tokens finds the other lists as long

    def parts_from(self, baseline: "Answer") -> int | None:
        """The first token that differs from the baseline's; None while none does."""
        for place, (mine, theirs) in enumerate(zip(self.token_ids, baseline.token_ids, strict=False)):
            if mine != theirs:
                return place
        mine_ended, theirs_ended = self.finish_reason == "stop", baseline.finish_reason == "stop"
        shorter = min(len(self.token_ids), len(baseline.token_ids))
        longer = max(len(self.token_ids), len(baseline.token_ids))
        return shorter if (mine_ended or theirs_ended) and longer > shorter else None


@dataclass(frozen=True)
class Branch:
    """Where a turn goes another way than the turn it came from: all lanes begin with one lane's text and another token.

    Args:
        kind: whose text it was.
        place: which of its tokens was replaced, counted from 0.
        token: the id of the token in its place.
        text: that token as text.
    """

    kind: LaneKind
    place: int
    token: int
    text: str


@dataclass
class Turn:
    """A message and what the lanes answered.

    Args:
        message: the user's.
        answers: one a lane, the baseline first.
        settings: everything the answers depend on, for the file.
        error: why there is no answer, in one sentence.
        stopped: whether it was stopped before all lanes had ended.
        branch: what it was begun with, where it went on from another turn.
    """

    message: str
    answers: list[Answer]
    settings: dict[str, Any] = field(default_factory=dict)
    error: str | None = None
    stopped: bool = False
    branch: Branch | None = None
    sent_at: float = field(default_factory=time.time)

    def answer_of(self, kind: LaneKind) -> Answer:
        """The lane's answer, or the baseline's where the lane did not take part."""
        return next((answer for answer in self.answers if answer.kind == kind), self.answers[0])


@dataclass
class Conversation:
    """Turns, the oldest first.

    Args:
        turns: those that are shown.
        versions: every version of a turn that has several, by the turn's number, in the order in which they came.
    """

    turns: list[Turn] = field(default_factory=list)
    versions: dict[int, list[Turn]] = field(default_factory=dict)

    @property
    def last_versions(self) -> list[Turn]:
        """Every version of the last turn, in the order in which they came; empty without a turn."""
        return self.versions.get(len(self.turns) - 1, self.turns[-1:])

    def branch_last(self, turn: Turn) -> None:
        """Show another version of the last turn; the one that was shown stays among its versions."""
        self.versions[len(self.turns) - 1] = [*self.last_versions, turn]
        self.turns[-1] = turn

    def show_last(self, place: int) -> None:
        """Show one of the last turn's versions."""
        self.turns[-1] = self.last_versions[place]

    def drop_last(self) -> Turn:
        """Take the last turn out, with all its versions; the one that was shown."""
        self.versions.pop(len(self.turns) - 1, None)
        return self.turns.pop()

    def history(self, kind: LaneKind, before: int | None = None, system: str = "") -> list[Message]:
        """What a lane has been told and has said.

        Args:
            kind: whose answers stand in it.
            before: turns from this one on are left out; None: none is.
            system: a system prompt; empty for none.
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
        """The conversation to read: messages and answers fenced, so that nothing in them is taken for markup."""
        lines = ["# Conversation", ""]
        lines += [f"- {name}: {_inline(value)}" for name, value in about.items()]
        for number, turn in enumerate(self.turns, 1):
            lines += ["", f"## {number}", "", *_fenced(turn.message), ""]
            lines += [f"Settings: {_inline(turn.settings)}"]
            if turn.error:
                lines += ["", f"No answer: {turn.error}"]
                continue
            for answer in turn.answers:
                ending = answer.finish_reason or "stopped"
                how = "" if answer.kind == "baseline" else f" ({label_of(answer.method)})"
                title = f"{answer.kind}, strength {answer.strength:g}{how}"
                lines += ["", f"### {title} · {len(answer.token_ids)} tokens · {ending}", "", *_fenced(answer.text)]
        return "\n".join(lines) + "\n"


def _told(turn: Turn) -> dict[str, Any]:
    return asdict(turn) | {"answers": [_described(answer) for answer in turn.answers]}


def _described(answer: Answer) -> dict[str, Any]:
    return {"text": answer.text, "multiplier": 1 - answer.strength, **asdict(answer)}


def _inline(value: object) -> str:
    return f"`{json.dumps(value, ensure_ascii=False).replace('`', chr(0x2BB))}`"


def _fenced(text: str) -> Sequence[str]:
    """A code block whose fence is longer than any run of backticks in it."""
    fence = "```"
    while fence in text:
        fence += "`"
    return [f"{fence}text", text, fence]
