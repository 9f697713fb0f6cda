"""What a sweep is asked to do: one validated model that the library, the command line and the page all fill in.

Data and its checks, and every default, written once; knows no model in memory and runs nothing.
"""

from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator, model_validator

from cna_core.circuits.circuit import Circuit
from cna_core.errors import RunError
from cna_core.evaluation.knowledge import Question
from cna_core.evaluation.measures.contract import Measure
from cna_core.evaluation.measures.registry import measure, usual_measures
from cna_core.evaluation.runs import SetName
from cna_core.evaluation.setting import Setting, settings_of
from cna_core.evaluation.word_problems import WordProblem
from cna_core.interventions.registry import DEFAULT_METHODS, method
from cna_core.prompts.sets import ContrastSet, PromptSet

FINE_STRENGTHS = tuple(round(-1 + 0.25 * step, 2) for step in range(13))
"""−1 … 2 in steps of 0.25: for a smooth curve."""
ROWS_PER_BATCH = 64
"""Rows in a batch at most; benchmarks/sweep.py --rows compares others."""


class SweepSettings(BaseModel):
    """One sweep as it was ordered. What each field means is in its description, which help texts quote.

    Raises:
        RunError: a value cannot be used; one sentence that says which.
        CnaError: a method is not registered.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True)

    prompts: PromptSet = Field(
        default_factory=lambda: PromptSet.builtin("evaluation-harmful"), description="harmful prompts"
    )
    benign: PromptSet | None = Field(
        default_factory=lambda: PromptSet.builtin("evaluation-benign"),
        description="benign prompts, on which refusals are costs; None: not measured",
    )
    borderline: PromptSet | None = Field(
        default_factory=lambda: PromptSet.builtin("borderline"),
        description="prompts that only look unsafe, for over-refusal; None: not measured",
    )
    knowledge: tuple[Question, ...] | str = Field(
        default=(),
        description="multiple-choice questions, or where they come from: built-in, public:mmlu, or a file; empty: none",
    )
    questions: int | None = Field(default=None, ge=1, description="at most so many of them, evenly spread; None: all")
    problems: tuple[WordProblem, ...] | str = Field(
        default=(), description="word problems, or where they come from: built-in, public:gsm8k, or a file; empty: none"
    )
    problem_count: int | None = Field(
        default=100, ge=1, description="at most so many word problems, evenly spread; None: all"
    )
    strengths: tuple[float, ...] = Field(default=(0.0, 0.5, 1.0), description="0 is always measured")
    methods: tuple[str, ...] = Field(default=DEFAULT_METHODS, description="keys of what is done to the model")
    controls: tuple[str, ...] = Field(
        default=DEFAULT_METHODS,
        description="whether each method's random twin is measured too: true, false, or the methods of which it is",
    )
    fractions: tuple[float, ...] | None = Field(
        default=None, description="circuit sizes as shares of all neurons; None: the circuit's own"
    )
    measures: tuple[str | Measure, ...] | None = Field(
        default=None, description="keys of what to take, or measures that are ready; None: the usual ones for the sets"
    )
    measure_settings: dict[str, dict[str, Any]] = Field(
        default_factory=dict, description="of measures that ask for some, by key"
    )
    max_new_tokens: int = Field(
        default=128, description="longest answer, in tokens; it is also judged at 32, 64, 128 and 256 on the way"
    )
    seed: int = Field(default=0, description="draws the random twins")
    rows_per_batch: int = Field(default=ROWS_PER_BATCH, description="rows that go through the model together")
    contrast: ContrastSet | None = Field(
        default=None,
        description="prompts that methods are fitted with; None: those the circuit was selected from, else the "
        "built-in ones",
    )
    others: dict[str, Circuit] = Field(
        default_factory=dict, description="further circuits that the same methods act on, by the name that charts say"
    )
    name: str = Field(default="", description="what to call the run in lists")

    @model_validator(mode="wrap")
    @classmethod
    def _said_in_one_sentence(cls, content: Any, handler: Any) -> Any:
        try:
            return handler(content)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            raise RunError(f"{'.'.join(map(str, first['loc']))} of a sweep cannot be used: {first['msg']}.") from error

    @model_validator(mode="before")
    @classmethod
    def _controls_of_all_or_none(cls, content: Any) -> Any:
        """`controls` may be true or false; where it is not said, every method has its twin."""
        if not isinstance(content, dict) or not isinstance(content.get("controls", True), bool):
            return content
        methods = content.get("methods", DEFAULT_METHODS)
        return {**content, "controls": methods if content.get("controls", True) else ()}

    @field_validator("methods")
    @classmethod
    def _known_methods(cls, methods: tuple[str, ...]) -> tuple[str, ...]:
        if not methods:
            raise RunError("A sweep needs at least one method.")
        for key in methods:
            method(key)
        return tuple(dict.fromkeys(methods))

    @field_validator("controls")
    @classmethod
    def _twins_of_the_methods(cls, controls: tuple[str, ...], others: ValidationInfo) -> tuple[str, ...]:
        methods = others.data.get("methods", ())
        if unknown := [key for key in controls if key not in methods]:
            raise RunError(f"The random twin of {unknown[0]!r} is asked for, which is not among the methods.")
        return tuple(key for key in methods if key in controls)

    @field_validator("measures")
    @classmethod
    def _known_measures(cls, wanted: Sequence[str | Measure] | None) -> Sequence[str | Measure] | None:
        keys = None if wanted is None else [_kind(one).key for one in wanted]
        if keys is not None and (not keys or len(set(keys)) < len(keys)):
            raise RunError("A sweep needs at least one measure, each with a key of its own.")
        return wanted

    @model_validator(mode="after")
    def _fits_together(self) -> "SweepSettings":
        if self.max_new_tokens < 1 or self.rows_per_batch < 2:
            raise RunError("An answer has at least one token, and a batch at least two rows.")
        self.settings(self.fractions or (0.001,))  # tells strengths that cannot be used
        for kind in self.measured:
            if kind.prompt_set not in self.parts:
                raise RunError(f"{kind.key} is taken on {kind.prompt_set} prompts; give them, or leave it out.")
        return self

    @property
    def sets(self) -> dict[SetName, PromptSet]:
        """The prompt sets that are there, by their part."""
        given: dict[SetName, PromptSet | None] = {
            "harmful": self.prompts,
            "benign": self.benign,
            "borderline": self.borderline,
        }
        return {kind: prompts for kind, prompts in given.items() if prompts is not None}

    @property
    def parts(self) -> tuple[SetName, ...]:
        """Names of the prompt sets that are there, knowledge questions and word problems among them."""
        asked: dict[SetName, bool] = {"knowledge": bool(self.knowledge), "problems": bool(self.problems)}
        return (*self.sets, *(part for part, wanted in asked.items() if wanted))

    @property
    def measured(self) -> tuple[type[Measure], ...]:
        """The measures that are taken."""
        return usual_measures(self.parts) if self.measures is None else tuple(map(_kind, self.measures))

    def settings(self, fractions: Sequence[float]) -> tuple[Setting, ...]:
        """Every way in which the model is steered with circuits of these sizes, the baseline first."""
        return settings_of(self.strengths, fractions, self.methods, self.controls, self.others)


def _kind(wanted: str | Measure) -> type[Measure]:
    return measure(wanted) if isinstance(wanted, str) else type(wanted)
