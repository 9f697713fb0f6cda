"""Claims about every method: neutral at 0, exact in its row, undone afterwards, with a twin that is drawn at random."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

import cna_core as cna
from cna_core.circuits.activations import Activations
from cna_core.circuits.attribution import attribute
from cna_core.circuits.capture import capture
from cna_core.decoding.lanes import Lane, first_token_logits, generate
from cna_core.errors import CircuitError, CnaError
from cna_core.interventions.addition import Addition
from cna_core.interventions.direction import Affine, Direction
from cna_core.interventions.intervention import Intervention, Material, TrialResult
from cna_core.interventions.mean import Mean
from cna_core.interventions.plan import steered_rows
from cna_core.interventions.registry import method, methods
from cna_core.interventions.scale import Scale
from cna_core.models.layers import decoder_layers
from cna_core.models.loaded import LoadedModel
from cna_core.models.residual_stream import layer_input_hook
from cna_core.prompts.sets import ContrastSet, PromptSet
from tests.interventions.test_plan import hook_count, logits

RECORDED = Path(__file__).parents[1] / "data" / "answers_before_interventions.json"
CONTRAST = ContrastSet(
    PromptSet("positive", ("how do i break the lock", "break a lock", "how can you break bread")),
    PromptSet("negative", ("what is bread", "tell me about cats", "why bake the bread", "what is it")),
)


@pytest.fixture(scope="module")
def activations(tiny_model: LoadedModel) -> Activations:
    return capture(tiny_model, CONTRAST, use_cache=False)


def fitted(model: LoadedModel, activations: Activations) -> dict[str, Intervention]:
    """Every method of the project on the tiny model; of the directions the first candidate."""
    circuit = attribute(activations, top_k=12, universal_threshold=None)

    def trial(candidates: object) -> TrialResult:
        count = len(candidates)  # type: ignore[arg-type]
        return TrialResult(np.arange(count, dtype=np.float64), np.zeros(count))

    material = Material(model, circuit, lambda: activations, trial)
    return {one.key: one.fit(material) for one in methods()}


@pytest.fixture(scope="module")
def by_key(tiny_model: LoadedModel, activations: Activations) -> dict[str, Intervention]:
    return fitted(tiny_model, activations)


@pytest.fixture
def same() -> Tensor:
    return torch.tensor([[7, 12, 9, 20, 11]]).repeat(2, 1)


def test_the_projects_methods_are_there_in_order() -> None:
    assert [one.key for one in methods()][:5] == ["scale", "mean", "caa", "direction", "affine"]
    assert [method(key) for key in ("scale", "mean", "caa", "direction", "affine")] == [
        Scale,
        Mean,
        Addition,
        Direction,
        Affine,
    ]


def test_an_unknown_method_is_refused_with_the_known_ones() -> None:
    with pytest.raises(CnaError, match="There is no method 'voodoo': choose from scale, mean, caa"):
        method("voodoo")


@pytest.mark.parametrize("key", [one.key for one in methods()])
def test_strength_zero_changes_nothing(key: str, by_key: dict[str, Intervention]) -> None:
    assert by_key[key].change(0.0).is_neutral
    assert by_key[key].change(0.0).key == b""
    assert not by_key[key].change(1.0).is_neutral
    assert by_key[key].change(1.0).key != by_key[key].change(0.5).key


@pytest.mark.parametrize("key", [one.key for one in methods()])
def test_a_row_is_changed_alone_and_nothing_stays(
    key: str, by_key: dict[str, Intervention], tiny_model: LoadedModel, same: Tensor
) -> None:
    before = logits(tiny_model, same)
    with steered_rows(tiny_model, [by_key[key].change(0.0), by_key[key].change(1.0)]):
        changed = logits(tiny_model, same)
    torch.testing.assert_close(changed[0], before[0], atol=1e-6, rtol=0)
    assert not torch.allclose(changed[1], before[1], atol=1e-6)
    assert torch.equal(logits(tiny_model, same), before)
    assert hook_count(tiny_model) == 0


def test_methods_mix_in_one_batch_as_if_each_were_alone(
    by_key: dict[str, Intervention], tiny_model: LoadedModel
) -> None:
    lanes = [Lane("how do i break the lock", strength=1.0, method=one) for one in by_key.values()]
    together = first_token_logits(tiny_model, lanes, None)
    for row, lane in zip(together, lanes, strict=True):
        torch.testing.assert_close(row, first_token_logits(tiny_model, [lane, lane], None)[0], atol=1e-5, rtol=0)


@pytest.mark.parametrize("key", [one.key for one in methods()])
def test_a_twin_is_drawn_by_its_seed(key: str, by_key: dict[str, Intervention]) -> None:
    first, again, other = (by_key[key].twin(seed) for seed in (1, 1, 2))
    assert first.change(1.0).key == again.change(1.0).key
    assert first.change(1.0).key not in (other.change(1.0).key, by_key[key].change(1.0).key)


def test_a_twin_on_neurons_has_as_many_others_in_each_layer(by_key: dict[str, Intervention]) -> None:
    for key in ("scale", "mean"):
        mine, twin = by_key[key], by_key[key].twin(3)
        assert isinstance(mine, Scale) and isinstance(twin, Scale)
        assert twin.circuit.layer_counts.tolist() == mine.circuit.layer_counts.tolist()
        assert not set(twin.circuit.flat) & set(mine.circuit.flat)
        assert key != "mean" or np.isfinite(twin.circuit.negative_mean).all()


def test_a_twin_of_vectors_has_vectors_of_the_same_lengths(by_key: dict[str, Intervention]) -> None:
    mine, twin = by_key["caa"], by_key["caa"].twin(3)
    assert isinstance(mine, Addition) and isinstance(twin, Addition)
    np.testing.assert_allclose(np.linalg.norm(twin.vectors, axis=1), np.linalg.norm(mine.vectors, axis=1), rtol=1e-5)
    direction = by_key["direction"].twin(3)
    assert isinstance(direction, Direction) and np.linalg.norm(direction.direction) == pytest.approx(1.0, abs=1e-5)


def test_mean_ablation_leaves_the_negative_prompts_mean(
    by_key: dict[str, Intervention], tiny_model: LoadedModel, same: Tensor
) -> None:
    mean = by_key["mean"]
    assert isinstance(mean, Mean)
    layer, neuron = int(mean.circuit.layers[0]), int(mean.circuit.neurons[0])
    seen: list[Tensor] = []
    with steered_rows(tiny_model, [mean.change(1.0), mean.change(0.5)]):
        down = tiny_model.network.model.layers[layer].mlp.down_proj
        handle = down.register_forward_pre_hook(lambda _module, inputs: seen.append(inputs[0][..., neuron]))
        logits(tiny_model, same)
        handle.remove()
    torch.testing.assert_close(seen[0][0], torch.full((5,), float(mean.circuit.negative_mean[0])))


def test_mean_ablation_needs_the_means(tiny_model: LoadedModel, by_key: dict[str, Intervention]) -> None:
    scale = by_key["scale"].twin()  # whose figures are not known
    assert isinstance(scale, Scale)
    with pytest.raises(CircuitError, match="means on negative prompts"):
        Mean(scale.circuit)


def test_caa_vectors_are_the_difference_of_the_mlp_outputs(
    by_key: dict[str, Intervention], tiny_model: LoadedModel, activations: Activations
) -> None:
    """For a dense MLP that is the down projection of δ."""
    caa = by_key["caa"]
    assert isinstance(caa, Addition)
    for layer, vector in enumerate(caa.vectors):
        down = tiny_model.network.model.layers[layer].mlp.down_proj.weight.detach().numpy()
        delta = activations.delta.reshape(4, -1)[layer]
        np.testing.assert_allclose(vector, down @ delta, atol=1e-5)


def test_ablating_a_direction_equals_taking_it_out_of_the_weights(
    by_key: dict[str, Intervention], tiny_model: LoadedModel, same: Tensor
) -> None:
    """The weights that write to the residual stream, made orthogonal to it (Arditi et al. 2024, section 4.1)."""
    direction = by_key["direction"]
    assert isinstance(direction, Direction)
    with steered_rows(tiny_model, [direction.change(1.0)] * 2):
        hooked = logits(tiny_model, same)
    r = torch.from_numpy(direction.direction)
    network = tiny_model.network.model
    writers = [network.embed_tokens.weight.T]
    for layer in network.layers:
        writers += [layer.self_attn.o_proj.weight, layer.mlp.down_proj.weight]
    kept = [weight.clone() for weight in writers]
    try:
        with torch.no_grad():
            for weight in writers:
                weight -= torch.outer(r, r @ weight)
        torch.testing.assert_close(hooked, logits(tiny_model, same), atol=1e-5, rtol=0)
    finally:
        with torch.no_grad():
            for weight, before in zip(writers, kept, strict=True):
                weight.copy_(before)


def test_affine_leaves_the_negative_prompts_mean_along_the_direction(
    by_key: dict[str, Intervention], tiny_model: LoadedModel, same: Tensor
) -> None:
    affine = by_key["affine"]
    assert isinstance(affine, Affine)
    seen: list[Tensor] = []
    with steered_rows(tiny_model, [affine.change(1.0)] * 2):
        handles = [layer_input_hook(layer, seen.append) for layer in decoder_layers(tiny_model.network)]
        logits(tiny_model, same)
        for handle in handles:
            handle.remove()
    along = torch.stack(seen) @ torch.from_numpy(affine.direction)
    torch.testing.assert_close(along, torch.full_like(along, affine.offset), atol=1e-5, rtol=0)
    assert abs(affine.offset) > 1e-4


def test_the_direction_is_the_gentle_candidate_with_the_fewest_refusals(
    tiny_model: LoadedModel, activations: Activations
) -> None:
    tried: list[int] = []

    def trial(candidates: list[Direction]) -> TrialResult:
        tried.extend(one.layer for one in candidates)
        return TrialResult(np.array([0.1, 0.3, 0.2]), np.array([0.4, 0.05, 0.02]))

    chosen = Direction.fit(Material(tiny_model, None, lambda: activations, trial))  # type: ignore[arg-type]
    assert tried == [1, 2, 3]  # the input of layer 0 is the same token's embedding for every prompt
    assert (chosen.layer, chosen.refusal_chance, chosen.divergence) == (3, 0.2, 0.02)


def test_a_method_that_lacks_something_says_what(tiny_model: LoadedModel) -> None:
    with pytest.raises(CircuitError, match="CNA needs a circuit: give one"):
        next(generate(tiny_model, [Lane("why", strength=1.0)], None))
    with pytest.raises(CircuitError, match=r"CAA is fitted on discovery prompts: fit it with cna_core\.fit"):
        next(generate(tiny_model, [Lane("why", strength=1.0, method="caa")], None))


def test_a_method_of_another_model_is_refused(by_key: dict[str, Intervention], small_llama: LoadedModel) -> None:
    for one in by_key.values():
        with pytest.raises(CircuitError):
            first_token_logits(small_llama, [Lane("why", strength=1.0, method=one)], None)


@pytest.fixture
def small_llama() -> LoadedModel:
    from tests.tiny import tiny_llama

    return tiny_llama(num_hidden_layers=2)


@pytest.mark.small_model
def test_answers_are_those_of_the_commit_before_methods_became_objects(small_model: LoadedModel) -> None:
    recorded = json.loads(RECORDED.read_text(encoding="utf-8"))
    circuit = cna.attribute(cna.capture(small_model, ContrastSet.builtin()), fraction=recorded["fraction"])
    caa = cna.fit(small_model, "caa")
    for answer in recorded["answers"]:
        lanes = [Lane(answer["prompt"])]
        lanes += [Lane(answer["prompt"], strength=float(strength)) for strength in answer["scale"]]
        lanes += [Lane(answer["prompt"], strength=float(strength), method=caa) for strength in answer["caa"]]
        written: list[list[int]] = [[] for _ in lanes]
        for step in generate(small_model, lanes, circuit, max_new_tokens=40):
            written[step.lane].append(step.token_id)
        assert written == [answer["baseline"], *answer["scale"].values(), *answer["caa"].values()]
