"""Circuit files: the format cna-circuit/1, and the JSON that NousResearch/neural-steering writes.

This module turns text into validated values and back.
"""

import math
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from cna_core.errors import CircuitError
from cna_core.models.layout import MOST_LAYERS, ModelIdentity
from cna_core.outside import LARGEST_COUNT, Count, Finite, Line, first_problem, read_json
from cna_core.shown import shown

FORMAT = "cna-circuit/1"
LARGEST_FILE_BYTES = 64 * 1024 * 1024
"""About 400,000 neurons, more than 2 % of any model in the catalog. A larger file is rejected before it is parsed."""

Score = Literal["delta", "effect-size", "attribution-patching"]


class EffectSettings(BaseModel):
    """How the effects of neurons are measured; the descriptions are the help texts."""

    model_config = ConfigDict(frozen=True)

    layers: Literal["first-two-thirds", "all"] = Field(
        default="first-two-thirds",
        description="the layers whose neurons are measured; the last layers can change little but the next token",
    )
    positions: Literal["all", "last"] = Field(
        default="all", description="multiply the neurons at all tokens of the prompt, or only at its last token"
    )
    contrast: bool = Field(default=False, description="the mean effect on positive prompts minus that on negative ones")
    steps: int = Field(
        default=1,
        ge=1,
        le=100,
        description="1: the gradient at multiplier 1; more: its mean over this many points between 1 and 0, at which "
        "all neurons of the measured layers are multiplied together (integrated gradients)",
    )
    metric: Literal["first-token", "prefix"] = Field(
        default="first-token",
        description="first-token: the log-odds that the answer's first token opens a refusal; prefix: the mean "
        "log-probability of the first tokens of the model's own refusal minus that of its own compliance",
    )


class CircuitSettings(BaseModel):
    """How a circuit is selected from activations or effects; the descriptions are the help texts."""

    model_config = ConfigDict(frozen=True)

    score: Score = Field(
        default="delta",
        description="rank by |δ|, by |effect size| (δ over the pooled standard deviation), or by attribution patching "
        "(the effect on refusal, most negative first)",
    )
    fraction: float | None = Field(
        default=0.001, gt=0, le=1, description="share of all neurons; ignored if top_k is given"
    )
    top_k: int | None = Field(default=None, ge=1, le=LARGEST_COUNT, description="number of neurons")
    skip_layers: int = Field(
        default=0, ge=0, le=MOST_LAYERS, description="number of first layers left out of the ranking"
    )
    universal_threshold: float | None = Field(
        default=0.8, gt=0, le=1, description="share of prompts; None includes universal neurons"
    )
    universal_fraction: float = Field(
        default=0.001, gt=0, le=1, description="share of all neurons that counts as active on a prompt"
    )
    effect: EffectSettings | None = Field(
        default=None, description="how effects were measured, if the score is attribution-patching"
    )
    transferred_from: Line | None = Field(
        default=None, description="the model on which the circuit was found, if it was transferred to another one"
    )


class CircuitPrompts(BaseModel):
    """The contrast set that a circuit was found with: its sizes and hash, not the prompts."""

    model_config = ConfigDict(frozen=True)

    positive: Count
    negative: Count
    sha256: Line


class NeuronEntry(BaseModel):
    """A neuron of a saved circuit; None for unknown values (random circuits, files of other tools)."""

    layer: Count
    neuron: Count
    delta: Finite | None
    positive_mean: Finite | None = None
    negative_mean: Finite | None = None
    effect_size: Finite | None = None
    effect: Finite | None = None


class CircuitFile(BaseModel):
    """A whole file of format cna-circuit/1; neurons in rank order."""

    format: Literal["cna-circuit/1"] = "cna-circuit/1"
    model: ModelIdentity
    settings: CircuitSettings
    prompts: CircuitPrompts
    neurons: list[NeuronEntry] = Field(min_length=1)

    @model_validator(mode="after")
    def _fits_its_model(self) -> "CircuitFile":
        widths = self.model.layout.widths
        if len(widths) != self.model.layers or min(widths, default=0) < 1:
            raise ValueError("the model's layers and neurons_per_layer do not agree")
        seen = {(entry.layer, entry.neuron) for entry in self.neurons}
        for layer, neuron in seen:
            if layer >= len(widths) or neuron >= widths[layer]:
                raise ValueError(f"neuron {neuron} of layer {layer} is outside the model")
        if len(seen) != len(self.neurons):
            raise ValueError("a neuron is listed twice")
        return self

    def to_json(self) -> str:
        """The file's text; fields for effects and transfers only if the circuit has them."""
        settings = {name for name in ("effect", "transferred_from") if getattr(self.settings, name) is None}
        figures = {"effect"} if all(entry.effect is None for entry in self.neurons) else set()
        return self.model_dump_json(exclude={"settings": settings, "neurons": {"__all__": figures}})


def read_text(path: Path) -> str:
    """The text of a circuit file.

    Raises:
        CircuitError: there is no such file, it is larger than `LARGEST_FILE_BYTES`, or it is not UTF-8 text.
    """
    try:
        if path.stat().st_size > LARGEST_FILE_BYTES:
            raise CircuitError(_too_large(path.name))
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise CircuitError(f"{path.name} is not a circuit, because it is not UTF-8; choose a JSON file.") from error
    except OSError as error:
        raise CircuitError(f"{path} cannot be read ({error.strerror or error}); choose another file.") from error


def parse(text: str | bytes, model: ModelIdentity | None = None, name: str = "The file") -> CircuitFile:
    """A circuit file's content, validated.

    Args:
        text: the content; bytes are read as UTF-8.
        model: the model that a neural-steering circuit belongs to; not used for cna-circuit/1.
        name: the file's name in errors.

    Raises:
        CircuitError: the file is too large, not JSON, of an unknown format or version, or has invalid values.
    """
    name = shown(name)
    if len(text) > LARGEST_FILE_BYTES:
        raise CircuitError(_too_large(name))
    try:
        content = read_json(text)
    except ValueError as error:
        raise CircuitError(f"{name} is damaged or not JSON; choose a circuit file.") from error
    if isinstance(content, dict) and "format" not in content and isinstance(content.get("neurons"), dict):
        return _from_neural_steering(content["neurons"], model, name)
    version = content.get("format") if isinstance(content, dict) else None
    if version != FORMAT:
        raise CircuitError(_unknown_format(version, name))
    try:
        return CircuitFile.model_validate(content)
    except ValidationError as error:
        raise CircuitError(f"{name} is not a valid circuit: {first_problem(error)}; save it again.") from error


def _too_large(name: str) -> str:
    megabytes = LARGEST_FILE_BYTES // 1024**2
    return f"{name} is larger than {megabytes} MB, so it is not a circuit; choose a circuit's JSON file."


def _unknown_format(version: Any, name: str) -> str:
    if isinstance(version, str) and version.startswith("cna-circuit/"):
        return f"{name} has format {version[:40]}, but this app reads {FORMAT}; update the app or save it again."
    if isinstance(version, str) and version.startswith("cna-"):
        return f"{name} contains {version[:40]}, not a circuit; choose a file of format {FORMAT}."
    return f"{name} is not a circuit, because it has no format; choose a file of format {FORMAT}."


def _from_neural_steering(neurons: dict[str, Any], model: ModelIdentity | None, name: str) -> CircuitFile:
    """Read `{"layer,position,neuron": value}`; a neuron at several positions counts once, with its largest |value|."""
    if model is None:
        raise CircuitError(f"{name} was written by neural-steering and does not name its model; load the model first.")
    invalid = f"{name} is not a valid neural-steering circuit"
    values: dict[tuple[int, int], float] = {}
    for key, value in neurons.items():
        try:
            layer, _position, neuron = (int(part) for part in key.split(","))
            number = float(value)
        except (TypeError, ValueError) as error:
            raise CircuitError(f"{invalid}: {key[:40]!r} is not layer,position,neuron.") from error
        if not math.isfinite(number):
            raise CircuitError(f"{invalid}: the value of {key[:40]!r} is not finite.")
        place = (layer, neuron)
        if abs(number) >= abs(values.get(place, 0.0)):
            values[place] = number
    ranked = sorted(values.items(), key=lambda item: -abs(item[1]))
    try:
        return CircuitFile(
            model=model,
            settings=CircuitSettings(fraction=None, top_k=max(1, len(ranked)), universal_threshold=None),
            prompts=CircuitPrompts(positive=0, negative=0, sha256="unknown"),
            neurons=[NeuronEntry(layer=layer, neuron=neuron, delta=value) for (layer, neuron), value in ranked],
        )
    except ValidationError as error:
        problem = first_problem(error)
        raise CircuitError(f"{name} does not fit {model.name}: {problem}; load the model it was made with.") from error
