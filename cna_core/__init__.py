"""Contrastive Neuron Attribution: find the neurons behind a model's refusal, and turn them down, off, or up.

The public names, nothing else. Everything here works in a notebook; the app and the command line are built on it.
"""

from cna_core.circuits.activations import Activations
from cna_core.circuits.attribution import attribute
from cna_core.circuits.capture import capture
from cna_core.circuits.circuit import Circuit
from cna_core.errors import CnaError
from cna_core.evaluation.sweep import evaluate
from cna_core.models.load import load_model
from cna_core.models.loaded import LoadedModel
from cna_core.prompts.sets import ContrastSet, PromptSet
from cna_core.steering.hooks import steered
from cna_core.steering.lanes import Lane, Step, generate

__all__ = [
    "Activations",
    "Circuit",
    "CnaError",
    "ContrastSet",
    "Lane",
    "LoadedModel",
    "PromptSet",
    "Step",
    "attribute",
    "capture",
    "evaluate",
    "generate",
    "load_model",
    "steered",
]
