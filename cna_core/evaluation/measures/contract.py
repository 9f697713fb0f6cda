"""What a measure is: the contract of everything that a run can take, and what measures look at.

A class is a measure: it says what it is called, how its numbers are written and drawn, and how observations are summed
up. An instance is one that is ready to observe: it holds what observing needs (an answer key, a calibration, a judge's
address). Tables, charts, the order form, comparisons, resumed runs and run files know measures by this contract and the
registry alone, and read files without any instance. Knows nothing about batches, journals or charts.
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
"""Numbers noted for one prompt under one setting."""
Fields = dict[str, Any]
"""Numbers, and pairs of numbers for intervals, by the names that a run file gives them."""
Reads = Literal["answers", "first-token"]


@dataclass(frozen=True)
class Reading:
    """What the model did with some prompts of one set, each under some settings: n cells, the same order everywhere.

    Args:
        prompts: n places in the set, from 0.
        messages: n conversations.
        texts: n answers; empty where only first tokens were read.
        token_ids: n answers as tokens, without the one that ends them.
        texts_at: length in tokens → n beginnings of the answers; an answer that ended before is whole there.
        logits: (n, vocabulary) float32 of the first token; None where answers were written.
        baseline_logits: (n, vocabulary) float32, the baseline's for the same prompt; None likewise.
    """

    prompts: tuple[int, ...]
    messages: tuple[Sequence[Message], ...]
    texts: tuple[str, ...] = ()
    token_ids: tuple[tuple[int, ...], ...] = ()
    texts_at: Mapping[int, tuple[str, ...]] = field(default_factory=dict)
    logits: Tensor | None = None
    baseline_logits: Tensor | None = None


@dataclass(frozen=True)
class Preparation:
    """What a measure may be made ready from.

    Args:
        model: in memory, held by the caller, unsteered.
        questions: the run's multiple-choice questions.
        problems: the run's word problems.
        settings: the measure's own, as a person gave them or as the run that goes on has them.
        progress, stop: for what takes long.
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
        floor, ceiling: the least range it shows; None: as the data ask.
        logarithmic: whether equal steps are equal ratios.
    """

    floor: float | None = None
    ceiling: float | None = None
    logarithmic: bool = False


class Measure(ABC):
    """One measure. To add one: a file with a subclass that has `@register` before it (registry.py).

    Attributes:
        key: stable; files hold it. Its value in a point is the field of this name, its interval `<key>_interval`, its
            change from the baseline, where it sums one up, `<key>_change` with `<key>_change_interval`.
        title: what charts call it.
        short_title: what tables call it; "": the title.
        description: one sentence for whoever chooses what to measure.
        unit: of its values, where they have one that their numbers do not show.
        numbers: how its values and changes are written.
        better: which way is better; None: neither.
        reads: "answers" (texts are written) or "first-token" (one pass, nothing is written).
        prompt_set: which set it is taken on.
        answer_tokens: how long an answer may become for this measure, in tokens; None: as long as the run says.
        axis: how it is drawn.
        drawn_as_change: whether charts and tables show its change from the baseline, which pairs prompts and so is
            known better than the value.
        shown: whether charts and the Markdown table show it; the table of all figures always does.
        by_default: whether a run takes it when nobody names measures.
        reads_answers_again: whether observing reads every answer once more, which takes time.
        options: settings that a person must give, each with an example.
        further: what it says beside its value: the end of a field's name ("late" of "refusal_rate_late") → its title.
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
        """The measure, ready to observe.

        Raises:
            CnaError: something it needs is not there; the message says what.
            StoppedError: the preparation's `stop` was set.
        """
        return cls()

    @property
    def settings(self) -> dict[str, Any]:
        """What the measure depends on; goes into the run's settings, so that another value makes another run."""
        return {}

    @abstractmethod
    def observe(self, model: LoadedModel, reading: Reading) -> list[Observation]:
        """n observations, one a cell of the reading; the model is unsteered while this runs."""

    @classmethod
    @abstractmethod
    def summarise(cls, observations: Sequence[Observation], baseline: Sequence[Observation]) -> Fields:
        """Fields of a point, from one setting's observations and the baseline's for the same prompts, in order."""

    @classmethod
    def judged_again(cls, observation: Observation, text: str) -> Observation:
        """The observation as it would be made now, from the answer's text alone; unchanged if the text decides nothing.

        A resumed run asks for this if the detector has changed since its first answers.
        """
        return observation

    @classmethod
    def of_answer(cls, observation: Observation) -> Fields:
        """What the run file says of one answer."""
        return {}

    @classmethod
    def caution(cls, baseline: Point) -> str:
        """One sentence for the reader where the baseline leaves nothing to see; else ""."""
        return ""

    @classmethod
    def drawn_field(cls) -> str:
        """The field of a point that charts and tables show."""
        return f"{cls.key}_change" if cls.drawn_as_change else cls.key

    @classmethod
    def panel_title(cls) -> str:
        """What stands above its panel: title and unit."""
        if cls.drawn_as_change:
            return f"{cls.title}, change from baseline"
        return f"{cls.title}, {cls.unit}" if cls.unit else cls.title

    @classmethod
    def column_title(cls) -> str:
        """What stands above its column."""
        return cls.short_title or cls.title

    @classmethod
    def say(cls, value: float) -> str:
        """What is drawn, in words: "46 %", or "−4 pp" where changes are drawn."""
        return cls.numbers.change(value) if cls.drawn_as_change else cls.numbers.value(value)


def interval_field(field_name: str) -> str:
    """The field that holds the interval of a field: "refusal_interval" of "refusal_rate", as files have always had."""
    return f"{field_name.removesuffix('_rate')}_interval"


def rate_fields(key: str, hits: Sequence[float]) -> Fields:
    """A point's fields for a rate from hits (n,) of 0 and 1: the rate, and its Wilson interval."""
    return {key: sum(hits) / len(hits), interval_field(key): wilson_interval(int(sum(hits)), len(hits))}


def paired_rate_fields(key: str, hits: Sequence[float], before: Sequence[float]) -> Fields:
    """A point's fields for a rate from hits (n,) of 0 and 1, with its paired change from the baseline's (n,), if known.

    The change's interval is Bonett and Price's (2012): prompts that did not change do not widen it.
    """
    fields = rate_fields(key, hits)
    if len(before) == len(hits):
        change = change_of_rate(before, hits)
        fields |= {f"{key}_change": change.value, f"{key}_change_interval": (change.low, change.high)}
    return fields


def mean_fields(key: str, values: Sequence[float]) -> Fields:
    """A point's fields for a mean of values (n,): the mean, and its bootstrap interval."""
    estimate = mean_with_interval(values)
    return {key: estimate.value, interval_field(key): (estimate.low, estimate.high)}
