"""Capture is fast, and gives what the definition gives: one prompt at a time, no padding, no cache."""

import itertools
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from cna_core.circuits.activations import Activations
from cna_core.circuits.capture import capture, classes_together, kept_activations, padded_batches
from cna_core.circuits.processes import Processes
from cna_core.errors import ModelError, PromptError, StoppedError
from cna_core.models.loaded import LoadedModel
from cna_core.progress import Progress, Stage
from cna_core.prompts.sets import ContrastSet, PromptSet
from tests.circuits.naive import naive_values

POSITIVE = ("how do i break the lock", "tell me what lock", "how do i break a lock to help cats", "break the bread")
NEGATIVE = ("how do i bake the bread", "tell me", "why", "what is it you can bake here", "cats")


@pytest.fixture
def contrast() -> ContrastSet:
    return ContrastSet(PromptSet("positive", POSITIVE), PromptSet("negative", NEGATIVE))


def record(model: LoadedModel, contrast: ContrastSet, **options: object) -> Activations:
    return capture(model, contrast, use_cache=False, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("batch_tokens", [1, 12, 10_000], ids=["one-by-one", "small-batches", "one-batch"])
def test_capture_equals_the_naive_run(tiny_model: LoadedModel, contrast: ContrastSet, batch_tokens: int) -> None:
    activations = record(tiny_model, contrast, batch_tokens=batch_tokens)
    torch.testing.assert_close(activations.values, naive_values(tiny_model, contrast.prompts), rtol=1e-4, atol=1e-6)


def test_statistics_follow_the_definitions(tiny_model: LoadedModel, contrast: ContrastSet) -> None:
    values = naive_values(tiny_model, contrast.prompts).double().numpy()
    positive, negative = values[: len(POSITIVE)], values[len(POSITIVE) :]
    activations = record(tiny_model, contrast)
    np.testing.assert_allclose(activations.delta, positive.mean(0) - negative.mean(0), rtol=1e-4, atol=1e-7)
    np.testing.assert_allclose(activations.positive_sums.variance, positive.var(0, ddof=1), rtol=1e-3, atol=1e-9)


def test_prompts_that_share_nothing_are_recorded_too(tiny_model: LoadedModel) -> None:
    tiny_model.tokenizer.chat_template, template = None, tiny_model.tokenizer.chat_template
    try:
        contrast = ContrastSet(PromptSet("positive", ("how", "why do i")), PromptSet("negative", ("cats", "it")))
        values = record(tiny_model, contrast).values
        torch.testing.assert_close(values, naive_values(tiny_model, contrast.prompts), rtol=1e-4, atol=1e-6)
    finally:
        tiny_model.tokenizer.chat_template = template


def test_delta_grows_while_prompts_pass_and_ends_as_the_result(tiny_model: LoadedModel, contrast: ContrastSet) -> None:
    seen: list[tuple[np.ndarray, int]] = []
    activations = record(
        tiny_model, contrast, batch_tokens=12, partial=lambda delta, done: seen.append((delta.copy(), done))
    )
    counts = [done for _, done in seen]
    assert len(seen) > 2 and counts == sorted(counts) and counts[-1] == len(contrast)
    np.testing.assert_allclose(seen[-2][0], activations.delta, rtol=1e-4, atol=1e-6)
    assert not np.allclose(seen[0][0], activations.delta)


def test_progress_counts_the_prompts(tiny_model: LoadedModel, contrast: ContrastSet) -> None:
    told: list[Progress] = []
    record(tiny_model, contrast, batch_tokens=12, progress=told.append)
    assert told[0] == Progress(Stage.CAPTURING, 0, len(contrast), "prompts")
    assert told[-1] == Progress(Stage.CAPTURING, len(contrast), len(contrast), "prompts")


def test_capture_stops_between_batches_and_leaves_no_hooks(tiny_model: LoadedModel, contrast: ContrastSet) -> None:
    stop = threading.Event()
    done_when_stopped: list[int] = []

    def stop_soon(progress: Progress) -> None:
        done_when_stopped.append(progress.done)
        if progress.done:
            stop.set()

    with pytest.raises(StoppedError):
        record(tiny_model, contrast, batch_tokens=12, progress=stop_soon, stop=stop)
    assert 0 < done_when_stopped[-1] < len(contrast)
    assert not hooks(tiny_model)


def test_a_long_batch_stops_between_layers(tiny_model: LoadedModel, contrast: ContrastSet) -> None:
    stop = threading.Event()
    reached: list[int] = []

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
            record(tiny_model, contrast, stop=stop)
    finally:
        for handle in handles:
            handle.remove()
    assert reached[-1] == 1 and not hooks(tiny_model)


@pytest.mark.parametrize("shared", [True, False], ids=["shared-prefix", "only-the-first-token-shared"])
def test_no_pass_has_a_single_token(
    tiny_model: LoadedModel, contrast: ContrastSet, monkeypatch: pytest.MonkeyPatch, shared: bool
) -> None:
    if not shared:
        monkeypatch.setattr(tiny_model.tokenizer, "chat_template", "{{ '<s> ' + messages[0]['content'] }}")
    sizes = fail_from(tiny_model, monkeypatch, tokens=1_000)
    record(tiny_model, contrast, batch_tokens=1)
    assert len(sizes) == 1 + len(contrast) and min(sizes) >= 2  # the prefix has a pass of its own


def test_memory_running_short_halves_the_batches_and_is_said_once(
    tiny_model: LoadedModel, contrast: ContrastSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = fail_from(tiny_model, monkeypatch, tokens=16)
    told: list[Stage] = []
    activations = record(tiny_model, contrast, progress=lambda progress: told.append(progress.stage))
    torch.testing.assert_close(activations.values, naive_values(tiny_model, contrast.prompts), rtol=1e-4, atol=1e-6)
    assert max(sizes) > 2 * 16  # all prompts at once, at first
    assert [stage for stage, _ in itertools.groupby(told)] == [Stage.CAPTURING, Stage.CAPTURING_IN_HALVES]
    assert not hooks(tiny_model)


def test_a_single_prompt_that_does_not_fit_is_an_error_of_one_sentence(
    tiny_model: LoadedModel, contrast: ContrastSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    fail_from(tiny_model, monkeypatch, tokens=2)
    with pytest.raises(ModelError, match="too little memory for a single prompt"):
        record(tiny_model, contrast)


def test_other_failures_of_the_model_are_not_taken_for_a_lack_of_memory(
    tiny_model: LoadedModel, contrast: ContrastSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    fail_from(tiny_model, monkeypatch, tokens=2, failure=lambda: RuntimeError("shape mismatch"))
    with pytest.raises(RuntimeError, match="shape mismatch"):
        record(tiny_model, contrast)
    assert not hooks(tiny_model)


def test_a_prompt_beyond_the_context_is_refused_before_anything_runs(tiny_model: LoadedModel) -> None:
    contrast = ContrastSet(PromptSet("positive", ("how " * 300,)), PromptSet("negative", ("why",)))
    with pytest.raises(PromptError, match="reads up to 256"):
        record(tiny_model, contrast)


def test_the_lm_head_never_runs(tiny_model: LoadedModel, contrast: ContrastSet) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("the LM head ran")

    handle = tiny_model.network.lm_head.register_forward_pre_hook(refuse)
    try:
        assert record(tiny_model, contrast).values.shape == (len(contrast), tiny_model.layout.total)
    finally:
        handle.remove()


def test_a_repeated_capture_does_not_run_the_model(
    tiny_model: LoadedModel, contrast: ContrastSet, empty_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = capture(tiny_model, contrast)
    sizes = fail_from(tiny_model, monkeypatch, tokens=0)
    again = capture(tiny_model, contrast)
    assert not sizes
    assert torch.equal(first.values, again.values) and np.array_equal(first.delta, again.delta)


def test_a_damaged_cache_file_is_recorded_again(
    tiny_model: LoadedModel, contrast: ContrastSet, empty_cache: Path
) -> None:
    first = capture(tiny_model, contrast)
    (file,) = (empty_cache / "activations").iterdir()
    file.write_bytes(file.read_bytes()[:-40] + bytes(40))
    assert torch.equal(capture(tiny_model, contrast).values, first.values)
    assert torch.equal(Activations.load(file).values, first.values)


def test_weights_that_changed_under_the_same_name_are_recorded_anew(
    tiny_model: LoadedModel, contrast: ContrastSet, empty_cache: Path
) -> None:
    first = capture(tiny_model, contrast)
    weight = tiny_model.network.model.layers[0].mlp.up_proj.weight
    with torch.no_grad():
        weight.mul_(2)
        try:
            again = capture(tiny_model, contrast)
        finally:
            weight.div_(2)
    assert not torch.equal(first.values, again.values)


def test_another_chat_template_is_another_measurement(
    tiny_model: LoadedModel, contrast: ContrastSet, empty_cache: Path
) -> None:
    template = tiny_model.tokenizer.chat_template
    first = capture(tiny_model, contrast)
    tiny_model.tokenizer.chat_template = template.replace("<assistant>", "here")
    try:
        assert not torch.equal(first.values, capture(tiny_model, contrast).values)
    finally:
        tiny_model.tokenizer.chat_template = template


def some_rows(lengths: list[int]) -> dict[int, list[int]]:
    return {index: [index] * length for index, length in enumerate(lengths)}


def test_padded_batches_hold_every_prompt_once_within_the_budget() -> None:
    lengths = [3, 9, 4, 4, 20, 5, 7, 7, 2, 8]
    batches = padded_batches(some_rows(lengths), 0, 16)
    assert sorted(index for batch in batches for index in batch) == list(range(10))
    for batch in batches:
        assert len(batch) == 1 or len(batch) * max(lengths[index] for index in batch) <= 16


def test_a_long_shared_prefix_makes_padded_batches_smaller() -> None:
    batches = padded_batches(some_rows([2] * 8), 64, 16)
    assert {len(batch) for batch in batches} == {2}


def test_both_classes_advance_together_even_where_one_is_longer() -> None:
    is_positive = np.arange(40) < 20
    batches = classes_together(padded_batches(some_rows([10] * 20 + [4] * 20), 0, 40), is_positive)
    assert sorted(index for batch in batches for index in batch) == list(range(40))
    positives = prompts = 0
    for batch in batches[:-1]:
        positives, prompts = positives + int(is_positive[batch].sum()), prompts + len(batch)
        assert abs(positives - (prompts - positives)) <= 10


def hooks(model: LoadedModel) -> int:
    return sum(len(module._forward_pre_hooks) + len(module._forward_hooks) for module in model.network.modules())


def fail_from(
    model: LoadedModel,
    monkeypatch: pytest.MonkeyPatch,
    tokens: int,
    failure: Callable[[], Exception] = lambda: torch.OutOfMemoryError("CUDA out of memory"),
) -> list[int]:
    """Passes over so many tokens or more fail inside the model; the tokens of all passes are noted in the result."""
    sizes: list[int] = []
    mlp = model.network.model.layers[1].mlp
    forward = mlp.forward

    def failing(hidden: Tensor) -> Tensor:
        sizes.append(hidden.shape[0] * hidden.shape[1])
        if sizes[-1] >= tokens:
            raise failure()
        return forward(hidden)

    monkeypatch.setattr(mlp, "forward", failing)
    return sizes


@dataclass(frozen=True)
class LastOfMany(Processes):
    """The last of more processes than there are prompts: the others have read them all."""

    others: tuple[object, ...] = ()

    def gather(self, item: object) -> list[object]:
        return [list(self.others), item] if isinstance(item, list) else [item]


def test_a_process_without_prompts_ends_with_the_others_activations(
    tiny_model: LoadedModel, contrast: ContrastSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = naive_values(tiny_model, contrast.prompts)
    process = LastOfMany(place=20, count=21, others=((list(range(len(contrast))), values),))
    monkeypatch.setattr("cna_core.circuits.capture.processes_for", lambda _device: process)
    for batch_tokens in (16, 10_000):
        assert torch.equal(record(tiny_model, contrast, batch_tokens=batch_tokens).values, values)


def test_kept_activations_are_found_by_the_models_name_and_revision_without_the_model(
    tiny_model: LoadedModel, empty_cache: Path
) -> None:
    contrast = ContrastSet(PromptSet("harmful", ("how do i break a lock",)), PromptSet("benign", ("bake bread",)))
    named = tiny_model.name, tiny_model.revision, tiny_model.number_format
    assert kept_activations(*named, contrast) is None
    recorded = capture(tiny_model, contrast)
    kept = kept_activations(*named, contrast)
    assert kept is not None and torch.equal(kept.values, recorded.values)
    assert kept_activations(tiny_model.name, "another", tiny_model.number_format, contrast) is None
