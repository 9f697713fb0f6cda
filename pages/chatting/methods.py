"""The methods of a chat: the chosen one, and a cache of methods fitted to the models in memory, for all sessions."""

import hashlib
from typing import Any

import streamlit as st

from cna_core.circuits.activations import Activations
from cna_core.circuits.circuit import Circuit
from cna_core.evaluation.fitting import fit
from cna_core.interventions import registry
from cna_core.interventions.intervention import Intervention
from cna_core.models.loaded import LoadedModel
from cna_core.prompts.sets import ContrastSet
from pages.common import jobs, keys
from pages.common.recent import Recent

METHODS_KEPT = 24

_fitted: Recent[Intervention] = Recent(METHODS_KEPT)


def chosen_method() -> str:
    """The key of the steered answer's method."""
    chosen = str(st.session_state.get(keys.METHOD) or registry.DEFAULT_METHOD)
    return chosen if chosen in {method.key for method in registry.methods()} else registry.DEFAULT_METHOD


def fitted(
    model: LoadedModel,
    key: str,
    circuit: Circuit,
    contrast: ContrastSet,
    activations: Activations | None,
    job: jobs.Job | None = None,
) -> Intervention:
    """The method fitted to this model, now or earlier by any session. The caller holds the model.

    Raises:
        CircuitError: the method cannot be fitted to this circuit or model.
        StoppedError: the job was stopped.
    """
    place = _place(model, key, circuit, contrast)
    known = _fitted.get(place)
    if known is None:
        watching: dict[str, Any] = {"progress": job.progress, "stop": job.stop} if job else {}
        known = fit(model, key, circuit, contrast, activations=activations, **watching)
        _fitted.put(place, known)
    return known


def fitted_earlier(model: LoadedModel, key: str, circuit: Circuit, contrast: ContrastSet) -> Intervention | None:
    """The method fitted to this model, if it was fitted before or needs no prompts; otherwise None."""
    known = _fitted.get(_place(model, key, circuit, contrast))
    if known is None and not registry.method(key).uses_prompts:
        return fitted(model, key, circuit, contrast, None)
    return known


def _place(model: LoadedModel, key: str, circuit: Circuit, contrast: ContrastSet) -> str:
    about = (model.identity.model_dump_json(), key, circuit.sha256, contrast.sha256)
    return hashlib.sha256("\n".join(about).encode()).hexdigest()
