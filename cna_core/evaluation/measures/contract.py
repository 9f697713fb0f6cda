"""The contract of measures: everything that a run can measure.

A class is a measure: it defines the name, how numbers are formatted and drawn, and how observations are summarised. An
instance can observe: it holds the data that observing needs (an answer key, a calibration, a judge's address). Tables,
charts, the Evaluate form, comparisons, resumed runs and run files use measures only through this contract and the
registry, and read files without an instance. This module knows nothing about batches, journals or charts.
"""

import threading
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, Self

from torch import Tensor

from cna_core.evaluation.intervals import change_of_rate, mean_with_interval
from cna_core.evaluation.knowledge import Question
from cna_core.evaluation.measures.numbers import NUMBER, NumberFormat
from cna_core.evaluation.refusal import wilson_interval
from cna_core.evaluation.runs import Point, SetName
from cna_core.evaluation.word_problems import WordProblem
from cna_core.models.loaded import LoadedModel
from cna_core.progress import Report
from cna_core.prompts.chat_format import Message

Observation = dict[str, float]
"""The numbers observed for one prompt under one setting."""
Fields = dict[str, Any]
"""Numbers, and pairs of numbers for intervals, by their names in a run file."""
Reads = Literal["answers", "first-token"]


@dataclass(frozen=True)
class Reading:
    """The model's output for n cells, each a prompt of one set under one setting; all fields have the same order.

    Args:
        prompts: n indices into the set, from 0.
        messages: n conversations.
        texts: n answers, without their thoughts; empty if only first tokens were computed.
        token_ids: n answers as tokens, with their thoughts and without the end token.
        texts_at: length in tokens → the n answers cut at this length; shorter answers are complete. The tokens of
            thoughts do not count.
        logits: (n, vocabulary) float32, first-token logits; None if answers were generated.
        baseline_logits: (n, vocabulary) float32, the baseline's logits for the same prompts; None in the same case.
        thinking: whether the model was asked to think before it answered.
        thoughts: n thoughts; empty if only first tokens were computed.
        thought_tokens: n numbers of first tokens that belong to the thought or its markers.
        unfinished: n × whether the thought did not end, so that there is no answer.
    """

    prompts: tuple[int, ...]
    messages: tuple[Sequence[Message], ...]
    texts: tuple[str, ...] = ()
    token_ids: tuple[tuple[int, ...], ...] = ()
    texts_at: Mapping[int, tuple[str, ...]] = field(default_factory=dict)
    logits: Tensor | None = None
    baseline_logits: Tensor | None = None
    thinking: bool = False
    thoughts: tuple[str, ...] = ()
    thought_tokens: tuple[int, ...] = ()
    unfinished: tuple[bool, ...] = ()

    @property
    def has_answer(self) -> tuple[bool, ...]:
        """n × whether there is an answer: all but those whose thought did not end."""
        return tuple(not unfinished for unfinished in self.unfinished) or (True,) * len(self.texts)


@dataclass(frozen=True)
class Preparation:
    """What a measure can use to prepare itself.

    Args:
        model: loaded, unsteered, and held by the caller.
        questions: the run's multiple-choice questions.
        problems: the run's word problems.
        settings: the measure's own settings, from the user or from the run that is resumed.
        progress, stop: for slow preparations.
    """

    model: LoadedModel
    questions: tuple[Question, ...] = ()
    problems: tuple[WordProblem, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    progress: Report | None = None
    stop: threading.Event | None = None


@dataclass(frozen=True)
class Axis:
    """How a measure's axis is drawn.

    Args:
        floor, ceiling: the smallest range that the axis shows; None: the data decide.
        logarithmic: whether the axis is logarithmic.
    """

    floor: float | None = None
    ceiling: float | None = None
    logarithmic: bool = False


class Measure(ABC):
    """One measure. To add one, write a file with a subclass that is decorated with `@register` (registry.py).

    Attributes:
        key: the stable name, which files store. A point has the value in the field of this name, the interval in
            `<key>_interval` and, for measures with a paired change, `<key>_change` and `<key>_change_interval`.
        title: the name in charts.
        short_title: the name in tables; "": the title.
        description: one sentence for users who choose measures.
        unit: the unit of its values, if the numbers do not show it.
        numbers: the format of values and changes.
        better: which direction is better; None: neither.
        reads: "answers" (texts are generated) or "first-token" (one forward pass, no generation).
        prompt_set: the prompt set on which it is measured.
        answer_tokens: the most tokens of an answer for this measure; None: as set for the run.
        axis: how its axis is drawn.
        drawn_as_change: whether charts and tables show the change from the baseline instead of the value; the change
            is paired by prompt and has a narrower interval.
        shown: whether charts and the Markdown table show it; the table of all numbers always does.
        by_default: whether a run measures it when the user names no measures.
        reads_answers_again: whether observing needs another forward pass over every answer.
        options: settings that the user must give, each with an example.
        further: additional values: the end of a field's name ("late" of "refusal_rate_late") → its title.
    """

    key: ClassVar[str]
    title: ClassVar[str]
    short_title: ClassVar[str] = ""
    description: ClassVar[str] = ""
    unit: ClassVar[str] = ""
    numbers: ClassVar[NumberFormat] = NUMBER
    better: ClassVar[Literal["lower", "higher"] | None] = None
    reads: ClassVar[Reads] = "answers"
    prompt_set: ClassVar[SetName] = "harmful"
    answer_tokens: ClassVar[int | None] = None
    axis: ClassVar[Axis] = Axis()
    drawn_as_change: ClassVar[bool] = False
    shown: ClassVar[bool] = True
    by_default: ClassVar[bool] = True
    reads_answers_again: ClassVar[bool] = False
    options: ClassVar[Mapping[str, str]] = {}
    further: ClassVar[Mapping[str, str]] = {}

    @classmethod
    def prepared(cls, preparation: Preparation) -> Self:
        """An instance that can observe.

        Raises:
            CnaError: something it needs is missing; the message says what.
            StoppedError: the preparation's `stop` was set.
        """
        return cls()

    @property
    def settings(self) -> dict[str, Any]:
        """What the measure's results depend on. It is stored in the run's settings: another value is another run."""
        return {}

    @abstractmethod
    def observe(self, model: LoadedModel, reading: Reading) -> list[Observation]:
        """n observations, one per cell of the reading. The model is unsteered meanwhile."""

    @classmethod
    @abstractmethod
    def summarise(cls, observations: Sequence[Observation], baseline: Sequence[Observation]) -> Fields:
        """The fields of a point, from the observations of one setting and the baseline's for the same prompts."""

    @classmethod
    def judged_again(cls, observation: Observation, text: str) -> Observation:
        """The observation made again from the answer's text; unchanged if it does not depend on the text.

        A resumed run calls this if the detector has changed since its first answers.
        """
        return observation

    @classmethod
    def of_answer(cls, observation: Observation) -> Fields:
        """The fields that the run file stores for one answer."""
        return {}

    @classmethod
    def caution(cls, baseline: Point) -> str:
        """One sentence of warning if the baseline is too low or too high to show a change; else ""."""
        return ""

    @classmethod
    def drawn_field(cls) -> str:
        """The field of a point that charts and tables show."""
        return f"{cls.key}_change" if cls.drawn_as_change else cls.key

    @classmethod
    def panel_title(cls) -> str:
        """The title of its chart panel, with the unit."""
        if cls.drawn_as_change:
            return f"{cls.title}, change from baseline"
        return f"{cls.title}, {cls.unit}" if cls.unit else cls.title

    @classmethod
    def column_title(cls) -> str:
        """The title of its table column."""
        return cls.short_title or cls.title

    @classmethod
    def say(cls, value: float) -> str:
        """The number that is drawn, as text: "46 %", or "−4 pp" if changes are drawn."""
        return cls.numbers.change(value) if cls.drawn_as_change else cls.numbers.value(value)


def interval_field(field_name: str) -> str:
    """The name of a field's interval: "refusal_interval" for "refusal_rate", as in all versions of the file format."""
    return f"{field_name.removesuffix('_rate')}_interval"


def rate_fields(key: str, hits: Sequence[float]) -> Fields:
    """The point's fields for a rate, from hits (n,) of 0 and 1: the rate and its Wilson interval."""
    return {key: sum(hits) / len(hits), interval_field(key): wilson_interval(int(sum(hits)), len(hits))}


def paired_rate_fields(key: str, hits: Sequence[float], before: Sequence[float]) -> Fields:
    """The point's fields for a rate, from hits (n,) of 0 and 1, with the paired change from the baseline's, if given.

    The interval of the change is Bonett and Price's (2012): prompts without a change do not widen it.
    """
    fields = rate_fields(key, hits)
    if len(before) == len(hits):
        change = change_of_rate(before, hits)
        fields |= {f"{key}_change": change.value, f"{key}_change_interval": (change.low, change.high)}
    return fields


def mean_fields(key: str, values: Sequence[float]) -> Fields:
    """The point's fields for a mean of values (n,): the mean and its bootstrap interval."""
    estimate = mean_with_interval(values)
    return {key: estimate.value, interval_field(key): (estimate.low, estimate.high)}
