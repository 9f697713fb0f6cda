"""Load the models and prompt sets that the options name.

Library modules are imported on first use, here and in every command, so that `--help` does not wait for torch.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from cna_core.cli.terminal import working

if TYPE_CHECKING:
    from cna_core.models.loaded import LoadedModel
    from cna_core.prompts.sets import ContrastSet, PromptSet


def load(
    model: str, device: str, dtype: str, quantization: str | None, device_map: str | None, trust: bool, **watching: Any
) -> LoadedModel:
    """Load the model that the shared options describe.

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


def prompt_set(source: str | None, builtin: str) -> PromptSet:
    """The prompts of a file or a public set, or, if `source` is None, the built-in set with this name.

    A public set's license and source are printed to stderr.
    """
    from cna_core.prompts.public import find_public
    from cna_core.prompts.public_catalog import PREFIX
    from cna_core.prompts.sets import PromptSet

    if source is None:
        return PromptSet.builtin(builtin)
    with working() as watching:
        prompts = PromptSet.named(source, **watching)
    if source.startswith(PREFIX):
        copy = find_public(source)
        sys.stderr.write(f"{copy.known.title} · {copy.credit}\n")
    return prompts


def contrast_set(positive: str | None, negative: str | None) -> ContrastSet:
    """A contrast set, each side from a file, a public set or the built-in set."""
    from cna_core.prompts.sets import ContrastSet

    return ContrastSet(prompt_set(positive, "harmful"), prompt_set(negative, "benign"))
