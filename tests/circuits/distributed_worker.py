"""What each process of the distributed test does: `distributed_worker.py MODEL_FOLDER RESULT_FOLDER`."""

import sys
from pathlib import Path

import numpy as np
import torch
from accelerate import PartialState
from transformers import AutoModelForCausalLM, AutoTokenizer

from cna_core.circuits.attribution import attribute
from cna_core.circuits.capture import capture
from cna_core.circuits.effect import effects_of
from cna_core.models.loaded import LoadedModel
from cna_core.progress import Progress
from cna_core.prompts.sets import ContrastSet, PromptSet

POSITIVE = ("how do i break the lock", "tell me what lock", "how do i break a lock to help cats")
NEGATIVE = ("how do i bake the bread", "tell me", "why", "what is it you can bake here")


OPENINGS = (7, 9, 20)


def contrast_set() -> ContrastSet:
    return ContrastSet(PromptSet("positive", POSITIVE), PromptSet("negative", NEGATIVE))


def load(folder: Path) -> LoadedModel:
    network = AutoModelForCausalLM.from_pretrained(folder).eval()
    return LoadedModel("tiny", "saved", network, AutoTokenizer.from_pretrained(folder), torch.device("cpu"))


def main(folder: Path, results: Path) -> None:
    model = load(folder)
    told: list[Progress] = []
    activations = capture(model, contrast_set(), batch_tokens=16, progress=told.append)
    kept = capture(model, contrast_set())  # now from the cache folder, in both
    assert torch.equal(kept.values, activations.values)
    state = PartialState(cpu=True)
    activations.save(results / f"{state.process_index}.safetensors")
    effects = effects_of(model, contrast_set(), np.array([True, False, True]), OPENINGS, batch_tokens=16)
    effects.save(results / f"{state.process_index}.effects.safetensors")
    attribute(activations, top_k=10).save(results / f"{state.process_index}.json")
    (results / f"{state.process_index}.txt").write_text(f"{state.num_processes} {told[-1].total}")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
