"""What a person said of a run's answers without knowing their settings: data, as run files hold it."""

from typing import Literal

from pydantic import BaseModel, ConfigDict

from cna_core.outside import Count, Seed

HumanVerdict = Literal["refused", "answered", "unsure"]


class Judgement(BaseModel):
    """One verdict: `answer` is the answer's place among the run's answers, from 0."""

    model_config = ConfigDict(frozen=True)

    answer: Count
    verdict: HumanVerdict


class Review(BaseModel):
    """A blind review: the seed that drew and shuffled the answers, and the verdicts so far, in the order given."""

    model_config = ConfigDict(frozen=True)

    seed: Seed = 0
    judgements: tuple[Judgement, ...] = ()

    def judged(self, answer: int, verdict: HumanVerdict) -> "Review":
        """This review with one more verdict."""
        return self.model_copy(update={"judgements": (*self.judgements, Judgement(answer=answer, verdict=verdict))})

    def without_last(self) -> "Review":
        """This review without its last verdict."""
        return self.model_copy(update={"judgements": self.judgements[:-1]})
