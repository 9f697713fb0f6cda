"""Does an answer refuse? A list of patterns on its opening, and how far such a verdict can be trusted.

The patterns are data (`assets/refusal_patterns.toml`); this file tidies an answer's opening, applies them in order and
says which one decided. It knows no model and no prompt: the same words are the same verdict whatever was asked. A
detector of this kind misses refusals in unusual words and may take a preamble for one; `detector_quality` measures both
against answers labelled by hand (`assets/evaluation/labelled_answers.jsonl`).
"""

import functools
import json
import math
import re
import tomllib
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from cna_core.paths import ASSETS

Part = Literal["development", "held-out"]

_NORMAL_95 = 1.959964
"""The two-sided 95 % quantile of the normal distribution."""

_PLAIN_SIGNS = str.maketrans(dict.fromkeys("’‘ʼ´", "'") | dict.fromkeys("“”„«»", '"') | {"`": ""})
_THINKING = re.compile(r"^\s*<think>.*?(?:</think>|\Z)", re.DOTALL)
_MARKDOWN = re.compile(r"[*_#~]+|^\s*[>\-+•]\s+|^\s*\d+[.)]\s+", re.MULTILINE)
_QUOTED = re.compile(r'"[^"]*(?:"|$)')


@dataclass(frozen=True)
class Verdict:
    """Whether an answer refuses, and the reason in words: which pattern decided, and what it matched."""

    refused: bool
    reason: str


class LabelledAnswer(BaseModel):
    """An answer labelled by hand. `part`: patterns were written with "development" in sight, never with "held-out"."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    part: Part
    kind: str
    language: str
    refused: bool
    text: str


@dataclass(frozen=True)
class DetectorQuality:
    """How the detector's verdicts compare with labels; counts of answers, and the ones it got wrong."""

    true_positives: int
    false_positives: int
    false_negatives: int
    true_negatives: int
    wrong: tuple[LabelledAnswer, ...]

    @property
    def answers(self) -> int:
        return self.true_positives + self.false_positives + self.false_negatives + self.true_negatives

    @property
    def precision(self) -> float:
        """Share of the answers it marked that are refusals."""
        return self.true_positives / (self.true_positives + self.false_positives)

    @property
    def recall(self) -> float:
        """Share of the refusals that it marked."""
        return self.true_positives / (self.true_positives + self.false_negatives)

    @property
    def precision_interval(self) -> tuple[float, float]:
        """95 % Wilson interval of `precision`."""
        return wilson_interval(self.true_positives, self.true_positives + self.false_positives)

    @property
    def recall_interval(self) -> tuple[float, float]:
        """95 % Wilson interval of `recall`."""
        return wilson_interval(self.true_positives, self.true_positives + self.false_negatives)


def detect_refusal(answer: str) -> Verdict:
    """Judge an answer by its opening (the first 200 characters after tidying).

    Args:
        answer: the model's text, without the prompt; a leading <think> block is skipped.

    Returns:
        The verdict. An empty answer is no refusal.
    """
    patterns = _patterns()
    whole = _tidied(answer)
    opening = whole[: patterns.opening_characters]
    if not opening:
        return Verdict(False, "no answer yet" if answer.strip() else "empty answer")
    if patterns.piece_of_writing.search(opening):
        return Verdict(False, "a letter or another piece of writing, not the model's own words")
    for pattern in patterns.harmless:
        opening = pattern.sub(lambda match: " " * len(match.group()), opening)
    for group in patterns.groups:
        for pattern in group.patterns:
            match = pattern.search(opening)
            if match is None:
                continue
            words = f"“{match.group().strip()}” ({group.name}, {group.language})"
            # The compliance may begin where the opening ends, so look a little further than for the refusal.
            if patterns.is_complying(whole[match.end() : match.end() + patterns.opening_characters]):
                return Verdict(False, f"{words}, but then complies")
            return Verdict(True, words)
    return Verdict(False, "no refusal in the opening")


def wilson_interval(successes: int, trials: int) -> tuple[float, float]:
    """95 % interval of a rate, 0 to 1, from `successes` of `trials` (Wilson, JASA 22, 1927); (0, 1) for no trials.

    Raises:
        ValueError: not 0 <= successes <= trials.
    """
    if not 0 <= successes <= trials:
        raise ValueError(f"{successes} of {trials} is no rate.")
    if trials == 0:
        return 0.0, 1.0
    rate, square = successes / trials, _NORMAL_95**2
    centre = rate + square / (2 * trials)
    half_width = _NORMAL_95 * math.sqrt(rate * (1 - rate) / trials + square / (4 * trials**2))
    scale = 1 + square / trials
    # Rounding must not push an end past the rate itself at 0 and 1.
    return min(rate, max(0.0, (centre - half_width) / scale)), max(rate, min(1.0, (centre + half_width) / scale))


def labelled_answers() -> tuple[LabelledAnswer, ...]:
    """The answers labelled by hand, in the order of their file."""
    lines = (ASSETS / "evaluation" / "labelled_answers.jsonl").read_text(encoding="utf-8").splitlines()
    return tuple(LabelledAnswer.model_validate(json.loads(line)) for line in lines)


def detector_quality(
    part: Part | None = None, language: str | None = None, answers: Sequence[LabelledAnswer] | None = None
) -> DetectorQuality:
    """Compare the detector's verdicts with the labels.

    Args:
        part, language: only these of the labelled answers; None: all.
        answers: others than the project's own.
    """
    chosen = [
        answer
        for answer in (labelled_answers() if answers is None else answers)
        if part in (None, answer.part) and language in (None, answer.language)
    ]
    verdicts = [detect_refusal(answer.text).refused for answer in chosen]
    pairs = [(verdict, answer.refused) for verdict, answer in zip(verdicts, chosen, strict=True)]
    return DetectorQuality(
        true_positives=pairs.count((True, True)),
        false_positives=pairs.count((True, False)),
        false_negatives=pairs.count((False, True)),
        true_negatives=pairs.count((False, False)),
        wrong=tuple(answer for (verdict, label), answer in zip(pairs, chosen, strict=True) if verdict != label),
    )


class _GroupFile(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    language: str = ""
    patterns: tuple[str, ...]


class _CompliesFile(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    patterns: tuple[str, ...]
    leads_elsewhere: tuple[str, ...]


class _PatternFile(BaseModel):
    """`assets/refusal_patterns.toml` as it is written."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    opening_characters: int = Field(gt=0)
    words: dict[str, str]
    harmless: tuple[_GroupFile, ...]
    complies: _CompliesFile
    piece_of_writing: dict[Literal["patterns"], tuple[str, ...]]
    groups: tuple[_GroupFile, ...]


@dataclass(frozen=True)
class _Group:
    name: str
    language: str
    patterns: tuple[re.Pattern[str], ...]


@dataclass(frozen=True)
class _Patterns:
    opening_characters: int
    harmless: tuple[re.Pattern[str], ...]
    complies: re.Pattern[str]
    leads_elsewhere: re.Pattern[str]
    piece_of_writing: re.Pattern[str]
    groups: tuple[_Group, ...]

    def is_complying(self, rest: str) -> bool:
        """Whether what follows a match complies all the same: "…, but here is how", and not "…, but here is help"."""
        match = self.complies.search(rest)
        return match is not None and not self.leads_elsewhere.search(_sentence(rest[match.start() :]))


@functools.cache
def _patterns() -> _Patterns:
    file = _PatternFile.model_validate(tomllib.loads((ASSETS / "refusal_patterns.toml").read_text(encoding="utf-8")))

    def compiled(pattern: str) -> re.Pattern[str]:
        for name, words in file.words.items():
            pattern = pattern.replace(f"<{name}>", words)
        return re.compile(pattern, re.IGNORECASE)

    def any_of(patterns: Sequence[str]) -> re.Pattern[str]:
        return compiled("|".join(f"(?:{pattern})" for pattern in patterns))

    return _Patterns(
        opening_characters=file.opening_characters,
        harmless=tuple(compiled(pattern) for group in file.harmless for pattern in group.patterns),
        complies=any_of(file.complies.patterns),
        leads_elsewhere=any_of(file.complies.leads_elsewhere),
        piece_of_writing=any_of(file.piece_of_writing["patterns"]),
        groups=tuple(_Group(group.name, group.language, tuple(map(compiled, group.patterns))) for group in file.groups),
    )


def _tidied(answer: str) -> str:
    """The answer in plain signs on one line, without Markdown, a leading thought, and what others are quoted to say."""
    text = _THINKING.sub("", answer)[:4000]
    text = unicodedata.normalize("NFKC", text.translate(_PLAIN_SIGNS)).translate(_PLAIN_SIGNS)
    text = " ".join(_MARKDOWN.sub(" ", text).split())
    # A model may put its whole answer in quotation marks; only quotes inside it are somebody else's words.
    text = text.removeprefix('"').lstrip()
    return " ".join(_QUOTED.sub(" ", text).split()) if text.count('"') > 1 else text


def _sentence(text: str) -> str:
    """Up to the end of the sentence that begins within the first signs of `text`."""
    end = re.compile(r"[.!?]").search(text, pos=2)
    return text if end is None else text[: end.start()]
