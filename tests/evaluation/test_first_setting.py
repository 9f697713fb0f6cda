import threading
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch

from cna_core.circuits.circuit import Circuit
from cna_core.decoding.lanes import Lane, first_token_logits
from cna_core.errors import StoppedError
from cna_core.evaluation import first_setting
from cna_core.evaluation.first_setting import known_first_setting, search_first_setting
from cna_core.evaluation.gate_meter import RefusalOpenings, refusal_chance
from cna_core.models.loaded import LoadedModel
from tests.evaluation.sweeping import BENIGN, CONTRAST, HARMFUL, small_circuit, small_model

STRENGTHS = (0.5, 1.0, 2.0)


@pytest.fixture(scope="module")
def model() -> LoadedModel:
    return small_model()


@pytest.fixture(scope="module")
def circuits(model: LoadedModel) -> dict[float, Circuit]:
    return {0.125: small_circuit(model, 12), 0.5: small_circuit(model, 48)}


@pytest.fixture(scope="module")
def openings(model: LoadedModel) -> RefusalOpenings:
    """Whatever the model says first to the harmful prompts opens a refusal, and it always refuses them, just so."""
    logits = first_token_logits(model, [Lane(prompt) for prompt in HARMFUL], None)
    opening = logits.argmax(-1).unique().numpy()
    seen = np.array([9.0] * len(opening) + [1000.0])  # and once there was an answer that most prompts get
    tokens, refused = np.append(opening, model.tokenizer.unk_token_id), seen * (seen < 1000)
    plain = RefusalOpenings(model.identity, "ab", tokens, refused, seen)
    least = plain.mass(logits).min()
    odds = np.log(least / (1 - least))
    return RefusalOpenings(model.identity, "ab", tokens, plain.refused, plain.seen, 0.5 - 4 * odds, 4.0)


def test_the_gentlest_of_the_settings_that_halve_the_chance_is_found(
    model: LoadedModel, circuits: dict[float, Circuit], openings: RefusalOpenings, empty_cache: Path
) -> None:
    found = search_first_setting(model, circuits, openings, CONTRAST, STRENGTHS)
    before = np.mean([refusal_chance(model, circuits[0.5], prompt, [0.0], openings)[0] for prompt in HARMFUL])
    assert found.baseline_chance == pytest.approx(before, rel=1e-4)
    costs = {}
    for fraction, strength in product(circuits, STRENGTHS):
        circuit = circuits[fraction]
        chance = np.mean([refusal_chance(model, circuit, prompt, [strength], openings)[0] for prompt in HARMFUL])
        if chance <= before / 2:
            pairs = [Lane(prompt, at, circuit=circuit) for at in (0.0, strength) for prompt in BENIGN]
            first, second = torch.log_softmax(first_token_logits(model, pairs, None).double(), -1).split(len(BENIGN))
            costs[fraction, strength] = float((first.exp() * (first - second)).sum(-1).mean())
    assert len(costs) > 1
    assert (found.fraction, found.strength) == min(costs, key=costs.__getitem__)
    assert found.benign_kl == pytest.approx(min(costs.values()), rel=1e-3)
    assert (found.prompts, found.tried) == (len(HARMFUL), 6)
    assert known_first_setting(circuits, openings, CONTRAST, STRENGTHS) == found
    assert known_first_setting(circuits, openings, CONTRAST, (1.0,)) is None


def test_where_nothing_halves_it_there_is_no_setting_but_there_are_examples(
    model: LoadedModel, circuits: dict[float, Circuit], openings: RefusalOpenings, empty_cache: Path
) -> None:
    found = search_first_setting(model, circuits, openings, CONTRAST, (0.001,))
    assert (found.fraction, found.strength, found.prompts) == (None, None, len(HARMFUL))
    chances = {
        prompt: refusal_chance(model, circuits[0.5], prompt, [0.0], openings)[0]
        for prompt in (*found.refused, *found.over_refused)
    }
    assert all(chance >= first_setting.LIKELY for chance in chances.values())


def test_a_model_that_refuses_nothing_has_no_setting(
    model: LoadedModel, circuits: dict[float, Circuit], openings: RefusalOpenings, empty_cache: Path
) -> None:
    never = RefusalOpenings(model.identity, "ab", openings.tokens, 0 * openings.seen, openings.seen, -9.0)
    found = search_first_setting(model, circuits, never, CONTRAST, STRENGTHS)
    assert (found.fraction, found.prompts, found.refused) == (None, 0, ())


def test_the_search_stops_when_asked(
    model: LoadedModel, circuits: dict[float, Circuit], openings: RefusalOpenings, empty_cache: Path
) -> None:
    stop = threading.Event()
    stop.set()
    with pytest.raises(StoppedError):
        search_first_setting(model, circuits, openings, CONTRAST, STRENGTHS, stop=stop)
