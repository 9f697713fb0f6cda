"""The contract of checks: a check returns rows of a value with its interval, a control and a verdict.

The command line, the page and the README use checks only through this contract and the registry.
"""

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field

if TYPE_CHECKING:
    from cna_core.evaluation.checks.bench import Bench

Unit = Literal["share", "chance", "nats", "log-odds", "correlation", "perplexity"]


class Figure(BaseModel):
    """A number and the ends of its 95 % interval."""

    model_config = ConfigDict(frozen=True)

    value: float
    low: float
    high: float


class Row(BaseModel):
    """One line of the checks' table.

    Attributes:
        check: the check's key.
        quantity: what is measured, as text.
        unit: the unit of `value`, `control` and `change`.
        value: the result with the circuit ablated; None if it could not be measured.
        control: the number to compare with; None if there is none.
        control_words: what the control is, as text.
        change: value minus control over the same prompts, with its paired interval; None if they are not paired.
        passed: whether the claim passes this row; None if the row does not decide.
        verdict: the result in one sentence.
        details: further numbers, in JSON types.
    """

    model_config = ConfigDict(frozen=True)

    check: str
    quantity: str
    unit: Unit
    value: Figure | None = None
    control: Figure | None = None
    control_words: str = ""
    change: Figure | None = None
    passed: bool | None = None
    verdict: str
    details: dict[str, Any] = Field(default_factory=dict)


class CheckSettings(BaseModel):
    """How much the checks measure. The descriptions are also the help texts; the project's tables use the defaults."""

    model_config = ConfigDict(frozen=True)

    prompts: int = Field(default=64, ge=2, description="most harmful prompts to use from the evaluation set")
    max_new_tokens: int = Field(default=128, ge=8, description="tokens of a full answer")
    short_tokens: int = Field(default=32, ge=4, description="tokens of an answer's opening")
    draws: int = Field(default=20, ge=2, description="random circuits of each kind")
    first_token_prompts: int = Field(
        default=24, ge=2, description="most harmful prompts for measurements of first tokens only"
    )
    truth_neurons: int = Field(default=200, ge=4, description="neurons to ablate one at a time")
    truth_prompts: int = Field(default=16, ge=2, description="most refused prompts to ablate them on")
    transfer_prompts: int = Field(default=32, ge=2, description="most prompts to use from each other set")
    seed: int = 0


class Check(ABC):
    """One test of the claim that a circuit's neurons act on refusal.

    Attributes:
        key: the stable name, which files store.
        title: two or three words.
        question: the question that the check answers.
        needed: whether the claim "the neurons behind refusal" requires this check to pass.
    """

    key: ClassVar[str]
    title: ClassVar[str]
    question: ClassVar[str]
    needed: ClassVar[bool] = False

    @abstractmethod
    def run(self, bench: "Bench") -> list[Row]:
        """Measure, and return the rows in display order.

        Raises:
            CircuitError: the check is impossible for this model or circuit.
            StoppedError: the bench's `stop` was set.
        """

    @classmethod
    def not_measured(cls, reason: str, quantity: str = "", unit: Unit = "share") -> Row:
        """The row shown for a check that could not be run; it does not decide."""
        return Row(check=cls.key, quantity=quantity or cls.title, unit=unit, verdict=f"Not measured: {reason}")
