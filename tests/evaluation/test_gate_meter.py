from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from cna_core.decoding.lanes import Lane, first_token_logits
from cna_core.evaluation import gate_meter
from cna_core.evaluation.first_words import Opening, first_words
from cna_core.evaluation.gate_meter import (
    METER_STRENGTHS,
    OPENING_TOKENS,
    RefusalOpenings,
    agreement,
    cached_openings,
    calibrate_openings,
    learnt_openings,
    refusal_chance,
)
from cna_core.evaluation.refusal import Verdict
from cna_core.models.loaded import LoadedModel
from tests.circuits.samples import identity
from tests.evaluation.sweeping import CONTRAST, small_circuit, small_model


@pytest.fixture(scope="module")
def model() -> LoadedModel:
    return small_model()


def openings(refused: list[float], seen: list[float]) -> RefusalOpenings:
    tokens = np.arange(1, 1 + len(seen), dtype=np.int64)
    return RefusalOpenings(identity(), "ab", tokens, np.array(refused), np.array(seen))


def test_the_mass_worked_by_hand() -> None:
    # Token 1 opens 8 of 8 refusals, token 2 none of 6; tokens 3 and 4 were seen once, one of them in a refusal.
    learnt = openings([8, 0, 1, 0], [8, 6, 1, 1])
    rare = (1 + 9 / 16) / (2 + 1)
    logits = torch.log(torch.tensor([[0.1, 0.5, 0.3, 0.1, 0.0], [1.0, 0.0, 0.0, 0.0, 0.0]]))
    by_hand = 0.5 * (8 + rare) / 9 + 0.3 * rare / 7 + 0.1 * (1 + rare) / 2 + 0.1 * rare
    np.testing.assert_allclose(learnt.mass(logits), [by_hand, rare], rtol=1e-6)
    np.testing.assert_allclose(learnt.chance(logits), learnt.mass(logits), rtol=1e-6)  # until a fit is learnt
    steep = replace(learnt, intercept=1.0, slope=2.0)
    odds = (rare / (1 - rare)) ** 2 * np.e
    assert steep.chance(logits)[1] == pytest.approx(odds / (1 + odds))


def test_a_chance_stays_a_chance_whatever_the_logits() -> None:
    learnt = openings([3, 0], [3, 4])
    logits = torch.randn(50, 9, generator=torch.Generator().manual_seed(0)) * 20
    chances = learnt.chance(logits)
    assert ((chances >= 0) & (chances <= 1)).all()


def test_openings_are_learnt_from_the_models_own_first_words(
    model: LoadedModel, empty_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard = first_words(model, CONTRAST)
    refusing = heard[0].words(OPENING_TOKENS)
    monkeypatch.setattr(gate_meter, "detect_refusal", lambda text: Verdict(text == refusing, "because"))
    learnt = calibrate_openings(model, CONTRAST)
    assert learnt.seen.sum() == len(CONTRAST.prompts)
    assert learnt.refused.sum() == sum(opening.words(OPENING_TOKENS) == refusing for opening in heard)
    for token, seen in zip(learnt.tokens, learnt.seen, strict=True):
        assert seen == sum(opening.token == token for opening in heard)


def test_what_was_learnt_is_kept_for_the_model_and_the_prompts(
    model: LoadedModel, empty_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert cached_openings(model.identity, CONTRAST) is None
    learnt = calibrate_openings(model, CONTRAST)
    monkeypatch.setattr(gate_meter, "first_words", None)  # would fail if it were asked again
    assert calibrate_openings(model, CONTRAST).to_json() == learnt.to_json()
    kept = cached_openings(model.identity, CONTRAST)
    assert kept is not None
    assert kept.sha256 == learnt.sha256
    monkeypatch.undo()


def test_what_another_detector_heard_is_learnt_again(
    model: LoadedModel, empty_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calibrate_openings(model, CONTRAST)
    assert cached_openings(model.identity, CONTRAST) is not None
    monkeypatch.setattr(gate_meter, "detector_identity", lambda: "another")
    assert cached_openings(model.identity, CONTRAST) is None


def test_a_damaged_cache_is_learnt_again(model: LoadedModel, empty_cache: Path) -> None:
    learnt = calibrate_openings(model, CONTRAST)
    [file] = (empty_cache / "openings").glob("*.json")
    file.write_text("{}")
    assert cached_openings(model.identity, CONTRAST) is None
    assert calibrate_openings(model, CONTRAST).to_json() == learnt.to_json()


def test_the_meter_reads_every_strength_as_a_lane_of_its_own(model: LoadedModel, empty_cache: Path) -> None:
    circuit, learnt = small_circuit(model), openings([4, 0, 2], [4, 5, 3])
    chances = refusal_chance(model, circuit, "why cannot you help me", METER_STRENGTHS, learnt)
    assert chances.shape == (13,)
    for strength, chance in zip(METER_STRENGTHS, chances, strict=True):
        alone = first_token_logits(model, [Lane("why cannot you help me", strength=strength)], circuit)
        assert chance == pytest.approx(float(learnt.chance(alone)[0]), abs=1e-5)
    assert len(set(np.round(chances, 6))) > 1


def an_opening(token: int, share: float) -> Opening:
    """Greedy, with `share` for the refusing token 1 and the rest for token 2."""
    return Opening(token, (), np.array([1, 2]), np.array([share, 1 - share]))


def test_the_fit_learns_that_a_likeliest_refusal_is_a_refusal() -> None:
    shares = np.linspace(0.02, 0.98, 49)
    refused = [bool(share > 0.3) for share in shares]  # greedy: token 1 wins above 0.3, against many other openings
    heard = [an_opening(1 if refuses else 2, share) for share, refuses in zip(shares, refused, strict=True)]
    learnt = learnt_openings(identity(), "ab", heard, refused)
    chances = learnt.chance(torch.log(torch.tensor([[0.0, share, 1 - share] for share in (0.1, 0.3, 0.6)])))
    assert chances[0] < 0.15
    assert 0.3 < chances[1] < 0.7
    assert chances[2] > 0.85


@pytest.mark.parametrize("refuses", [True, False])
def test_a_model_that_always_or_never_refuses_has_a_finite_fit(refuses: bool) -> None:
    heard = [an_opening(1, 0.9) for _ in range(20)]
    learnt = learnt_openings(identity(), "ab", heard, [refuses] * 20)
    chance = float(learnt.chance(torch.log(torch.tensor([[0.0, 0.9, 0.1]])))[0])
    assert (chance > 0.9) == refuses
    assert np.isfinite([learnt.intercept, learnt.slope]).all()


def test_agreement_worked_by_hand() -> None:
    figures = agreement([0.9, 0.2, 0.6, 0.6], [True, False, True, False])
    assert figures["predicted"] == pytest.approx(0.575)
    assert figures["observed"] == 0.5
    assert figures["brier"] == pytest.approx((0.01 + 0.04 + 0.16 + 0.36) / 4)
    assert figures["auc"] == pytest.approx((1 + 1 + 1 + 0.5) / 4)


def test_agreement_without_both_kinds_has_no_auc() -> None:
    assert np.isnan(agreement([0.9, 0.2], [True, True])["auc"])
