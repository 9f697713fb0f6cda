"""Explain why a model refuses one prompt, or not: the effect of every neuron on it, from one backward pass.

The tokens that open refusals are given as data (evaluation/effects.py finds them).
"""

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cna_core.circuits.circuit import Circuit, CircuitPrompts, CircuitSettings
from cna_core.circuits.circuit_file import EffectSettings
from cna_core.circuits.effect import effect_on_lines
from cna_core.circuits.effect_circuit import most_negative
from cna_core.circuits.effects import layer_shares
from cna_core.circuits.multiplier_gradients import Line
from cna_core.errors import CircuitError
from cna_core.models.layout import ModelIdentity
from cna_core.models.loaded import LoadedModel
from cna_core.prompts.chat_format import Message, encode

FORMAT = "cna-explanation/1"


@dataclass(frozen=True)
class Explanation:
    """The effects of neurons on the refusal of one prompt.

    Args:
        model: the model.
        prompt: the text, or the text of the conversation's last message.
        settings: how the effects were measured.
        openings: ids of the tokens that open refusals.
        log_odds: R; above 0 if refusal openings are more likely than others.
        effect: (total,) float32: the estimated change in R when the neuron is ablated; NaN in layers that were not
            measured. A negative effect pushes towards refusal.
        activation: (total,) float32: the neuron at the prompt's last token.
    """

    model: ModelIdentity
    prompt: str
    settings: EffectSettings
    openings: tuple[int, ...]
    log_odds: float
    effect: NDArray[np.float32]
    activation: NDArray[np.float32]

    def __repr__(self) -> str:
        return f"Explanation({self.prompt[:60]!r}, log-odds of refusal {self.log_odds:.2f}, {self.model.name})"

    @property
    def layer_shares(self) -> NDArray[np.float64]:
        """(layers,) float64, sum 1: each layer's share of the effect towards refusal, Σ max(−e, 0)."""
        return layer_shares(self.effect, self.model.layout)

    def strongest(self, count: int = 20, *, towards: bool = True) -> pd.DataFrame:
        """The neurons with the largest effect towards refusal, or away from it, as a table: layer, neuron, effect,
        activation. Fewer than `count` if fewer neurons push in this direction."""
        signed = np.nan_to_num(self.effect) * (1 if towards else -1)
        count = min(count, int((signed < 0).sum()))
        flat = most_negative(signed, count, _NONE) if count else _NONE
        layers, neurons = self.model.layout.locate(flat)
        return pd.DataFrame(
            {"layer": layers, "neuron": neurons, "effect": self.effect[flat], "activation": self.activation[flat]}
        )

    def share_of(self, circuit: Circuit) -> float:
        """The circuit's share of the effect towards refusal, 0 to 1.

        Raises:
            CircuitError: it belongs to another model.
        """
        circuit.check_model(self.model)
        towards = np.maximum(-np.nan_to_num(self.effect.astype(np.float64)), 0)
        return float(towards[circuit.flat].sum() / (towards.sum() or 1.0))

    def circuit(self, size: int) -> Circuit:
        """The `size` neurons with the largest effect towards refusal, as a circuit.

        Raises:
            CircuitError: fewer neurons push towards refusal.
        """
        flat = most_negative(self.effect, size, _NONE)
        layers, neurons = self.model.layout.locate(flat)
        unknown = np.full(size, np.nan, dtype=np.float32)
        settings = CircuitSettings(
            score="attribution-patching", fraction=None, top_k=size, universal_threshold=None, effect=self.settings
        )
        prompts = CircuitPrompts(positive=1, negative=0, sha256="one prompt")
        return Circuit(
            model=self.model,
            settings=settings,
            prompts=prompts,
            layers=layers,
            neurons=neurons,
            delta=unknown,
            positive_mean=unknown,
            negative_mean=unknown,
            effect_size=unknown,
            effect=self.effect[flat],
        )

    def to_json_value(self, count: int = 20) -> dict[str, Any]:
        """The content of a cna-explanation/1 file: the strongest neurons in each direction and the layers' shares."""
        return {
            "format": FORMAT,
            "model": self.model.model_dump(mode="json"),
            "prompt": self.prompt,
            "settings": self.settings.model_dump(mode="json"),
            "openings": list(self.openings),
            "log_odds": self.log_odds,
            "layer_shares": [round(float(share), 6) for share in self.layer_shares],
            "towards_refusal": self.strongest(count).to_dict("records"),
            "against_refusal": self.strongest(count, towards=False).to_dict("records"),
        }


_NONE = np.empty(0, dtype=np.int64)


def explanation(
    model: LoadedModel,
    messages: str | Sequence[Message],
    openings: Sequence[int],
    *,
    settings: EffectSettings | None = None,
    stop: threading.Event | None = None,
) -> Explanation:
    """The effects of the neurons on one prompt, refused or not.

    Args:
        messages: a user message, or a whole conversation.
        openings: ids of the tokens that open refusals.

    Raises:
        CircuitError: the settings are not possible for one prompt (a contrast, the metric "prefix"), or an effect is
            not finite.
        PromptError: the prompt is empty or longer than the model's context.
        StoppedError: `stop` was set; checked between layers.
    """
    settings = settings or EffectSettings()
    if settings.contrast or settings.metric != "first-token":
        raise CircuitError("Explaining one prompt uses the first token and no contrast; change the settings.")
    tokens = tuple(encode(model, messages))
    openings = tuple(sorted(int(token) for token in openings))
    readings = effect_on_lines(model, [Line(tokens)], openings, settings, stop)
    effect = np.full(model.layout.total, np.nan, dtype=np.float32)
    effect[: readings.gradients.shape[1]] = -readings.gradients[0].numpy()
    return Explanation(
        model.identity,
        messages if isinstance(messages, str) else messages[-1]["content"],
        settings,
        openings,
        float(readings.values[0]),
        effect,
        readings.neurons[0].float().numpy(),
    )
