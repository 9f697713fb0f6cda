"""Keeps evaluation apart from discovery: prompts that a circuit was found with are left out of what it is measured on.

Functions of prompts; knows no model.
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
    """The prompts that a circuit was found with, as far as they are known; a circuit file has only their hash.

    Args:
        activations: what it was selected from.
        contrast: what it may have been found with; None: the built-in set.
    """
    if activations is not None:
        return (*activations.positive, *activations.negative)
    known = contrast or ContrastSet.builtin()
    return known.prompts if known.sha256 == circuit.prompts.sha256 else ()


def held_out(
    sets: Mapping[SetName, PromptSet], discovery: Iterable[str]
) -> tuple[dict[SetName, PromptSet], tuple[str, ...]]:
    """The sets without the prompts that are among `discovery`, and a sentence on each set that lost some.

    Two prompts are the same whatever their case, white space and punctuation.

    Raises:
        RunError: nothing of a set is left.
    """
    used = tuple(discovery)
    kept: dict[SetName, PromptSet] = {}
    notes = []
    for kind, prompts in sets.items():
        shared = set(prompts.places_in(used))
        places = [place for place in range(len(prompts)) if place not in shared]
        if not places:
            raise RunError(
                f"The circuit was found with all {len(prompts)} {kind} prompts ({prompts.name}): evaluate it on other "
                "prompts, or find it with others."
            )
        kept[kind] = prompts.at(places) if shared else prompts
        if shared:
            notes.append(
                f"The circuit was found with {len(shared)} of the {len(prompts)} {kind} prompts ({prompts.name}): "
                "they are left out of the evaluation."
            )
    return kept, tuple(notes)
