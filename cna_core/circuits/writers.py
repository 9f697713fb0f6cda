"""What the neurons of a circuit write: which write a word, which tokens each writes, and which write alike.

Asks the loaded model for the neurons' output directions; knows nothing of prompts.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from cna_core.circuits.circuit import Circuit
from cna_core.circuits.neurons import logits_of, output_directions
from cna_core.errors import CircuitError
from cna_core.models.loaded import LoadedModel

AT_ONCE = 32
"""How many neurons' logits are in memory at once: each takes a number for every token of the vocabulary."""


@dataclass(frozen=True)
class Writers:
    """How much each neuron of a circuit writes a word.

    Args:
        token: the token that was looked for, as text.
        logits: (n,) float32: what one unit of activation adds to its logit, in rank order.
        score: (n,) float32: the same in standard deviations over the whole vocabulary.
        place: (n,) int64: how many tokens the neuron raises more.
    """

    token: str
    logits: NDArray[np.float32]
    score: NDArray[np.float32]
    place: NDArray[np.int64]

    def table(self, circuit: Circuit, count: int = 20) -> pd.DataFrame:
        """The neurons that write it most, or push it down most, by the size of the score."""
        order = np.argsort(-np.abs(self.score), kind="stable")[:count]
        return pd.DataFrame(
            {
                "rank": order + 1,
                "layer": circuit.layers[order],
                "neuron": circuit.neurons[order],
                "logit per unit": self.logits[order],
                "standard deviations": self.score[order],
                "place among tokens": self.place[order] + 1,
                "δ": circuit.delta[order],
            }
        )


def word_tokens(model: LoadedModel, word: str) -> list[int]:
    """The tokens that begin a word, with and without a space before it, each once.

    Raises:
        CircuitError: there is no word.
    """
    word = word.strip()
    if not word:
        raise CircuitError("There is no word to look for; type one, such as sorry.")
    first = [model.tokenizer(text, add_special_tokens=False)["input_ids"][:1] for text in (f" {word}", word)]
    return list(dict.fromkeys(token for tokens in first for token in tokens))


def writers_of(model: LoadedModel, circuit: Circuit, token: int) -> Writers:
    """How much each neuron of the circuit raises a token's logit directly ("logit lens" of each neuron).

    Raises:
        CircuitError: the circuit belongs to another model, or its neurons' tokens cannot be read off.
    """
    circuit.check_model(model.identity)
    directions = output_directions(model, circuit.layers, circuit.neurons)
    logits, score, place = [], [], []
    for some in directions.split(AT_ONCE):
        every = logits_of(model, some)
        mine = every[:, token]
        logits.append(mine)
        score.append((mine - every.mean(-1)) / every.std(-1).clamp(min=1e-12))
        place.append((every > mine[:, None]).sum(-1))
    found = (torch.cat(part).numpy() for part in (logits, score, place))
    return Writers(str(model.tokenizer.decode([token])), *found)


def promoted(model: LoadedModel, circuit: Circuit, places: Sequence[int], count: int = 4) -> list[tuple[str, ...]]:
    """The tokens that each of these neurons raises most directly, strongest first.

    Args:
        places: positions in the circuit, in rank order from 0.
        count: tokens for each neuron.

    Raises:
        CircuitError: as for `writers_of`.
    """
    circuit.check_model(model.identity)
    chosen = np.asarray(places, dtype=np.int64)
    found: list[tuple[str, ...]] = []
    for some in output_directions(model, circuit.layers[chosen], circuit.neurons[chosen]).split(AT_ONCE):
        for tokens in logits_of(model, some).topk(count).indices.tolist():
            found.append(tuple(str(model.tokenizer.decode([token])) for token in tokens))
    return found


def similarity(model: LoadedModel, circuit: Circuit) -> NDArray[np.float32]:
    """(n, n) cosines of the circuit's output directions, in rank order: 1 for neurons that write the same.

    Raises:
        CircuitError: as for `writers_of`.
    """
    circuit.check_model(model.identity)
    directions = output_directions(model, circuit.layers, circuit.neurons)
    unit = directions / directions.norm(dim=-1, keepdim=True).clamp(min=1e-12)
    return (unit @ unit.T).numpy()
