"""Two readers at once record what one records, and end together."""

import threading
from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor, nn

from cna_core.circuits import readers
from cna_core.circuits.capture import capture
from cna_core.circuits.prefix import Prefix
from cna_core.circuits.readers import Readers, readers_at_once
from cna_core.errors import ModelError, StoppedError
from cna_core.models.loaded import LoadedModel
from cna_core.progress import Report, Stage
from cna_core.prompts.sets import ContrastSet, PromptSet
from tests.circuits.naive import naive_values

CONTRAST = ContrastSet(
    PromptSet("positive", ("how do i break the lock", "tell me what lock", "how do i break a lock to help", "break")),
    PromptSet("negative", ("how do i bake the bread", "tell me", "why", "what is it you can bake here", "cats")),
)
SMALL, LARGE = 16, 2_000
"""Tokens of a batch: for several batches a reader, and for one."""


@pytest.fixture(autouse=True)
def two_readers(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(readers, "FEWEST_TOKENS", 1)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def networks(monkeypatch: pytest.MonkeyPatch) -> set[int]:
    """Ids of the networks that readers have read with."""
    seen: set[int] = set()
    read = Readers._read

    def noted(self: Readers, model: LoadedModel, *given: object) -> Tensor | None:
        seen.add(id(model.network))
        return read(self, model, *given)  # type: ignore[arg-type]

    monkeypatch.setattr(Readers, "_read", noted)
    return seen


def record(
    model: LoadedModel, tokens: int, progress: Report | None = None, stop: threading.Event | None = None
) -> Tensor:
    return capture(model, CONTRAST, batch_tokens=tokens, use_cache=False, progress=progress, stop=stop).values


def expected(model: LoadedModel) -> Tensor:
    return naive_values(model, CONTRAST.prompts)


@pytest.fixture
def on_pass(tiny_model: LoadedModel) -> Iterator[Callable[[Callable[[Tensor], None]], None]]:
    """Has something done with the hidden states that come by the second layer's MLP, whoever reads."""
    handles = []

    def add(act: Callable[[Tensor], None]) -> None:
        def hook(_module: nn.Module, inputs: tuple[Tensor]) -> None:
            act(inputs[0])

        handles.append(tiny_model.network.model.layers[1].mlp.register_forward_pre_hook(hook))

    yield add
    for handle in handles:
        handle.remove()


@pytest.mark.parametrize("tokens", [1, SMALL, LARGE], ids=["one-by-one", "small-batches", "one-batch-each"])
def test_two_readers_record_what_one_does(tiny_model: LoadedModel, networks: set[int], tokens: int) -> None:
    torch.testing.assert_close(record(tiny_model, tokens), expected(tiny_model), rtol=1e-4, atol=1e-6)
    assert len(networks) == 2 and id(tiny_model.network) in networks
    assert torch.get_num_threads() == 2
    assert not any(module._forward_pre_hooks for module in tiny_model.network.modules())


def test_each_reader_has_its_share_of_the_threads(tiny_model: LoadedModel, on_pass: Callable[..., None]) -> None:
    shares: list[int] = []
    on_pass(lambda _hidden: shares.append(torch.get_num_threads()))
    record(tiny_model, SMALL)
    assert set(shares) == {1}
    assert torch.get_num_threads() == 2


def test_without_trees_too(tiny_model: LoadedModel, networks: set[int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cna_core.circuits.capture.reads_trees", lambda *_: False)
    torch.testing.assert_close(record(tiny_model, LARGE), expected(tiny_model), rtol=1e-4, atol=1e-6)
    assert len(networks) == 2


def test_the_prefix_is_read_once(tiny_model: LoadedModel, on_pass: Callable[..., None]) -> None:
    sizes: list[int] = []
    on_pass(lambda hidden: sizes.append(hidden.shape[1]))
    record(tiny_model, LARGE)
    two, sizes[:] = list(sizes), []
    torch.set_num_threads(1)
    record(tiny_model, LARGE)
    assert len(two) == 2 and len(sizes) == 1
    first_tokens_of_a_suffix = 5  # may stand in both trees
    assert sizes[0] <= sum(two) <= sizes[0] + first_tokens_of_a_suffix
    assert max(two) - min(two) <= 10  # longest prompt


def test_memory_running_short_halves_the_batches(tiny_model: LoadedModel, on_pass: Callable[..., None]) -> None:
    told: list[Stage] = []

    def fail(hidden: Tensor) -> None:
        if hidden.shape[1] >= 16:
            raise torch.OutOfMemoryError("out of memory")

    on_pass(fail)
    values = record(tiny_model, LARGE, progress=lambda progress: told.append(progress.stage))
    torch.testing.assert_close(values, expected(tiny_model), rtol=1e-4, atol=1e-6)
    assert told[-1] is Stage.CAPTURING_IN_HALVES


@pytest.mark.parametrize("prompts", [1, 4], ids=["one-prompt-each", "several"])
def test_a_lost_prefix_is_brought_again(
    tiny_model: LoadedModel, on_pass: Callable[..., None], monkeypatch: pytest.MonkeyPatch, prompts: int
) -> None:
    brought, failures = Prefix.brought, []
    bringing = threading.local()

    def noted(self: Prefix) -> object:
        bringing.now = True
        return brought(self)

    def fail(_hidden: Tensor) -> None:
        if getattr(bringing, "now", False) and not failures:
            failures.append(True)
            raise torch.OutOfMemoryError("out of memory")

    monkeypatch.setattr(Prefix, "brought", noted)
    on_pass(fail)
    few = ContrastSet(*(PromptSet(one.name, one.prompts[:prompts]) for one in (CONTRAST.positive, CONTRAST.negative)))
    values = capture(tiny_model, few, batch_tokens=LARGE, use_cache=False).values
    torch.testing.assert_close(values, naive_values(tiny_model, few.prompts), rtol=1e-4, atol=1e-6)
    assert failures


def test_a_single_prompt_that_does_not_fit_is_an_error(tiny_model: LoadedModel, on_pass: Callable[..., None]) -> None:
    def fail(_hidden: Tensor) -> None:
        raise torch.OutOfMemoryError("out of memory")

    on_pass(fail)
    for tokens in (1, LARGE):
        with pytest.raises(ModelError, match="too little memory for a single prompt"):
            record(tiny_model, tokens)


def test_other_failures_end_both(tiny_model: LoadedModel, on_pass: Callable[..., None]) -> None:
    def fail(_hidden: Tensor) -> None:
        raise ValueError("shape mismatch")

    on_pass(fail)
    with pytest.raises(ValueError, match="shape mismatch"):
        record(tiny_model, LARGE)


def test_stop_ends_both(tiny_model: LoadedModel, on_pass: Callable[..., None]) -> None:
    stop, passes = threading.Event(), []

    def note(_hidden: Tensor) -> None:
        passes.append(True)
        stop.set()

    on_pass(note)
    with pytest.raises(StoppedError):
        record(tiny_model, SMALL, stop=stop)
    reached = len(passes)
    assert reached <= 2
    stop.wait(0.05)
    assert len(passes) == reached  # nobody reads on


def test_one_reader_where_two_would_not_help_or_not_work(
    tiny_model: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(readers, "FEWEST_TOKENS", 100)
    assert readers_at_once(tiny_model, 200) == 2
    assert readers_at_once(tiny_model, 199) == 1
    torch.set_num_threads(1)
    assert readers_at_once(tiny_model, 200) == 1
    torch.set_num_threads(2)
    mlp = tiny_model.network.model.layers[0].mlp
    monkeypatch.setattr(mlp, "forward", mlp.forward)  # as accelerate does it
    assert readers_at_once(tiny_model, 200) == 1
