"""Contrastive Activation Addition (CAA): the steering vectors that CNA is compared with.

A vector a layer: the mean difference of the MLP output between positive and negative prompts. Knows how vectors are
recorded, stored and read; adding them to a running model is hooks.py's work.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cna_core.models.layout import ModelIdentity


@dataclass(frozen=True)
class CaaVectors:
    """One vector a layer, (layers, hidden) float32: mean MLP output on positive prompts minus that on negative ones.

    Steering at strength s adds −s · vector to the residual stream, that is: it moves away from the positive prompts.
    The paper adds the difference itself and leaves the sign of s open; here the sign is chosen such that CAA at
    strength s pushes behaviour the same way as CNA at strength s does: away from refusal for s > 0.

    Args:
        model: the model they belong to.
        vectors: (layers, hidden) float32.
        sha256: of the contrast set they were recorded with.
    """

    model: ModelIdentity
    vectors: NDArray[np.float32]
    sha256: str
