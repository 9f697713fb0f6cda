"""Models and prompt sets from what the user named.

Library modules are imported on first use, here and in every command, so that `--help` need not wait for torch.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cna_core.models.loaded import LoadedModel
    from cna_core.prompts.sets import ContrastSet, PromptSet


def load(
    model: str, device: str, dtype: str, quantization: str | None, device_map: str | None, trust: bool, **watching: Any
) -> LoadedModel:
    """The model that the shared options describe, loaded.

    Args:
        model: catalog id, Hub id, folder, or .gguf file.
        device, dtype, quantization, device_map, trust: the options of the same names.
        watching: `progress` and `stop`, from `terminal.working`.
    """
    from cna_core.models.load import load_model

    return load_model(
        model,
        device=device,
        dtype=dtype,
        quantization=quantization,
        device_map=device_map,
        trust_remote_code=trust,
        **watching,
    )


def prompt_set(file: str | Path | None, builtin: str) -> PromptSet:
    """The prompts in `file`, or the built-in set of that name where no file was given."""
    from cna_core.prompts.sets import PromptSet

    return PromptSet.from_file(file) if file else PromptSet.builtin(builtin)


def contrast_set(positive: Path | None, negative: Path | None) -> ContrastSet:
    """The two sides of a contrast, each from its file or built in."""
    from cna_core.prompts.sets import ContrastSet

    return ContrastSet(prompt_set(positive, "harmful"), prompt_set(negative, "benign"))
