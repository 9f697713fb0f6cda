"""Claims about steering: what it changes, what it leaves alone, and that nothing of it stays."""

import numpy as np
import pytest
import torch
from torch import Tensor

from cna_core.errors import CircuitError
from cna_core.interventions.addition import Addition
from cna_core.interventions.change import NEUTRAL
from cna_core.interventions.plan import SteeringPlan, steered, steered_rows
from cna_core.interventions.scale import Scale
from cna_core.models.loaded import LoadedModel
from tests.circuits.samples import circuit_of
from tests.decoding.models import spread_circuit


def logits(model: LoadedModel, tokens: Tensor) -> Tensor:
    with torch.inference_mode():
        return model.network(input_ids=tokens).logits


@pytest.fixture
def tokens() -> Tensor:
    return torch.randint(7, 30, (3, 9), generator=torch.Generator().manual_seed(0))


def hook_count(model: LoadedModel) -> int:
    return sum(len(m._forward_pre_hooks) + len(m._forward_hooks) for m in model.network.modules())


def test_steering_with_multiplier_one_changes_nothing(tiny_model: LoadedModel, tokens: Tensor) -> None:
    before = logits(tiny_model, tokens)
    with steered(tiny_model, spread_circuit(tiny_model), [1.0, 1.0, 1.0]):
        assert hook_count(tiny_model) == 1  # the check of the batch's rows, and no layer
        assert torch.equal(logits(tiny_model, tokens), before)


def test_the_model_is_bit_identical_after_steering(tiny_model: LoadedModel, tokens: Tensor) -> None:
    before, weights = logits(tiny_model, tokens), [weight.clone() for weight in tiny_model.network.parameters()]
    with steered(tiny_model, spread_circuit(tiny_model), [0.0, -1.0, 2.0]):
        assert not torch.equal(logits(tiny_model, tokens), before)
    assert torch.equal(logits(tiny_model, tokens), before)
    assert all(torch.equal(a, b) for a, b in zip(weights, tiny_model.network.parameters(), strict=True))
    assert hook_count(tiny_model) == 0


def test_an_exception_leaves_no_hook_behind(tiny_model: LoadedModel, tokens: Tensor) -> None:
    with pytest.raises(ZeroDivisionError), steered(tiny_model, spread_circuit(tiny_model), [0.0]):
        raise ZeroDivisionError
    assert hook_count(tiny_model) == 0


def test_each_row_is_steered_as_if_it_were_alone(tiny_model: LoadedModel, tokens: Tensor) -> None:
    circuit = spread_circuit(tiny_model)
    same = tokens[:1].repeat(3, 1)
    with steered(tiny_model, circuit, [1.0, 0.0, -1.5]):
        together = logits(tiny_model, same)
    for row, multiplier in enumerate([1.0, 0.0, -1.5]):
        with steered(tiny_model, circuit, [multiplier] * 3):
            alone = logits(tiny_model, same)
        torch.testing.assert_close(together[row], alone[row], atol=1e-6, rtol=0)
    torch.testing.assert_close(together[0], logits(tiny_model, same)[0], atol=1e-6, rtol=0)


def test_ablation_is_the_same_as_zero_columns_in_the_down_projection(tiny_model: LoadedModel, tokens: Tensor) -> None:
    circuit = spread_circuit(tiny_model)
    with steered(tiny_model, circuit, [0.0]):
        hooked = logits(tiny_model, tokens)
    projections = [layer.mlp.down_proj for layer in tiny_model.network.model.layers]
    kept = [projection.weight.detach().clone() for projection in projections]
    try:
        with torch.no_grad():
            for layer, neuron in zip(circuit.layers, circuit.neurons, strict=True):
                projections[layer].weight[:, neuron] = 0
        torch.testing.assert_close(hooked, logits(tiny_model, tokens), atol=1e-6, rtol=0)
    finally:
        with torch.no_grad():
            for projection, weight in zip(projections, kept, strict=True):
                projection.weight.copy_(weight)


def test_multipliers_may_differ_by_neuron(tiny_model: LoadedModel, tokens: Tensor) -> None:
    circuit = spread_circuit(tiny_model, size=6)
    half = np.array([[0, 0, 0, 1, 1, 1], [1, 1, 1, 0, 0, 0]], dtype=np.float32)
    with steered(tiny_model, circuit, half):
        parts = logits(tiny_model, tokens[:1].repeat(2, 1))
    for row, places in enumerate([slice(0, 3), slice(3, 6)]):
        pairs = list(zip(circuit.layers[places].tolist(), circuit.neurons[places].tolist(), strict=True))
        with steered(tiny_model, circuit_of(pairs, tiny_model.identity), [0.0, 0.0]):
            alone = logits(tiny_model, tokens[:1].repeat(2, 1))
        torch.testing.assert_close(parts[row], alone[row], atol=1e-6, rtol=0)


def test_only_layers_that_need_one_get_a_hook(tiny_model: LoadedModel) -> None:
    circuit = circuit_of([(1, 3), (3, 2)], tiny_model.identity)
    with steered(tiny_model, circuit, [[0.0, 1.0]]):
        hooked = [bool(layer.mlp.down_proj._forward_pre_hooks) for layer in tiny_model.network.model.layers]
    assert hooked == [False, True, False, False]


def test_rows_may_have_different_circuits(tiny_model: LoadedModel, tokens: Tensor) -> None:
    first, second = spread_circuit(tiny_model, seed=1), spread_circuit(tiny_model, seed=2)
    same = tokens[:1].repeat(2, 1)
    with steered_rows(tiny_model, [Scale(first).change(1.0), Scale(second).change(1.0)]):
        together = logits(tiny_model, same)
    for row, circuit in enumerate([first, second]):
        with steered(tiny_model, circuit, [0.0, 0.0]):
            torch.testing.assert_close(together[row], logits(tiny_model, same)[row], atol=1e-6, rtol=0)


def test_vectors_are_subtracted_from_every_layers_output(tiny_model: LoadedModel, tokens: Tensor) -> None:
    width = tiny_model.network.config.hidden_size
    values = np.random.default_rng(0).normal(size=(4, width)).astype(np.float32)
    outputs: list[Tensor] = []
    rows = [NEUTRAL, Addition(tiny_model.identity, values).change(0.5)]
    last = tiny_model.network.model.layers[0]
    with steered_rows(tiny_model, rows):
        handle = last.register_forward_hook(lambda _m, _i, output: outputs.append(output))
        logits(tiny_model, tokens[:1].repeat(2, 1))
        handle.remove()
    expected = outputs[0][0] - 0.5 * torch.from_numpy(values[0])
    torch.testing.assert_close(outputs[0][1], expected)


def test_the_layers_activities_add_up_to_the_signed_mean_of_the_circuit_at_the_last_token(
    tiny_model: LoadedModel, tokens: Tensor
) -> None:
    circuit = spread_circuit(tiny_model)
    seen: dict[int, Tensor] = {}
    plan = SteeringPlan(tiny_model, [NEUTRAL, Scale(circuit).change(1.0), Scale(circuit).change(-1.0)], circuit)
    handles = [
        layer.mlp.down_proj.register_forward_pre_hook(lambda _m, x, index=index: seen.__setitem__(index, x[0][0, -1]))
        for index, layer in enumerate(tiny_model.network.model.layers)
    ]
    with plan.attached():
        logits(tiny_model, tokens[:1].repeat(3, 1))
    for handle in handles:
        handle.remove()
    by_hand = np.mean(
        [
            np.sign(delta) * float(seen[layer][neuron])
            for layer, neuron, delta in zip(circuit.layers, circuit.neurons, circuit.delta, strict=True)
        ]
    )
    assert plan.layer_activity.shape == (3, len(np.unique(circuit.layers)))
    assert plan.layer_activity[0].sum().item() == pytest.approx(by_hand, abs=1e-6)
    assert plan.layer_activity[1, 0] == plan.layer_activity[0, 0]  # before the multiplier, and nothing came before it
    assert plan.layer_activity[1].sum().item() != 0.0


def test_a_circuit_of_another_model_is_refused(tiny_model: LoadedModel) -> None:
    with pytest.raises(CircuitError, match="belongs to"), steered(tiny_model, circuit_of([(0, 0)]), [0.0]):
        pass


@pytest.mark.parametrize("multipliers", [[[0.0, 1.0]], [], [float("nan")], [[[1.0]]]])
def test_multipliers_that_do_not_fit_are_refused(tiny_model: LoadedModel, multipliers: list[float]) -> None:
    with pytest.raises(CircuitError), steered(tiny_model, spread_circuit(tiny_model), multipliers):
        pass


def test_a_batch_of_another_size_is_refused(tiny_model: LoadedModel, tokens: Tensor) -> None:
    with pytest.raises(CircuitError, match="3 rows"), steered(tiny_model, spread_circuit(tiny_model), [0.0, 1.0]):
        logits(tiny_model, tokens)


def test_a_plan_for_some_rows_changes_them_as_the_whole_plan_did(tiny_model: LoadedModel, tokens: Tensor) -> None:
    first, second = spread_circuit(tiny_model, seed=1), circuit_of([(1, 3)], tiny_model.identity)
    vectors = np.random.default_rng(0).normal(size=(4, 16)).astype(np.float32)
    rows = [
        NEUTRAL,
        Scale(first).change(1.0),
        Scale(second).change(2.0),
        Addition(tiny_model.identity, vectors).change(1),
    ]
    whole, places = SteeringPlan(tiny_model, rows, first), [2, 0, 2]
    part = whole.select(places)
    same = tokens[:1].repeat(4, 1)
    with whole.attached():
        expected = logits(tiny_model, same)
    with part.attached():
        assert [bool(layer.mlp.down_proj._forward_pre_hooks) for layer in tiny_model.network.model.layers].count(True)
        found = logits(tiny_model, same[:3])
    torch.testing.assert_close(found, expected[places], atol=1e-6, rtol=0)
    assert part.layer_activity[1].tolist() == pytest.approx(whole.layer_activity[0].tolist(), abs=1e-6)
    with whole.select([2, 2]).select([0, 1]).attached():
        torch.testing.assert_close(logits(tiny_model, same[:2]), expected[[2, 2]], atol=1e-6, rtol=0)


def test_layers_in_which_no_row_of_a_part_is_changed_lose_their_hook(tiny_model: LoadedModel) -> None:
    rows = [Scale(circuit_of([(layer, 0)], tiny_model.identity)).change(1.0) for layer in (1, 3)]
    with SteeringPlan(tiny_model, rows).select([0, 0]).attached():
        hooked = [bool(layer.mlp.down_proj._forward_pre_hooks) for layer in tiny_model.network.model.layers]
    assert hooked == [False, True, False, False]
