"""The layer profile on the Gate page: what ablating each layer changes, beside where the circuit's neurons sit."""

from cna_core.circuits.circuit import Circuit
from cna_core.evaluation.profile import CausalProfile
from pages.common import layer_profile
from pages.inspecting import linked

ACTS, MASS = "acts", "mass"
BESIDE = {ACTS: "Layers ablated", MASS: "|δ| in each layer"}
"""What to draw beside the circuit's neurons, once layers were ablated."""


def offer(circuit: Circuit) -> None:
    """Draw the measurement's state, and once it has results, the choice to show them."""
    layer_profile.offer(circuit)
    if layer_profile.known(circuit) is not None:
        linked.choose("Beside the circuit's neurons", BESIDE, "beside")


def in_words(profile: CausalProfile) -> str:
    """The measurement in words: the effect of the whole circuit, and the layers with the largest effect alone."""
    layers = ", ".join(f"{layer} ({change:+.2f})" for layer, change in profile.strongest(3))
    whole = profile.whole_change
    return (
        f"Dots: the change in the chance of a refusal ({profile.baseline.mean():.2f} over {profile.prompts} prompts) "
        "when only this layer's part of the circuit is ablated, with 95 % intervals. Grey: the same number of random "
        f"neurons. Largest effects: layers {layers}. All layers together: {whole.value:+.2f} "
        f"({whole.low:+.2f} to {whole.high:+.2f})."
    )
