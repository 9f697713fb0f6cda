"""How refusal falls with the number of neurons ablated: the statistics by hand, the measurement on a tiny model."""

import threading
from pathlib import Path

import numpy as np
import pytest

from cna_core.circuits.attribution import attribute
from cna_core.circuits.capture import capture
from cna_core.decoding.lanes import Lane, first_token_logits
from cna_core.errors import RunError, StoppedError
from cna_core.evaluation import how_few as measuring
from cna_core.evaluation.gate_meter import calibrate_openings
from cna_core.evaluation.how_few import cached_how_few, how_few
from cna_core.evaluation.size_curves import HowFew, HowFewSettings, crossings, halving
from cna_core.models.loaded import LoadedModel
from tests.evaluation.checks.benches import BENIGN, CONTRAST, HARMFUL, refusing
from tests.evaluation.sweeping import small_model

SETTINGS = HowFewSettings(prompts=3, benign=2, largest=8, draws=2)
SETS = {"harmful": HARMFUL, "benign": BENIGN, "settings": SETTINGS}


@pytest.fixture(scope="module")
def model() -> LoadedModel:
    return small_model()


@pytest.fixture
def refused(model: LoadedModel, empty_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    refusing(model, monkeypatch)


def test_a_chance_that_falls_evenly_halves_between_two_sizes() -> None:
    target, sizes = np.array([0.4, 0.4, 0.4, 0.4]), (1, 4, 16)
    chances = np.array([[0.8, 0.5, 0.3], [0.4, 0.5, 0.1], [0.8, 0.8, 0.5], [0.9, 0.4, 0.8]])
    np.testing.assert_allclose(crossings(target, chances, sizes), [8.0, 1.0, np.inf, 4.0])


def test_halving_has_an_interval_over_prompts_and_says_where_it_is_not_reached() -> None:
    baseline = np.full(40, 0.8)
    falls = np.where(np.arange(40)[:, None] % 2, [[0.8, 0.4, 0.1]], [[0.8, 0.3, 0.0]])
    found = halving(baseline, falls, (1, 4, 16))
    assert found.value is not None and found.low is not None and found.high is not None
    assert 1 < found.low < found.value < found.high < 16
    never = halving(baseline, np.full((40, 3), 0.7), (1, 4, 16))
    assert (never.value, never.low, never.high) == (None, None, None)


def test_every_size_is_the_chance_with_so_many_of_the_first_neurons_ablated(model: LoadedModel, refused: None) -> None:
    found = how_few(model, CONTRAST, **SETS)  # type: ignore[arg-type]
    openings = calibrate_openings(model, CONTRAST)
    circuit = attribute(capture(model, CONTRAST), fraction=None, top_k=8)
    curve = found.curve("delta")
    assert curve is not None and curve.sizes == (1, 2, 4, 8)
    for row, prompt in enumerate(HARMFUL.spread(3).prompts):
        expected = [
            openings.chance(first_token_logits(model, [Lane(prompt, 1.0)], circuit.part(slice(size))))[0]
            for size in curve.sizes
        ]
        np.testing.assert_allclose(curve.by_prompt[row], expected, atol=1e-5)
    assert {curve.key for curve in found.curves} == set(measuring.TITLES)
    assert len(found.baseline) == 3 and found.refused == 2


def test_effect_of_the_first_two_thirds_stays_in_them_and_random_neurons_lie_in_its_layers(
    model: LoadedModel, refused: None
) -> None:
    effects = measuring.measure_effects(model, CONTRAST, settings=measuring.EffectSettings(layers="all"))
    ways, notes = measuring._ways(model, capture(model, CONTRAST), effects, SETTINGS)
    by_key = {way.key: way.ranked for way in ways}
    assert not notes and by_key["effect"][0].layers.max() < 2 <= by_key["effect-all"][0].layers.max()
    for key in ("random", "random-writing"):
        assert len(by_key[key]) == 2
        for drawn in by_key[key]:
            np.testing.assert_array_equal(drawn.layers, by_key["effect"][0].layers)
            assert not drawn.overlap(by_key["effect"][0])


def test_divergence_is_zero_without_a_change_and_above_with_one(model: LoadedModel, refused: None) -> None:
    found = how_few(model, CONTRAST, **SETS)  # type: ignore[arg-type]
    for curve in found.curves:
        assert (curve.divergence >= 0).all() and curve.divergence.max() > 0


def test_a_stopped_run_goes_on_where_it_was_and_the_whole_is_found_without_a_model(
    model: LoadedModel, refused: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop = threading.Event()
    seen: list[HowFew] = []

    def after_two(found: HowFew) -> None:
        seen.append(found)
        if len(seen) == 2:
            stop.set()

    with pytest.raises(StoppedError):
        how_few(model, CONTRAST, **SETS, partial=after_two, stop=stop)  # type: ignore[arg-type]
    assert cached_how_few(model.identity, CONTRAST, **SETS) is None  # type: ignore[arg-type]
    read = []
    measured = measuring._Run._measured
    monkeypatch.setattr(measuring._Run, "_measured", lambda run, *prompt: read.append(prompt) or measured(run, *prompt))
    found = how_few(model, CONTRAST, **SETS)  # type: ignore[arg-type]
    assert len(read) == 5 - 2
    assert cached_how_few(model.identity, CONTRAST, **SETS) == found  # type: ignore[arg-type]
    assert HowFew.from_json(found.to_json()) == found


def test_a_file_of_another_kind_is_refused_in_a_sentence() -> None:
    with pytest.raises(RunError, match="choose a file of the command how-few"):
        HowFew.from_json('{"format": "cna-run/2"}')
    with pytest.raises(RunError, match="is damaged"):
        HowFew.from_json('{"format": "cna-how-few/1", "baseline": "?"}')
