"""The settings of a sweep: one validated model for the library, the command line and the page, with all defaults.

Data and checks; this module knows no loaded model and runs nothing.
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
from cna_core.outside import Line, Seed
from cna_core.prompts.sets import ContrastSet, PromptSet

FINE_STRENGTHS = tuple(round(-1 + 0.25 * step, 2) for step in range(13))
"""−1 … 2 in steps of 0.25, for a smooth curve."""
ROWS_PER_BATCH = 64
"""The most rows of a batch; benchmarks/sweep.py --rows compares other numbers."""


class SweepSettings(BaseModel):
    """The settings of one sweep. The description of each field explains it; help texts quote these descriptions.

    Raises:
        RunError: a value is invalid; one sentence says which.
        CnaError: a method is not registered.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True)

    prompts: PromptSet = Field(
        default_factory=lambda: PromptSet.builtin("evaluation-harmful"), description="harmful prompts"
    )
    benign: PromptSet | None = Field(
        default_factory=lambda: PromptSet.builtin("evaluation-benign"),
        description="benign prompts, on which refusals count as costs; None: not measured",
    )
    borderline: PromptSet | None = Field(
        default_factory=lambda: PromptSet.builtin("borderline"),
        description="prompts that only look unsafe, for over-refusal; None: not measured",
    )
    knowledge: tuple[Question, ...] | str = Field(
        default=(),
        description="multiple-choice questions, or their source: built-in, public:mmlu, or a file; empty: none",
    )
    questions: int | None = Field(default=None, ge=1, description="most questions to use, evenly spread; None: all")
    problems: tuple[WordProblem, ...] | str = Field(
        default=(), description="word problems, or their source: built-in, public:gsm8k, or a file; empty: none"
    )
    problem_count: int | None = Field(
        default=100, ge=1, description="most word problems to use, evenly spread; None: all"
    )
    strengths: tuple[float, ...] = Field(default=(0.0, 0.5, 1.0), description="strengths; 0 is always measured")
    methods: tuple[str, ...] = Field(default=DEFAULT_METHODS, description="keys of the methods")
    controls: tuple[str, ...] = Field(
        default=DEFAULT_METHODS,
        description="whether each method's random twin is also measured: true, false, or the methods whose twins are",
    )
    fractions: tuple[float, ...] | None = Field(
        default=None, description="circuit sizes as shares of all neurons; None: the circuit's own"
    )
    measures: tuple[str | Measure, ...] | None = Field(
        default=None, description="keys of measures, or prepared measures; None: the default measures of the sets"
    )
    measure_settings: dict[str, dict[str, Any]] = Field(
        default_factory=dict, description="the settings of measures that need any, by key"
    )
    max_new_tokens: int = Field(
        default=128, description="most tokens of an answer; it is also judged at 32, 64, 128 and 256 tokens"
    )
    thinking: bool | None = Field(
        default=None,
        description="whether a model that thinks does so before it answers; None: as its chat template decides",
    )
    seed: Seed = Field(default=0, description="seed for drawing the random twins")
    rows_per_batch: int = Field(default=ROWS_PER_BATCH, description="rows of a batch")
    contrast: ContrastSet | None = Field(
        default=None,
        description="prompts that methods are fitted with; None: those the circuit was selected from, else the "
        "built-in ones",
    )
    others: dict[Line, Circuit] = Field(
        default_factory=dict, description="further circuits for the same methods, by their names in charts"
    )
    name: Line = Field(default="", description="name of the run in lists")

    @model_validator(mode="wrap")
    @classmethod
    def _said_in_one_sentence(cls, content: Any, handler: Any) -> Any:
        try:
            return handler(content)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            raise RunError(
                f"The sweep's setting {'.'.join(map(str, first['loc']))} is invalid: {first['msg']}."
            ) from error

    @model_validator(mode="before")
    @classmethod
    def _controls_of_all_or_none(cls, content: Any) -> Any:
        """`controls` may be true or false; by default every method has its twin."""
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
            raise RunError(f"The random twin of {unknown[0]!r} is requested, but this method is not among the methods.")
        return tuple(key for key in methods if key in controls)

    @field_validator("measures")
    @classmethod
    def _known_measures(cls, wanted: Sequence[str | Measure] | None) -> Sequence[str | Measure] | None:
        keys = None if wanted is None else [_kind(one).key for one in wanted]
        if keys is not None and (not keys or len(set(keys)) < len(keys)):
            raise RunError("A sweep needs at least one measure, and each measure only once.")
        return wanted

    @model_validator(mode="after")
    def _fits_together(self) -> "SweepSettings":
        if self.max_new_tokens < 1 or self.rows_per_batch < 2:
            raise RunError("An answer must have at least one token, and a batch at least two rows.")
        self.settings(self.fractions or (0.001,))  # raises an error for invalid strengths
        for kind in self.measured:
            if kind.prompt_set not in self.parts:
                raise RunError(
                    f"The measure {kind.key} needs {kind.prompt_set} prompts: add them, or remove the measure."
                )
        return self

    @property
    def sets(self) -> dict[SetName, PromptSet]:
        """The prompt sets of this sweep, by their kind."""
        given: dict[SetName, PromptSet | None] = {
            "harmful": self.prompts,
            "benign": self.benign,
            "borderline": self.borderline,
        }
        return {kind: prompts for kind, prompts in given.items() if prompts is not None}

    @property
    def parts(self) -> tuple[SetName, ...]:
        """The kinds of sets of this sweep, including knowledge questions and word problems."""
        asked: dict[SetName, bool] = {"knowledge": bool(self.knowledge), "problems": bool(self.problems)}
        return (*self.sets, *(part for part, wanted in asked.items() if wanted))

    @property
    def measured(self) -> tuple[type[Measure], ...]:
        """The measures of this sweep."""
        return usual_measures(self.parts) if self.measures is None else tuple(map(_kind, self.measures))

    def settings(self, fractions: Sequence[float]) -> tuple[Setting, ...]:
        """All settings of this sweep with circuits of these sizes, the baseline first."""
        return settings_of(self.strengths, fractions, self.methods, self.controls, self.others)


def _kind(wanted: str | Measure) -> type[Measure]:
    return measure(wanted) if isinstance(wanted, str) else type(wanted)
