import math

import pytest
import torch

from cna_core.evaluation.measures.benign_kl import BenignDivergence
from cna_core.evaluation.measures.contract import Reading
from cna_core.evaluation.measures.knowledge import Knowledge
from cna_core.evaluation.measures.perplexity import Perplexity
from cna_core.evaluation.measures.quality import BenignQuality
from cna_core.evaluation.measures.refusal_rate import OverRefusalRate
from cna_core.models.loaded import LoadedModel
from tests.evaluation.sweeping import small_model


@pytest.fixture(scope="module")
def model() -> LoadedModel:
    return small_model()


def reading(*texts: str) -> Reading:
    return Reading(tuple(range(len(texts))), tuple([{"role": "user", "content": "cats"}] for _ in texts), texts)


def test_refusals_are_counted_with_wilsons_interval(model: LoadedModel) -> None:
    measure = OverRefusalRate()
    noted = measure.observe(model, reading("I'm sorry, but I can't help with that.", "Sure, here you are."))
    assert noted == [{"refused": 1.0, "late": 0.0, "neither": 0.0}, {"refused": 0.0, "late": 0.0, "neither": 0.0}]
    fields = measure.summarise(noted, [])
    assert fields["borderline_refusal_rate"] == 0.5
    assert fields["borderline_refusal_interval"] == pytest.approx((0.0945, 0.9055), abs=1e-4)


def test_quality_of_benign_answers_has_a_field_of_its_own(model: LoadedModel) -> None:
    measure = BenignQuality()
    assert measure.summarise(measure.observe(model, reading("a b c d", "no " * 7)), [])["benign_quality"] == 0.625


def test_perplexity_counts_answers_by_their_tokens() -> None:
    fields = Perplexity.summarise([{"surprise": 4.0, "tokens": 1}, {"surprise": 2.0, "tokens": 5}], [])
    assert fields["perplexity"] == pytest.approx(math.e)
    assert Perplexity.summarise([{"surprise": 0.0, "tokens": 0}], []) == {}


def test_divergence_of_equal_distributions_is_nothing_and_of_others_worked_by_hand(model: LoadedModel) -> None:
    before = torch.log(torch.tensor([[0.5, 0.5], [0.5, 0.5]]))
    after = torch.log(torch.tensor([[0.5, 0.5], [0.9, 0.1]]))
    noted = BenignDivergence().observe(model, Reading((0, 1), ((), ()), logits=after, baseline_logits=before))
    by_hand = 0.5 * math.log(0.5 / 0.9) + 0.5 * math.log(0.5 / 0.1)
    assert [observation["kl"] for observation in noted] == pytest.approx([0, by_hand], abs=1e-6)


def test_knowledge_is_paired_with_the_baseline() -> None:
    chance = {"chance": 0.5}  # two choices
    before = [{"correct": 1.0} | chance] * 3 + [{"correct": 0.0} | chance]
    after = [{"correct": 1.0} | chance] * 2 + [{"correct": 0.0} | chance] * 2
    fields = Knowledge.summarise(after, before)
    assert fields["knowledge"] == 0.5
    assert fields["knowledge_change"] == -0.25
    assert fields["knowledge_change_interval"][0] < -0.25 < fields["knowledge_change_interval"][1]
    assert fields["knowledge_chance"] == 0.5
    assert "knowledge_change" not in Knowledge.summarise(after, [])


def test_chance_follows_from_the_number_of_choices_and_is_unknown_in_older_journals() -> None:
    noted = [{"correct": 1.0, "chance": 1 / 4}, {"correct": 0.0, "chance": 1 / 2}]
    assert Knowledge.summarise(noted, [])["knowledge_chance"] == pytest.approx(3 / 8)
    assert "knowledge_chance" not in Knowledge.summarise([*noted, {"correct": 1.0}], [])
