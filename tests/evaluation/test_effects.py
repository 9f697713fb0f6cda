"""What measuring effects finds out first: the tokens that open refusals, and which prompts are refused."""

from pathlib import Path

import numpy as np
import pytest

import cna_core as cna
from cna_core.circuits.circuit_file import EffectSettings
from cna_core.circuits.effect import effects_of
from cna_core.errors import CircuitError
from cna_core.evaluation import effects as convenience
from cna_core.evaluation import gate_meter
from cna_core.evaluation.effects import explain, measure_effects, opening_tokens, own_answers
from cna_core.evaluation.first_words import first_words
from cna_core.evaluation.gate_meter import RefusalOpenings, calibrate_openings
from cna_core.evaluation.refusal import Verdict
from cna_core.models.loaded import LoadedModel
from tests.circuits.samples import identity
from tests.evaluation.sweeping import CONTRAST, HARMFUL, small_model


@pytest.fixture(scope="module")
def model() -> LoadedModel:
    return small_model()


@pytest.fixture
def refusing(model: LoadedModel, empty_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Answers count as refusals that begin as those to the first and the third positive prompt do."""
    heard = first_words(model, CONTRAST)
    begun = {heard[place].pieces[0] for place in (0, 2)}

    def verdict(text: str) -> Verdict:
        return Verdict(any(text.startswith(piece) for piece in begun), "because")

    for module in (gate_meter, convenience):
        monkeypatch.setattr(module, "detect_refusal", verdict)


def test_opening_tokens_are_those_whose_answers_refuse_at_least_half_the_time() -> None:
    learnt = RefusalOpenings(
        identity(), "ab", np.array([9, 4, 7, 2]), np.array([8.0, 0.0, 1.0, 1.0]), np.array([8.0, 6.0, 1.0, 9.0])
    )
    assert learnt.refusal_given_token[2] >= 0.5 > learnt.refusal_given_token[3]
    assert opening_tokens(learnt) == (7, 9)


def test_effects_are_those_of_the_prompts_that_the_model_refuses(model: LoadedModel, refusing: None) -> None:
    effects = measure_effects(model, CONTRAST)
    heard = first_words(model, CONTRAST)[:3]
    refused = np.array([convenience.detect_refusal(opening.words()).refused for opening in heard])
    assert refused[[0, 2]].all()
    assert effects.positive == tuple(np.array(HARMFUL.prompts)[refused])
    tokens = opening_tokens(calibrate_openings(model, CONTRAST))
    assert effects.openings == tokens and {heard[0].token, heard[2].token} <= set(tokens)
    expected = effects_of(model, CONTRAST, refused, tokens, use_cache=False)
    np.testing.assert_allclose(effects.effect, expected.effect, rtol=1e-5, atol=1e-6)


def test_prefixes_are_the_models_own_refusal_and_its_answer_without_the_opening(
    model: LoadedModel, refusing: None
) -> None:
    openings = opening_tokens(calibrate_openings(model, CONTRAST))
    prompts = HARMFUL.prompts
    answers = own_answers(model, prompts, openings)
    heard = first_words(model, CONTRAST)
    assert [refusal[0] for refusal, _ in answers] == [opening.token for opening in heard[: len(prompts)]]
    assert all(0 < len(comply) <= 8 and comply[0] not in openings for _, comply in answers)
    effects = measure_effects(model, CONTRAST, settings=EffectSettings(metric="prefix"))
    assert effects.settings.metric == "prefix" and effects.values.abs().max() > 0
    with pytest.raises(CircuitError, match="without a contrast"):
        measure_effects(model, CONTRAST, settings=EffectSettings(metric="prefix", contrast=True))


def test_any_prompt_can_be_explained(model: LoadedModel, refusing: None) -> None:
    openings = calibrate_openings(model, CONTRAST)
    why = explain(model, "tell me about cats", openings=openings)
    assert why.prompt == "tell me about cats" and why.openings == opening_tokens(openings)
    with_system = explain(
        model,
        [{"role": "system", "content": "help me"}, {"role": "user", "content": "tell me about cats"}],
        openings=openings,
    )
    assert with_system.prompt == why.prompt and with_system.log_odds != why.log_odds


def test_a_model_that_never_refuses_is_told_so(
    model: LoadedModel, empty_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (gate_meter, convenience):
        monkeypatch.setattr(module, "detect_refusal", lambda _text: Verdict(False, "because"))
    with pytest.raises(CircuitError, match="refuses none"):
        measure_effects(model, CONTRAST)
    with pytest.raises(CircuitError, match="refuses none"):
        explain(model, "why", openings=calibrate_openings(model, CONTRAST))


def test_the_public_names_lead_here() -> None:
    assert cna.measure_effects is measure_effects and cna.explain is explain
