"""Which neurons write a word, against the weights by hand."""

import numpy as np
import pytest
import torch

from cna_core.circuits.neurons import output_tokens
from cna_core.circuits.writers import promoted, similarity, word_tokens, writers_of
from cna_core.errors import CircuitError
from cna_core.models.loaded import LoadedModel
from tests.circuits.samples import circuit_of
from tests.circuits.test_neurons import by_hand, gpt2, llama

NEURONS = [(1, 5), (0, 3), (1, 0)]


@pytest.fixture(params=[llama, gpt2])
def model(request: pytest.FixtureRequest) -> LoadedModel:
    return request.param()


def test_a_words_score_is_its_logit_in_standard_deviations_over_the_vocabulary(
    model: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cna_core.circuits.writers.AT_ONCE", 2)
    circuit = circuit_of(NEURONS, model.identity)
    (token,) = word_tokens(model, "sorry")
    found = writers_of(model, circuit, token)
    assert found.token == "sorry"
    for place, (layer, neuron) in enumerate(NEURONS):
        every = by_hand(model, layer, neuron)
        assert found.logits[place] == pytest.approx(float(every[token]), abs=1e-5)
        assert found.score[place] == pytest.approx(float((every[token] - every.mean()) / every.std()), abs=1e-3)
        assert found.place[place] == int((every > every[token]).sum())
    table = found.table(circuit)
    assert table["standard deviations"].abs().is_monotonic_decreasing and set(table["rank"]) == {1, 2, 3}


def test_the_tokens_that_each_neuron_promotes_are_those_of_its_own_card(
    model: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cna_core.circuits.writers.AT_ONCE", 1)
    circuit = circuit_of(NEURONS, model.identity)
    for place, tokens in zip([2, 0], promoted(model, circuit, [2, 0], 3), strict=True):
        assert list(tokens) == [token for token, _ in output_tokens(model, *NEURONS[place], 3).up]


def test_neurons_that_write_the_same_have_similarity_one(model: LoadedModel) -> None:
    circuit = circuit_of(NEURONS, model.identity)
    with torch.no_grad():
        weight = model.neuron_layers[1].down_projection.weight
        part = weight if weight.shape[0] == 24 else weight.T
        part[0] = 2 * part[5]
    found = similarity(model, circuit)
    assert np.diag(found) == pytest.approx(1, abs=1e-5)
    assert found[0, 2] == pytest.approx(1, abs=1e-4) and abs(found[0, 1]) < 0.99


def test_no_word_is_told(model: LoadedModel) -> None:
    with pytest.raises(CircuitError, match="no word"):
        word_tokens(model, "  ")
