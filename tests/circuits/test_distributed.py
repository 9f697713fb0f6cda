"""Beyond one process and one device: the result is that of one process on one device."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate import cpu_offload, disk_offload

from cna_core.circuits.activations import Activations
from cna_core.circuits.attribution import attribute
from cna_core.circuits.capture import capture
from cna_core.circuits.circuit import Circuit
from cna_core.circuits.effect import effects_of
from cna_core.circuits.effects import Effects
from cna_core.circuits.processes import Processes
from cna_core.interventions.plan import steered
from cna_core.models.load import load_model
from cna_core.models.loaded import LoadedModel
from tests.circuits import distributed_worker
from tests.circuits.distributed_worker import OPENINGS, contrast_set
from tests.models.test_architectures import batch, logits, scattered_circuit


@pytest.fixture(scope="module")
def folder(tiny_model: LoadedModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model, saved."""
    folder = tmp_path_factory.mktemp("tiny")
    tiny_model.network.save_pretrained(folder)
    tiny_model.tokenizer.save_pretrained(folder)
    return folder


def test_two_processes_find_the_circuit_of_one(folder: Path, tmp_path: Path) -> None:
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    settings = {"CNA_HOME": str(tmp_path / "cache"), "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path.cwd())}
    run = subprocess.run(
        [*launcher, distributed_worker.__file__, str(folder), str(tmp_path)],
        env={**os.environ, **settings}, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr[-2000:]
    alone = capture(distributed_worker.load(folder), contrast_set(), use_cache=False)
    expected = attribute(alone, top_k=10)
    effects = measured(distributed_worker.load(folder))
    shares = []
    for process in (0, 1):
        processes, share = (tmp_path / f"{process}.txt").read_text().split()
        assert processes == "2"
        shares.append(int(share))
        activations = Activations.load(tmp_path / f"{process}.safetensors")
        torch.testing.assert_close(activations.values, alone.values, rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(activations.delta, alone.delta, rtol=1e-4, atol=1e-6)
        shared = Effects.load(tmp_path / f"{process}.effects.safetensors")
        torch.testing.assert_close(shared.values, effects.values, rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(shared.log_odds, effects.log_odds, rtol=1e-4, atol=1e-5)
        circuit = Circuit.load(tmp_path / f"{process}.json")
        assert circuit.flat.tolist() == expected.flat.tolist()
    assert sorted(shares) == [3, 4]


def measured(model: LoadedModel) -> Effects:
    return effects_of(model, contrast_set(), np.array([True, False, True]), OPENINGS, use_cache=False)


def test_items_are_shared_out_whole_and_evenly() -> None:
    items = list(range(10))
    shares = [Processes(place, 4).share(items) for place in range(4)]
    assert sorted(item for share in shares for item in share) == items
    assert {len(share) for share in shares} == {2, 3}


def test_one_process_gathers_its_own_item() -> None:
    assert Processes().gather("mine") == ["mine"]


def forced_to_disk(folder: Path, scratch: Path) -> LoadedModel:
    """So little room that the layers go to disk, as `device_map="auto"` decides."""
    return load_model(str(folder), device="cpu", dtype="float32", device_map="auto", max_memory={"cpu": 20_000})


def offloaded_to_disk(folder: Path, scratch: Path) -> LoadedModel:
    model = distributed_worker.load(folder)
    disk_offload(model.network, scratch / "weights", execution_device=torch.device("cpu"))
    return model


def offloaded_to_cpu(folder: Path, scratch: Path) -> LoadedModel:
    model = distributed_worker.load(folder)
    cpu_offload(model.network, execution_device=torch.device("cpu"))
    return model


@pytest.mark.parametrize("load", [forced_to_disk, offloaded_to_disk, offloaded_to_cpu])
def test_offloaded_weights_give_the_same_activations_effects_and_steering(
    folder: Path, tmp_path: Path, empty_cache: Path, load: Callable[[Path, Path], LoadedModel]
) -> None:
    at_home, away = distributed_worker.load(folder), load(folder, tmp_path)
    assert any(parameter.device.type == "meta" for parameter in away.network.parameters())
    expected = capture(at_home, contrast_set(), use_cache=False)
    values = capture(away, contrast_set(), use_cache=False).values
    torch.testing.assert_close(values, expected.values, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(measured(away).values, measured(at_home).values, rtol=1e-4, atol=1e-6)
    rows = batch(at_home)
    with steered(at_home, scattered_circuit(at_home), [0.0, 1.0, 2.0]):
        steered_at_home = logits(at_home.network, rows)
    with steered(away, scattered_circuit(away), [0.0, 1.0, 2.0]):
        torch.testing.assert_close(logits(away.network, rows), steered_at_home, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(logits(away.network, rows), logits(at_home.network, rows), rtol=1e-4, atol=1e-5)
