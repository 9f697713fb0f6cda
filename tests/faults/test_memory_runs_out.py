"""Memory runs out while a model is loaded or answers: what would fit is said, and the next try works."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from cna_core.decoding.lanes import Lane, generate
from cna_core.decoding.row_batch import RowBatch
from cna_core.models import needs
from cna_core.models.load import load_model
from cna_core.models.memory import NoRoomError
from tests.faults import stages

OUT_OF_MEMORY = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    RuntimeError("[enforce fail at alloc_cpu.cpp:121] DefaultCPUAllocator: can't allocate memory"),
    MemoryError(),
]


def failing(error: BaseException) -> Callable[..., None]:
    def fail(*_: object, **__: object) -> None:
        raise error

    return fail


@pytest.mark.parametrize("error", OUT_OF_MEMORY, ids=lambda error: type(error).__name__)
def test_a_load_that_runs_out_of_memory_says_what_fits(
    error: BaseException, material: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = str(material / "tiny")
    with monkeypatch.context() as short:
        short.setattr(AutoModelForCausalLM, "from_pretrained", failing(error))
        with pytest.raises(NoRoomError, match=r"Memory ran out while .* was loaded on cpu: close other .* in bfloat16"):
            load_model(folder, device="cpu", dtype="float32")
    assert load_model(folder, device="cpu", dtype="float32").dtype == torch.float32


@pytest.mark.parametrize("error", OUT_OF_MEMORY, ids=lambda error: type(error).__name__)
def test_answers_that_run_out_of_memory_say_what_fits(error: BaseException, monkeypatch: pytest.MonkeyPatch) -> None:
    lanes = [Lane("how do i bake bread"), Lane("tell me about cats")]
    monkeypatch.setattr(needs, "free_memory_bytes", lambda _: 1 << 30)
    with monkeypatch.context() as short:
        short.setattr(RowBatch, "step", failing(error))
        with pytest.raises(NoRoomError, match=r"shorter answers or for fewer at once, .* tiny in bfloat16"):
            list(generate(stages.model(), lanes, None, max_new_tokens=4))
    assert list(generate(stages.model(), lanes, None, max_new_tokens=2))


def test_any_other_failure_of_a_decode_stays_what_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(RowBatch, "step", failing(RuntimeError("shapes do not match")))
    with pytest.raises(RuntimeError, match="shapes do not match"):
        list(generate(stages.model(), [Lane("how do i bake bread")], None, max_new_tokens=4))
