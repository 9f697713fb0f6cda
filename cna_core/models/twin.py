"""A second instance of a loaded model on the same weights: `twin`.

Hooks sit on modules, so that two threads that read one network would see and change each other's passes. A twin's
modules are its own; its weights, buffers and prepacked weights are the very tensors of the first, and take no memory.
"""

import copy
from dataclasses import replace
from itertools import chain

from cna_core.models.loaded import LoadedModel
from cna_core.models.prepacked import packed_weights


def can_have_twin(model: LoadedModel) -> bool:
    """Whether the modules can be copied: not where a library put a forward of its own on one (accelerate, which moves
    weights about), nor where weights are quantised (their modules keep more than tensors)."""
    patched = any("forward" in vars(module) for module in model.network.modules())
    return not patched and getattr(model.network.config, "quantization_config", None) is None


def twin(model: LoadedModel) -> LoadedModel:
    """The model once more, as it is now: a weight that is put in another's place later is in one of the two only.

    Only where `can_have_twin`.
    """
    shared = chain(model.network.parameters(), model.network.buffers(), packed_weights(model.network))
    network = copy.deepcopy(model.network, {id(tensor): tensor for tensor in shared})
    return replace(model, network=network, neuron_layers=())  # which are found anew
