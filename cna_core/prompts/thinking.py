"""How models mark the thought before their answer, and how text is split into thought and answer.

A model that thinks writes a thought first and then its answer. Markers separate them, for example <think> and </think>.
This module knows text only. chat_format.py knows which of a model's templates make it think.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

Part = Literal["thought", "answer"]


@dataclass(frozen=True)
class ThoughtMarkers:
    """The markers of one family of models.

    Args:
        opens: the texts with which a thought can begin.
        closes: the text that ends the thought; the answer follows.
        within: texts inside a thought that are markers, too, and not part of it.
        empty: what stands for an empty thought; the answer follows it.
        gap: what stands between the markers of an empty thought, and after it.
        instructs: whether a template that contains the markers always makes its model think.
    """

    opens: tuple[str, ...]
    closes: str
    empty: str
    within: tuple[str, ...] = ()
    gap: str = ""
    instructs: bool = False

    def are_in(self, text: str) -> bool:
        """Whether the text contains one of the markers."""
        return any(marker in text for marker in (*self.opens, self.closes))

    def open_at_end(self, prompt: str) -> bool:
        """Whether the prompt ends with a marker that opens a thought, so that the model continues the thought."""
        return prompt.rstrip().endswith(self.opens)

    def without_thought(self, prompt: str) -> str:
        """The prompt, followed by an empty thought: the model continues with its answer."""
        if self.open_at_end(prompt):
            return f"{prompt.rstrip()}{self.gap}{self.closes}{self.gap}"
        return f"{prompt}{self.empty}"


def _pair(opens: str, closes: str, gap: str) -> ThoughtMarkers:
    return ThoughtMarkers((opens,), closes, f"{opens}{gap}{closes}{gap}", gap=gap)


_ANALYSIS, _COMMENTARY, _FINAL = (f"<|channel|>{name}<|message|>" for name in ("analysis", "commentary", "final"))
CHANNELS = ThoughtMarkers(
    (_ANALYSIS, _COMMENTARY),
    _FINAL,
    empty=_FINAL,
    within=("<|end|>", "<|start|>assistant", _ANALYSIS, _COMMENTARY),
    instructs=True,
)
"""The channels of gpt-oss: the thought is in the channels "analysis" and "commentary", the answer in "final"."""

FAMILIES: tuple[ThoughtMarkers, ...] = (
    CHANNELS,
    _pair("[THINK]", "[/THINK]", ""),
    _pair("<think>", "</think>", "\n\n"),
    _pair("<thought>", "</thought>", "\n\n"),
)
"""The known markers; the first ones that a template contains are its own."""


def markers_in(template: str) -> ThoughtMarkers | None:
    """The markers that a chat template contains, or None."""
    return next((family for family in FAMILIES if family.are_in(template)), None)


@dataclass(frozen=True)
class Thinking:
    """How the text that follows one prompt is split.

    Args:
        markers: the model's markers.
        is_open: whether the prompt has opened the thought.
        is_expected: whether the model is asked to think, so that its first tokens count as a thought until they show
            that they are not.
    """

    markers: ThoughtMarkers
    is_open: bool = False
    is_expected: bool = True


class Parts(NamedTuple):
    """A piece of text, split; the markers belong to neither part.

    Args:
        thought: what it adds to the thought.
        answer: what it adds to the answer.
    """

    thought: str
    answer: str


class ThoughtReader:
    """Splits a growing text into thought and answer, piece by piece.

    Text that may be the beginning of a marker is held back until this is clear. Only a thought at the beginning of the
    text is a thought; markers in the answer are text. Space beside the markers is dropped.

    Args:
        thinking: the markers, and where the text begins.

    Example:
        reader = ThoughtReader(Thinking(markers))
        parts = [reader.add(piece) for piece in pieces]
        parts.append(reader.finish())
    """

    def __init__(self, thinking: Thinking) -> None:
        self.markers = thinking.markers
        self._expects = thinking.is_expected
        self._state: Literal["start", "thought", "answer"] = "thought" if thinking.is_open else "start"
        self._held = ""
        self._trimmed: set[Part] = {"thought"}  # the parts whose first space is still dropped
        self._pieces = 0
        self._thought_pieces: int | None = None

    @property
    def in_thought(self) -> bool:
        """Whether the next piece belongs to a thought: one is open, or expected and not begun."""
        return self._state == "thought" or (self._state == "start" and self._expects)

    @property
    def is_open(self) -> bool:
        """Whether a thought has begun and not ended."""
        return self._state == "thought"

    @property
    def thought_pieces(self) -> int:
        """The number of pieces so far that belong to the thought or its markers."""
        if self._thought_pieces is not None:
            return self._thought_pieces
        return self._pieces if self.is_open else 0

    @property
    def part(self) -> Part:
        """The part to which the next piece belongs; before the text has begun, the one that is expected."""
        return "thought" if self.in_thought else "answer"

    def add(self, piece: str) -> Parts:
        """What this piece completes."""
        self._pieces += 1
        return self._split(piece)

    def finish(self, rest: str = "") -> Parts:
        """What the rest of the text adds, and what was held back, when no more text comes."""
        thought, answer = self._split(rest)
        held, self._held = self._held, ""
        if self.is_open:
            return Parts(thought + self._without_space("thought", held), answer)
        return Parts(thought, answer + held)

    def _split(self, piece: str) -> Parts:
        self._held += piece
        if self._state == "start":
            self._begin()
        thought = self._thought() if self._state == "thought" else ""
        return Parts(thought, self._answer() if self._state == "answer" else "")

    def _begin(self) -> None:
        """Decide whether the text begins with a thought, as soon as this is clear."""
        text, markers = self._held.lstrip(), (*self.markers.opens, self.markers.closes)
        marker = next((marker for marker in markers if text.startswith(marker)), None)
        if marker is not None:
            self._held = text[len(marker) :]
            self._state = "thought"
            if marker == self.markers.closes:
                self._end_thought()
        elif text and not any(marker.startswith(text) for marker in markers):
            self._state, self._thought_pieces = "answer", 0

    def _end_thought(self) -> None:
        self._state, self._thought_pieces = "answer", self._pieces
        self._trimmed.add("answer")

    def _thought(self) -> str:
        """The thought's text that is clear; ends the thought at its closing marker."""
        markers, found = (self.markers.closes, *self.markers.within), ""
        while self.is_open and (places := [(self._held.find(one), one) for one in markers if one in self._held]):
            place, marker = min(places)
            found += self._held[:place]
            self._held = self._held[place + len(marker) :]
            if marker == self.markers.closes:
                self._end_thought()
                return self._without_space("thought", found.rstrip())
        text, begun = found + self._held, begun_length(self._held, markers)
        clear = len(text[: len(text) - begun].rstrip())
        self._held = text[clear:]
        return self._without_space("thought", text[:clear])

    def _answer(self) -> str:
        text, self._held = self._held, ""
        return self._without_space("answer", text)

    def _without_space(self, part: Part, text: str) -> str:
        if part not in self._trimmed:
            return text
        text = text.lstrip()
        if text:
            self._trimmed.remove(part)
        return text


def split_thought(text: str, markers: ThoughtMarkers | None = None) -> tuple[Parts, bool]:
    """A whole output, split, and whether its thought has not ended.

    Args:
        markers: the model's markers; None: any known ones.
    """
    beginning = text.lstrip()
    families = FAMILIES if markers is None else (markers,)
    family = next((one for one in families if beginning.startswith((*one.opens, one.closes))), None)
    if family is None:
        return Parts("", text), False
    reader = ThoughtReader(Thinking(family))
    thought, answer = reader.add(text)
    is_open, rest = reader.is_open, reader.finish()
    return Parts(thought + rest.thought, answer + rest.answer), is_open


def begun_length(text: str, markers: Sequence[str]) -> int:
    """The length of the longest end of the text with which one of the markers begins, without being complete."""
    longest = max((len(marker) for marker in markers), default=1) - 1
    for length in range(min(longest, len(text)), 0, -1):
        if any(marker.startswith(text[-length:]) for marker in markers):
            return length
    return 0
