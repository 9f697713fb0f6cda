"""Where the circuit acts, beside where it lies: the layer profile as the Gate page shows it."""

from cna_core.circuits.circuit import Circuit
from cna_core.evaluation.profile import CausalProfile
from pages.common import layer_profile
from pages.inspecting import linked

ACTS, MASS = "acts", "mass"
BESIDE = {ACTS: "Where it acts", MASS: "Where |δ| lies"}
"""What is drawn beside the circuit's neurons, once the first was measured."""


def offer(circuit: Circuit) -> None:
    """The measurement, as far as it is; and once there is something to see of it, the choice to see it."""
    layer_profile.offer(circuit)
    if layer_profile.known(circuit) is not None:
        linked.choose("Beside the circuit's neurons", BESIDE, "beside")


def in_words(profile: CausalProfile) -> str:
    """What the measurement says: the whole circuit, and the layers that do most by themselves."""
    layers = ", ".join(f"{layer} ({change:+.2f})" for layer, change in profile.strongest(3))
    whole = profile.whole_change
    return (
        f"Dots: how far the chance of a refusal ({profile.baseline.mean():.2f} over {profile.prompts} prompts) moves "
        "when only that layer's part of the circuit is ablated, with its 95 % interval; grey: as many random neurons. "
        f"Strongest alone: layers {layers}. All together: {whole.value:+.2f} ({whole.low:+.2f} to {whole.high:+.2f})."
    )
