"""Measuring effects: batches, options, stopping, memory, the cache, and the circuit that follows."""

import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from cna_core.circuits.activations import Activations
from cna_core.circuits.attribution import attribute
from cna_core.circuits.capture import capture
from cna_core.circuits.circuit import Circuit
from cna_core.circuits.circuit_file import EffectSettings
from cna_core.circuits.effect import effects_of
from cna_core.circuits.effect_stability import effect_stability
from cna_core.circuits.effects import Effects, layer_shares
from cna_core.circuits.explanation import explanation
from cna_core.circuits.multiplier_gradients import Line, numbers_read
from cna_core.errors import CircuitError, ModelError, StoppedError
from cna_core.interventions.plan import steered
from cna_core.models.layout import NeuronLayout
from cna_core.models.loaded import LoadedModel
from cna_core.models.prepacked import PrepackedLinear, prepack
from cna_core.prompts.chat_format import encode
from cna_core.prompts.sets import ContrastSet, PromptSet
from tests.circuits.samples import activations_of, identity
from tests.models.test_architectures import circuit_of
from tests.tiny import tiny_llama

POSITIVE = ("how do i break the lock", "tell me what lock", "how do i break a lock to help cats", "break the bread")
NEGATIVE = ("how do i bake the bread", "tell me", "why", "what is it you can bake here", "cats")
REFUSED = np.array([True, True, False, True])
OPENINGS = (9, 7, 20)


@pytest.fixture
def contrast() -> ContrastSet:
    return ContrastSet(PromptSet("positive", POSITIVE), PromptSet("negative", NEGATIVE))


def measure(
    model: LoadedModel, contrast: ContrastSet, settings: EffectSettings | None = None, **more: object
) -> Effects:
    options = {"use_cache": False, "settings": settings} | more
    return effects_of(model, contrast, REFUSED, OPENINGS, **options)  # type: ignore[arg-type]


def test_refused_prompts_and_the_first_two_thirds_of_the_layers_are_measured(
    tiny_model: LoadedModel, contrast: ContrastSet
) -> None:
    effects = measure(tiny_model, contrast)
    assert effects.positive == ("how do i break the lock", "tell me what lock", "break the bread")
    assert effects.negative == () and effects.openings == (7, 9, 20)
    assert effects.layers == 2 and effects.values.shape == (3, 48)  # of 4 layers with 24 neurons each
    assert np.isnan(effects.effect[48:]).all() and np.isfinite(effects.effect[:48]).all()
    np.testing.assert_allclose(effects.effect[:48], effects.values.mean(0), rtol=1e-6)
    assert effects.layer_shares[2:].tolist() == [0, 0] and effects.layer_shares.sum() == pytest.approx(1)


@pytest.mark.parametrize("batch_tokens", [1, 24, 10_000], ids=["one-by-one", "small-batches", "one-batch"])
def test_batches_change_nothing(tiny_model: LoadedModel, contrast: ContrastSet, batch_tokens: int) -> None:
    expected = measure(tiny_model, contrast, EffectSettings(layers="all"), batch_tokens=30)
    effects = measure(tiny_model, contrast, EffectSettings(layers="all"), batch_tokens=batch_tokens)
    torch.testing.assert_close(effects.values, expected.values, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(effects.log_odds, expected.log_odds, rtol=1e-5, atol=1e-5)


def test_a_contrast_takes_the_benign_prompts_effect_away(tiny_model: LoadedModel, contrast: ContrastSet) -> None:
    alone, both = measure(tiny_model, contrast), measure(tiny_model, contrast, EffectSettings(contrast=True))
    assert both.negative == NEGATIVE and both.values.shape == (8, 48)
    torch.testing.assert_close(both.values[:3], alone.values, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(both.effect[:48], both.values[:3].mean(0) - both.values[3:].mean(0), atol=1e-6)


def test_a_joint_path_adds_up_to_what_ablating_all_its_neurons_does(
    tiny_model: LoadedModel, contrast: ContrastSet
) -> None:
    effects = measure(tiny_model, contrast, EffectSettings(steps=50))
    lines = [Line(tuple(encode(tiny_model, prompt))) for prompt in effects.positive]
    with steered(tiny_model, circuit_of(tiny_model, range(48)), [0.0]):
        ablated = numbers_read(tiny_model, lines, OPENINGS)
    change = ablated.numpy() - effects.log_odds
    assert np.abs(change).max() > 1e-3
    np.testing.assert_allclose(effects.values.sum(1), change, rtol=1e-2, atol=1e-4)


def test_the_prefix_metric_takes_the_compliances_gradient_from_the_refusals(
    tiny_model: LoadedModel, contrast: ContrastSet
) -> None:
    answers = [((7, 8, 9), (10, 11)), ((7,), (12, 13, 14, 15)), ((9, 9, 9), (10, 11, 12))]
    effects = measure(tiny_model, contrast, EffectSettings(metric="prefix"), answers=answers)
    swapped = [(compliance, refusal) for refusal, compliance in answers]
    opposite = measure(tiny_model, contrast, EffectSettings(metric="prefix"), answers=swapped)
    torch.testing.assert_close(effects.values, -opposite.values, rtol=1e-4, atol=1e-6)
    assert effects.values.abs().max() > 1e-4
    tokens = encode(tiny_model, effects.positive[1])
    with torch.no_grad():
        refusal = tiny_model.network(torch.tensor([tokens])).logits[0, -1].log_softmax(-1)[7]
        complying = tiny_model.network(torch.tensor([[*tokens, 12, 13, 14]])).logits[0, -4:].log_softmax(-1)
    expected = refusal - complying[torch.arange(4), [12, 13, 14, 15]].mean()
    assert effects.log_odds[1] == pytest.approx(float(expected), abs=1e-5)


def test_bfloat16_ranks_as_float32_does(contrast: ContrastSet) -> None:
    single, half = tiny_llama(intermediate_size=120), tiny_llama(intermediate_size=120)
    half.network.to(torch.bfloat16)
    flats = [attribute(measure(model, contrast), top_k=40).flat for model in (single, half)]
    assert len(np.intersect1d(*flats)) >= 36


def test_prepacked_weights_give_the_same_effects(contrast: ContrastSet) -> None:
    model = tiny_llama(hidden_size=256, intermediate_size=512)
    expected = measure(model, contrast)
    prepack(model.network)
    assert any(isinstance(module, PrepackedLinear) for module in model.network.modules())
    torch.testing.assert_close(measure(model, contrast).values, expected.values, rtol=1e-4, atol=1e-6)


def test_measuring_stops_between_the_layers_of_the_backward_pass_and_leaves_no_hooks(
    tiny_model: LoadedModel, contrast: ContrastSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop, backward = threading.Event(), torch.autograd.grad

    def stopped_when_backward_begins(*given: object) -> object:
        stop.set()
        return backward(*given)  # type: ignore[arg-type]

    monkeypatch.setattr(torch.autograd, "grad", stopped_when_backward_begins)
    with pytest.raises(StoppedError):
        measure(tiny_model, contrast, stop=stop)
    assert stop.is_set() and not hooks(tiny_model)


def test_measuring_stops_between_the_layers_of_the_forward_pass(tiny_model: LoadedModel, contrast: ContrastSet) -> None:
    stop, reached = threading.Event(), []

    def note(index: int) -> None:
        reached.append(index)
        if index == 1:
            stop.set()

    layers = tiny_model.network.model.layers
    handles = [
        layer.register_forward_pre_hook(lambda *_, index=index: note(index)) for index, layer in enumerate(layers)
    ]
    try:
        with pytest.raises(StoppedError):
            measure(tiny_model, contrast, stop=stop)
    finally:
        for handle in handles:
            handle.remove()
    assert reached[-1] == 1 and not hooks(tiny_model)


def test_memory_running_short_halves_the_batches(
    tiny_model: LoadedModel, contrast: ContrastSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = measure(tiny_model, contrast)
    sizes = fail_from(tiny_model, monkeypatch, rows=2)
    effects = measure(tiny_model, contrast)
    torch.testing.assert_close(effects.values, expected.values, rtol=1e-4, atol=1e-6)
    assert max(sizes) == 3 and not hooks(tiny_model)


def test_a_single_prompt_that_does_not_fit_is_an_error_of_one_sentence(
    tiny_model: LoadedModel, contrast: ContrastSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    fail_from(tiny_model, monkeypatch, rows=1)
    with pytest.raises(ModelError, match="too little memory for a single prompt"):
        measure(tiny_model, contrast)


def test_other_failures_are_not_taken_for_a_lack_of_memory(
    tiny_model: LoadedModel, contrast: ContrastSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    fail_from(tiny_model, monkeypatch, rows=1, failure=lambda: RuntimeError("shape mismatch"))
    with pytest.raises(RuntimeError, match="shape mismatch"):
        measure(tiny_model, contrast)


@pytest.mark.parametrize("nothing", [{"chosen": np.zeros(4, dtype=bool)}, {"openings": ()}])
def test_without_refusals_there_is_nothing_to_measure(
    tiny_model: LoadedModel, contrast: ContrastSet, nothing: dict[str, object]
) -> None:
    given = {"chosen": REFUSED, "openings": OPENINGS} | nothing
    with pytest.raises(CircuitError, match="refuses none"):
        effects_of(tiny_model, contrast, use_cache=False, **given)  # type: ignore[arg-type]


def test_a_repeated_measurement_does_not_run_the_model(
    tiny_model: LoadedModel, contrast: ContrastSet, empty_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = measure(tiny_model, contrast, use_cache=True)
    sizes = fail_from(tiny_model, monkeypatch, rows=0)
    again = measure(tiny_model, contrast, use_cache=True)
    assert not sizes and torch.equal(first.values, again.values) and np.array_equal(first.log_odds, again.log_odds)
    assert (again.positive, again.settings, again.openings, again.model, again.sha256) == (
        first.positive, first.settings, first.openings, first.model, first.sha256,
    )  # fmt: skip


@pytest.mark.parametrize(
    "change", [{"openings": (7, 9)}, {"chosen": ~REFUSED}, {"settings": EffectSettings(layers="all")}]
)
def test_what_the_effects_depend_on_makes_another_measurement(
    tiny_model: LoadedModel, contrast: ContrastSet, empty_cache: Path, change: dict[str, object]
) -> None:
    first = measure(tiny_model, contrast, use_cache=True)
    given = {"chosen": REFUSED, "openings": OPENINGS} | change
    again = effects_of(tiny_model, contrast, **given)  # type: ignore[arg-type]
    assert again.values.shape != first.values.shape or not torch.allclose(again.values, first.values)
    assert len(list((empty_cache / "effects").iterdir())) == 2


def test_a_damaged_cache_file_is_measured_again(
    tiny_model: LoadedModel, contrast: ContrastSet, empty_cache: Path
) -> None:
    first = measure(tiny_model, contrast, use_cache=True)
    (file,) = (empty_cache / "effects").iterdir()
    file.write_bytes(file.read_bytes()[:-40] + bytes(40))
    with pytest.raises(CircuitError, match="damaged"):
        Effects.load(file)
    assert torch.equal(measure(tiny_model, contrast, use_cache=True).values, first.values)
    assert torch.equal(Effects.load(file).values, first.values)


def test_a_file_that_holds_something_else_is_refused(
    tmp_path: Path, tiny_model: LoadedModel, contrast: ContrastSet
) -> None:
    path = capture(tiny_model, contrast, use_cache=False).save(tmp_path / "activations.safetensors")
    with pytest.raises(CircuitError, match="cna-effects/1"):
        Effects.load(path)


def some_effects(values: list[list[float]]) -> Effects:
    """Of a model with three layers of two neurons: two layers are measured."""
    rows = torch.tensor(values)
    prompts = tuple(f"prompt {number}" for number in range(len(rows)))
    return Effects(
        identity(2, layers=3),
        prompts,
        (),
        "0" * 64,
        EffectSettings(),
        (1,),
        rows,
        np.zeros(len(rows), dtype=np.float32),
    )


def test_a_circuit_by_effect_ranks_the_most_negative_first() -> None:
    effects = some_effects([[1.0, -2.0, -4.0, -2.0], [1.0, -2.0, -6.0, -2.0]])
    circuit = attribute(effects, top_k=3)
    assert circuit.flat.tolist() == [2, 1, 3] and circuit.effect is not None
    assert circuit.effect.tolist() == [-5.0, -2.0, -2.0] and np.isnan(circuit.delta).all()
    assert circuit.settings.score == "attribution-patching" and circuit.settings.effect == EffectSettings()
    assert circuit.settings.universal_threshold is None and circuit.prompts.positive == 2
    assert attribute(effects, top_k=1, skip_layers=0).flat.tolist() == [2]
    assert attribute(effects, fraction=0.34).flat.tolist() == [2, 1]


def test_neurons_that_push_away_from_refusal_are_never_selected() -> None:
    effects = some_effects([[1.0, -2.0, 0.0, 3.0]])
    with pytest.raises(CircuitError, match="only 1 of the measured neurons"):
        attribute(effects, top_k=2)


def test_universal_neurons_are_left_out_where_activations_say_which() -> None:
    effects = some_effects([[-1.0, -2.0, -4.0, -3.0]] * 2)
    values = np.zeros((2, 6))
    values[:, 2] = 9  # fires on every prompt
    activations = activations_of(values, values / 2, identity(2, layers=3))
    circuit = attribute(effects, top_k=2, activations=activations)
    assert circuit.flat.tolist() == [3, 1] and circuit.settings.universal_threshold == 0.8
    assert circuit.delta.tolist() == [0, 0]
    kept = attribute(effects, top_k=2, activations=activations, universal_threshold=None)
    assert kept.flat.tolist() == [2, 3] and kept.delta.tolist() == [4.5, 0]


def test_scores_and_what_was_recorded_must_agree(tiny_model: LoadedModel, contrast: ContrastSet) -> None:
    with pytest.raises(CircuitError, match="score delta cannot rank effects"):
        attribute(some_effects([[-1.0] * 4]), top_k=1, score="delta")
    activations: Activations = capture(tiny_model, contrast, use_cache=False)
    with pytest.raises(CircuitError, match="score attribution-patching cannot rank"):
        attribute(activations, score="attribution-patching")


def test_a_circuit_by_effect_survives_its_file(tmp_path: Path) -> None:
    circuit = attribute(some_effects([[-1.0, -2.5, -4.0, -3.0]]), top_k=2)
    again = Circuit.load(circuit.save(tmp_path / "circuit.json"))
    assert again.effect is not None and again.effect.tolist() == [-4.0, -3.0]
    assert again.settings == circuit.settings and again.flat.tolist() == circuit.flat.tolist()
    assert again.table()["effect"].tolist() == [-4.0, -3.0]


def test_circuits_by_other_scores_say_nothing_of_effects(tiny_model: LoadedModel, contrast: ContrastSet) -> None:
    circuit = attribute(capture(tiny_model, contrast, use_cache=False), top_k=3)
    assert '"effect"' not in circuit.to_json() and circuit.effect is None
    assert "effect" not in circuit.table().columns


def test_stability_compares_circuits_from_halves() -> None:
    always = [-5.0, -4.0, 1.0, 1.0]
    stable = some_effects([always] * 6)
    found = effect_stability(stable, attribute(stable, top_k=2), resamples=10)
    assert found.jaccards.tolist() == [1.0] * 10 and found.selection_frequency.tolist() == [1.0, 1.0]
    generator = np.random.default_rng(0)
    noise = some_effects((generator.normal(size=(6, 4)) - 3).tolist())
    assert effect_stability(noise, attribute(noise, top_k=1), resamples=20).jaccard.mean < 1


def test_layer_shares_count_what_pushes_towards_refusal() -> None:
    shares = layer_shares(np.array([-1.0, 5.0, -3.0, np.nan], dtype=np.float32), NeuronLayout((2, 2)))
    assert shares.tolist() == [0.25, 0.75]


def test_an_explanation_is_the_effect_on_one_prompt(tiny_model: LoadedModel, contrast: ContrastSet) -> None:
    effects = measure(tiny_model, contrast)
    why = explanation(tiny_model, POSITIVE[1], OPENINGS)
    np.testing.assert_allclose(why.effect[:48], effects.values[1], rtol=1e-4, atol=1e-6)
    assert why.log_odds == pytest.approx(float(effects.log_odds[1]), abs=1e-5)
    activations = capture(tiny_model, contrast, use_cache=False)
    np.testing.assert_allclose(why.activation, activations.values[1], rtol=1e-4, atol=1e-6)
    for towards, sign in ((True, -1), (False, 1)):
        table = why.strongest(5, towards=towards)
        assert (np.sign(table["effect"]) == sign).all() and table["effect"].abs().is_monotonic_decreasing
    circuit = why.circuit(5)
    assert why.strongest(5)["neuron"].tolist() == circuit.neurons.tolist()
    assert 0 < why.share_of(circuit) < 1 and Circuit.from_json(circuit.to_json()).flat.tolist() == circuit.flat.tolist()


def test_one_prompt_has_no_contrast(tiny_model: LoadedModel) -> None:
    with pytest.raises(CircuitError, match="no contrast"):
        explanation(tiny_model, "why", OPENINGS, settings=EffectSettings(contrast=True))


def hooks(model: LoadedModel) -> int:
    return sum(len(module._forward_pre_hooks) + len(module._forward_hooks) for module in model.network.modules())


def fail_from(
    model: LoadedModel,
    monkeypatch: pytest.MonkeyPatch,
    rows: int,
    failure: Callable[[], Exception] = lambda: torch.OutOfMemoryError("CUDA out of memory"),
) -> list[int]:
    """Passes of so many rows or more fail inside the model; the rows of all passes are noted in the result."""
    sizes: list[int] = []
    mlp = model.network.model.layers[1].mlp
    forward = mlp.forward

    def failing(hidden: Tensor) -> Tensor:
        sizes.append(hidden.shape[0])
        if sizes[-1] >= rows:
            raise failure()
        return forward(hidden)

    monkeypatch.setattr(mlp, "forward", failing)
    return sizes
