"""Contrastive Neuron Attribution: find the neurons behind a model's refusals, and scale them.

This module exports the public names. All of them work in a notebook; the app and the command line use them too. A name
is imported when it is first used, so that `--help` does not wait for torch.
"""

import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cna_core.circuits.activations import Activations
    from cna_core.circuits.attribution import attribute
    from cna_core.circuits.capture import capture
    from cna_core.circuits.circuit import Circuit
    from cna_core.circuits.effects import Effects
    from cna_core.decoding.lanes import Lane, Step
    from cna_core.drawing import plot
    from cna_core.errors import CnaError
    from cna_core.evaluation.answer import answer
    from cna_core.evaluation.effects import explain, measure_effects
    from cna_core.evaluation.fitting import fit, generate
    from cna_core.evaluation.how_few import how_few
    from cna_core.evaluation.runs import Run
    from cna_core.evaluation.sweep import evaluate
    from cna_core.evaluation.verify import verify
    from cna_core.interventions.plan import steered
    from cna_core.models.load import load_model
    from cna_core.models.loaded import LoadedModel
    from cna_core.progress_bar import show_progress
    from cna_core.prompts.sets import ContrastSet, PromptSet

__version__ = "0.2.0"

_HOMES = {
    "Activations": "circuits.activations",
    "Circuit": "circuits.circuit",
    "CnaError": "errors",
    "ContrastSet": "prompts.sets",
    "Effects": "circuits.effects",
    "Lane": "decoding.lanes",
    "LoadedModel": "models.loaded",
    "PromptSet": "prompts.sets",
    "Run": "evaluation.runs",
    "Step": "decoding.lanes",
    "answer": "evaluation.answer",
    "attribute": "circuits.attribution",
    "capture": "circuits.capture",
    "evaluate": "evaluation.sweep",
    "explain": "evaluation.effects",
    "fit": "evaluation.fitting",
    "generate": "evaluation.fitting",
    "how_few": "evaluation.how_few",
    "load_model": "models.load",
    "measure_effects": "evaluation.effects",
    "plot": "drawing",
    "show_progress": "progress_bar",
    "steered": "interventions.plan",
    "verify": "evaluation.verify",
}

__all__ = [
    "Activations",
    "Circuit",
    "CnaError",
    "ContrastSet",
    "Effects",
    "Lane",
    "LoadedModel",
    "PromptSet",
    "Run",
    "Step",
    "answer",
    "attribute",
    "capture",
    "evaluate",
    "explain",
    "fit",
    "generate",
    "how_few",
    "load_model",
    "measure_effects",
    "plot",
    "show_progress",
    "steered",
    "verify",
]


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


if "ipykernel" in sys.modules:  # in a notebook
    __getattr__("show_progress")()
