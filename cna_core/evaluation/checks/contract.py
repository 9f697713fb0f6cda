"""What a check is and what it gives: rows of a value with its interval, a control, and a plain verdict.

Whoever shows them (command line, page, README) knows checks by this contract and the registry alone.
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
        quantity: what is measured, in words.
        unit: of `value`, `control` and `change`.
        value: what the circuit gives; None where it could not be measured.
        control: what it is held against; None where there is nothing.
        control_words: what the control is.
        change: value minus control over the same prompts, with its paired interval; None where they are not paired.
        passed: whether the claim survives; None where the row decides nothing.
        verdict: one plain sentence.
        details: further numbers, as JSON holds them.
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
    """How much is measured; the descriptions are the help texts. The defaults are those of the project's tables."""

    model_config = ConfigDict(frozen=True)

    prompts: int = Field(default=64, ge=2, description="harmful prompts of the evaluation set, at most")
    max_new_tokens: int = Field(default=128, ge=8, description="tokens of an answer that is read whole")
    short_tokens: int = Field(default=32, ge=4, description="tokens of an answer of which the opening is read")
    draws: int = Field(default=20, ge=2, description="random circuits of each kind")
    first_token_prompts: int = Field(
        default=24, ge=2, description="harmful prompts where only first tokens are read, at most"
    )
    truth_neurons: int = Field(default=200, ge=4, description="neurons that are ablated one by one")
    truth_prompts: int = Field(default=16, ge=2, description="refused prompts that they are ablated on, at most")
    transfer_prompts: int = Field(default=32, ge=2, description="prompts of each other set, at most")
    seed: int = 0


class Check(ABC):
    """One question to a claim.

    Attributes:
        key: stable; files hold it.
        title: two or three words.
        question: what it asks, in a sentence.
        needed: whether the claim "the neurons behind refusal" waits for it.
    """

    key: ClassVar[str]
    title: ClassVar[str]
    question: ClassVar[str]
    needed: ClassVar[bool] = False

    @abstractmethod
    def run(self, bench: "Bench") -> list[Row]:
        """Measure, and say what came out; rows in the order in which they are shown.

        Raises:
            CircuitError: something that the check needs cannot be had for this model or circuit.
            StoppedError: the bench's `stop` was set.
        """

    @classmethod
    def not_measured(cls, reason: str, quantity: str = "", unit: Unit = "share") -> Row:
        """The row that stands in for a check that cannot be carried out, which decides nothing."""
        return Row(check=cls.key, quantity=quantity or cls.title, unit=unit, verdict=f"Not measured: {reason}")
