"""What a sweep is asked to do: one validated model that the library, the command line and the page all fill in.

Data and its checks; knows no model in memory and runs nothing.
"""

from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator, model_validator

from cna_core.errors import RunError
from cna_core.evaluation.knowledge import Question
from cna_core.evaluation.measures.contract import Measure
from cna_core.evaluation.measures.registry import measure, usual_measures
from cna_core.evaluation.runs import SetName
from cna_core.interventions.registry import DEFAULT_METHODS, method
from cna_core.prompts.sets import ContrastSet, PromptSet

DEFAULT_STRENGTHS = tuple(round(-1 + 0.25 * step, 2) for step in range(13))
"""−1 … 2 in steps of 0.25."""
ROWS_PER_BATCH = 64
"""Rows in a batch at most; benchmarks/sweep.py --rows compares others."""


class SweepSettings(BaseModel):
    """One sweep as it was ordered.

    Raises:
        RunError: a value cannot be used; one sentence that says which.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True)

    prompts: PromptSet = Field(
        default_factory=lambda: PromptSet.builtin("evaluation-harmful"), description="harmful prompts"
    )
    strengths: tuple[float, ...] = Field(default=DEFAULT_STRENGTHS, description="0 is always measured too")
    fractions: tuple[float, ...] | None = Field(
        default=None, description="circuit sizes as shares of all neurons; None: the circuit's own"
    )
    benign: PromptSet | None = Field(default=None, description="set on which refusals are costs; None: not measured")
    borderline: PromptSet | None = Field(default=None, description="set for over-refusal; None: not measured")
    methods: tuple[str, ...] = Field(default=DEFAULT_METHODS, description="keys of what is done to the model")
    controls: tuple[str, ...] = Field(
        default=DEFAULT_METHODS, description="methods whose random twins are measured too; true: all, false: none"
    )
    measures: tuple[str | Measure, ...] | None = Field(
        default=None, description="keys of what to take, or measures that are ready; None: the usual ones for the sets"
    )
    measure_settings: dict[str, dict[str, Any]] = Field(
        default_factory=dict, description="of measures that ask for some, by key"
    )
    max_new_tokens: int = Field(default=64, description="longest answer")
    seed: int = Field(default=0, description="draws the random twins")
    knowledge: tuple[Question, ...] = Field(default=(), description="multiple-choice questions; empty: not measured")
    contrast: ContrastSet | None = Field(
        default=None, description="what methods are fitted with; None: the circuit's prompts"
    )
    rows_per_batch: int = Field(default=ROWS_PER_BATCH, description="rows that go through the model together")
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
        there = {*self.sets, *(("knowledge",) if self.knowledge else ())}
        for kind in self.measured:
            if kind.prompt_set not in there:
                raise RunError(f"{kind.key} is taken on {kind.prompt_set} prompts; give them, or leave it out.")
        return self

    @property
    def measured(self) -> tuple[type[Measure], ...]:
        """The measures that are taken."""
        if self.measures is None:
            return usual_measures({*self.sets, *(("knowledge",) if self.knowledge else ())})
        return tuple(map(_kind, self.measures))

    @property
    def sets(self) -> dict[SetName, PromptSet]:
        """The prompt sets that are there, by their part."""
        given: dict[SetName, PromptSet | None] = {
            "harmful": self.prompts,
            "benign": self.benign,
            "borderline": self.borderline,
        }
        return {kind: prompts for kind, prompts in given.items() if prompts is not None}


def _kind(wanted: str | Measure) -> type[Measure]:
    return measure(wanted) if isinstance(wanted, str) else type(wanted)
