import math

import pytest
import torch

from cna_core.evaluation.measures import (
    BenignDivergence,
    Knowledge,
    Perplexity,
    Quality,
    Reading,
    RefusalRate,
    default_measures,
)
from cna_core.models.loaded import LoadedModel
from tests.evaluation.sweeping import QUESTION, small_model


@pytest.fixture(scope="module")
def model() -> LoadedModel:
    return small_model()


def reading(*texts: str) -> Reading:
    return Reading(tuple(range(len(texts))), tuple([{"role": "user", "content": "cats"}] for _ in texts), texts)


def test_refusals_are_counted_with_wilsons_interval(model: LoadedModel) -> None:
    measure = RefusalRate("borderline")
    noted = measure.observe(model, reading("I'm sorry, but I can't help with that.", "Sure, here you are."))
    assert noted == [{"refused": 1.0}, {"refused": 0.0}]
    fields = measure.summarise(noted, [])
    assert fields["borderline_refusal_rate"] == 0.5
    assert fields["borderline_refusal_interval"] == pytest.approx((0.0945, 0.9055), abs=1e-4)


def test_quality_of_benign_answers_has_a_field_of_its_own(model: LoadedModel) -> None:
    measure = Quality("benign")
    assert measure.summarise(measure.observe(model, reading("a b c d", "no " * 7)), [])["benign_quality"] == 0.625


def test_perplexity_counts_answers_by_their_tokens() -> None:
    fields = Perplexity().summarise([{"surprise": 4.0, "tokens": 1}, {"surprise": 2.0, "tokens": 5}], [])
    assert fields["perplexity"] == pytest.approx(math.e)
    assert Perplexity().summarise([{"surprise": 0.0, "tokens": 0}], []) == {}


def test_divergence_of_equal_distributions_is_nothing_and_of_others_worked_by_hand(model: LoadedModel) -> None:
    before = torch.log(torch.tensor([[0.5, 0.5], [0.5, 0.5]]))
    after = torch.log(torch.tensor([[0.5, 0.5], [0.9, 0.1]]))
    noted = BenignDivergence().observe(model, Reading((0, 1), ((), ()), logits=after, baseline_logits=before))
    by_hand = 0.5 * math.log(0.5 / 0.9) + 0.5 * math.log(0.5 / 0.1)
    assert [observation["kl"] for observation in noted] == pytest.approx([0, by_hand], abs=1e-6)


def test_knowledge_is_paired_with_the_baseline(model: LoadedModel) -> None:
    measure = Knowledge([QUESTION] * 4)
    before = [{"correct": 1.0}] * 3 + [{"correct": 0.0}]
    after = [{"correct": 1.0}] * 2 + [{"correct": 0.0}] * 2
    fields = measure.summarise(after, before)
    assert fields["knowledge"] == 0.5
    assert fields["knowledge_change"] == -0.25
    assert fields["knowledge_change_interval"][0] < -0.25 < fields["knowledge_change_interval"][1]
    assert fields["knowledge_chance"] == 0.5  # two choices
    assert "knowledge_change" not in measure.summarise(after, [])


def test_default_measures_follow_from_the_sets() -> None:
    assert [measure.name for measure in default_measures(["harmful"])] == ["refusal_rate", "quality", "perplexity"]
    every = default_measures(["harmful", "benign", "borderline"], [QUESTION])
    assert {measure.name for measure in every} == {
        "refusal_rate",
        "quality",
        "perplexity",
        "benign_refusal_rate",
        "benign_quality",
        "benign_kl",
        "borderline_refusal_rate",
        "knowledge",
    }
