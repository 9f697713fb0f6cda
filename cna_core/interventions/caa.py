"""Steering vectors of Contrastive Activation Addition (CAA), the method that CNA is compared with, and their file.

Knows neither how they are recorded (decoding/caa_recording.py) nor how they are added to a running model (plan.py).
"""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from cna_core.errors import CircuitError
from cna_core.models.layout import ModelIdentity
from cna_core.paths import written_beside

FORMAT = "cna-vectors/1"


@dataclass(frozen=True)
class CaaVectors:
    """One vector a layer: the mean MLP output on positive prompts minus that on negative ones, at the last token.

    Steering at strength s adds −s · vector to the residual stream at each layer's output and every token, that is: it
    moves away from the positive prompts. The paper adds the difference and leaves the sign of s open; here the sign is
    such that CAA at strength s pushes behaviour the way CNA at strength s does: away from refusal for s > 0.

    Args:
        model: the model they belong to.
        vectors: (layers, hidden) float32.
        sha256: of the contrast set they were recorded with.
    """

    model: ModelIdentity
    vectors: NDArray[np.float32]
    sha256: str

    def check_model(self, identity: ModelIdentity) -> None:
        """Raises:
        CircuitError: they belong to another model.
        """
        if self.model.layout != identity.layout or self.model.name != identity.name:
            raise CircuitError(f"These steering vectors belong to {self.model.name}, not to {identity.name}.")

    def save(self, path: str | Path) -> Path:
        """Write them to a safetensors file."""
        path = Path(path)
        about = {"format": FORMAT, "model": self.model.model_dump_json(), "sha256": self.sha256}
        with written_beside(path) as draft:
            save_file({"vectors": self.vectors}, draft, metadata=about)
        return path

    @classmethod
    def load(cls, path: str | Path) -> "CaaVectors":
        """Read what `save` wrote.

        Raises:
            CircuitError: it is no such file, or a damaged one.
        """
        try:
            with safe_open(path, framework="numpy") as file:
                about = file.metadata() or {}
                if about.get("format") != FORMAT:
                    raise CircuitError(f"{path} holds no {FORMAT} steering vectors but {about.get('format')}.")
                model = ModelIdentity.model_validate(json.loads(about["model"]))
                vectors = file.get_tensor("vectors").astype(np.float32)
        except (OSError, SafetensorError, ValidationError, KeyError, ValueError) as problem:
            raise CircuitError(f"{path} holds no readable vectors ({problem}); record them again.") from problem
        if vectors.ndim != 2 or len(vectors) != model.layers:
            raise CircuitError(f"{path} holds vectors of shape {vectors.shape} for {model.layers} layers.")
        return cls(model, vectors, about["sha256"])
