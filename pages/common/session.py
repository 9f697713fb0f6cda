"""What this browser session has chosen in the sidebar: the model and how it is loaded, and the prompts.

The choices live in the sidebar's widgets, which are bound to the address: a shared link restores them. Everything else
is looked up from them, so nothing has to be kept in step.
"""

from typing import Any

import streamlit as st

from cna_core.prompts.public_catalog import PREFIX
from cna_core.prompts.sets import ContrastSet
from pages.common import keys, own_prompts

BUILT_IN = "built-in"


def model_name() -> str:
    """The chosen model: a catalog id, Hub id, folder or .gguf file."""
    return str(st.session_state.get(keys.MODEL, ""))


def load_options() -> dict[str, Any]:
    """How the chosen model is to be loaded, as keyword arguments of `load_model`."""
    quantization = st.session_state.get(keys.QUANTIZATION, "none")
    return {
        "dtype": st.session_state.get(keys.DTYPE, "auto"),
        "quantization": None if quantization == "none" else quantization,
        "trust_remote_code": bool(st.session_state.get(keys.TRUST_REMOTE_CODE, False)),
    }


def only_triggered() -> bool:
    """Whether prompts are left out that do not do what their set says."""
    return bool(st.session_state.get(keys.TRIGGERED, False))


def contrast() -> ContrastSet:
    """The chosen contrast set.

    Raises:
        PromptError: the session's own prompts are not there (any more), or a public set cannot be fetched.
    """
    chosen = str(st.session_state.get(keys.PROMPTS, BUILT_IN))
    if chosen.startswith(PREFIX):
        return ContrastSet.public(chosen)
    return ContrastSet.builtin() if chosen == BUILT_IN else own_prompts.contrast(chosen)
