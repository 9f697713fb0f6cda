"""The choices of this browser session: the model, how it is loaded, and the prompts.

They are stored in the sidebar's widgets, which are bound to the address, so a shared link restores them. Everything
else is derived from them.
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
    """The options for loading the chosen model, as keyword arguments of `load_model`."""
    quantization = st.session_state.get(keys.QUANTIZATION, "none")
    return {
        "dtype": st.session_state.get(keys.DTYPE, "auto"),
        "quantization": None if quantization == "none" else quantization,
        "trust_remote_code": bool(st.session_state.get(keys.TRUST_REMOTE_CODE, False)),
    }


def only_triggered() -> bool:
    """Whether to leave out positive prompts that the model answers, and negative ones that it refuses."""
    return bool(st.session_state.get(keys.TRIGGERED, False))


def contrast() -> ContrastSet:
    """The chosen contrast set.

    Raises:
        PromptError: the user's own prompts are not on this machine, or a public set cannot be downloaded.
    """
    chosen = str(st.session_state.get(keys.PROMPTS, BUILT_IN))
    if chosen.startswith(PREFIX):
        return ContrastSet.public(chosen)
    return ContrastSet.builtin() if chosen == BUILT_IN else own_prompts.contrast(chosen)
