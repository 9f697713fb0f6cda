"""Keeps evaluation and discovery apart: prompts with which a circuit was found are removed from evaluation sets.

Pure functions of prompts; this module knows no models.
"""

from collections.abc import Iterable, Mapping

from cna_core.circuits.activations import Activations
from cna_core.circuits.circuit import Circuit
from cna_core.errors import RunError
from cna_core.evaluation.runs import SetName
from cna_core.prompts.sets import ContrastSet, PromptSet


def discovery_prompts(
    circuit: Circuit, activations: Activations | None, contrast: ContrastSet | None
) -> tuple[str, ...]:
    """The prompts with which a circuit was found, as far as known; a circuit file has only their hash.

    Args:
        activations: the activations from which it was selected.
        contrast: the prompts with which it may have been found; None: the built-in set.
    """
    if activations is not None:
        return (*activations.positive, *activations.negative)
    known = contrast or ContrastSet.builtin()
    return known.prompts if known.sha256 == circuit.prompts.sha256 else ()


def held_out(
    sets: Mapping[SetName, PromptSet], discovery: Iterable[str]
) -> tuple[dict[SetName, PromptSet], tuple[str, ...]]:
    """The sets without the prompts in `discovery`, and a sentence for each set that lost some.

    Prompts are compared without case, white space and punctuation.

    Raises:
        RunError: a set would become empty.
    """
    used = tuple(discovery)
    kept: dict[SetName, PromptSet] = {}
    notes = []
    for kind, prompts in sets.items():
        shared = set(prompts.places_in(used))
        places = [place for place in range(len(prompts)) if place not in shared]
        if not places:
            raise RunError(
                f"The circuit was found with all {len(prompts)} {kind} prompts ({prompts.name}): evaluate on other "
                "prompts, or find the circuit with others."
            )
        kept[kind] = prompts.at(places) if shared else prompts
        if shared:
            notes.append(
                f"The circuit was found with {len(shared)} of the {len(prompts)} {kind} prompts ({prompts.name}): "
                "the evaluation skips them."
            )
    return kept, tuple(notes)
