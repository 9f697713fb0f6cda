"""The paper's numbers, from `assets/published.toml`, for comparison with measurements.

A model that the paper does not report has no entry. This module knows no loaded models and no catalog.
"""

import functools
import tomllib
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from cna_core.paths import ASSETS

Share = Annotated[float, Field(ge=0, le=1)]
"""A rate or a share, 0 to 1."""


class _Published(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class FullAblation(_Published):
    """The refusal rate before and after ablation of the circuit, on all harmful prompts of the benchmark."""

    refusal_baseline: Share
    refusal_ablated: Share


class MethodComparison(_Published):
    """The refusal rate and quality with CNA and with CAA, both at strength 1."""

    cna_refusal: Share
    cna_quality: Share
    caa_refusal: Share
    caa_quality: Share


class BaseAgainstInstruct(_Published):
    """The refusal rate at strengths 0 and 1, and the quality at strength 1, of the base or the instruct model."""

    refusal_baseline: Share
    refusal_ablated: Share
    quality: Share


class FinalThreeLayers(_Published):
    """The share of the circuit's neurons in the last three layers."""

    share: Share
    approximate: bool = False


class PublishedModel(_Published):
    """The paper's numbers for one of its 16 models; None if it does not report that number."""

    title: str
    kind: Literal["instruct", "base"]
    hub_ids: tuple[str, ...]
    layers: int
    full_ablation: FullAblation | None = None
    comparison: MethodComparison | None = None
    base_against_instruct: BaseAgainstInstruct | None = None
    final_three_layers: FinalThreeLayers | None = None

    @property
    def catalog_id(self) -> str:
        """The model's title in the catalog, in lower case."""
        return self.title.lower()


class Paper(_Published):
    """The paper; `citation` is BibTeX."""

    title: str
    authors: tuple[str, ...]
    year: int
    arxiv: str
    code: str
    benchmark: str
    citation: str

    @property
    def address(self) -> str:
        """The paper's page."""
        return f"https://arxiv.org/abs/{self.arxiv}"


class Experiments(_Published):
    """How each number was measured, in one line."""

    full_ablation: str
    comparison: str
    base_against_instruct: str
    final_three_layers: str
    knowledge: str


class Published(_Published):
    """The whole file."""

    paper: Paper
    experiments: Experiments
    models: tuple[PublishedModel, ...]


@functools.cache
def published() -> Published:
    """Everything in `assets/published.toml`."""
    return Published.model_validate(tomllib.loads((ASSETS / "published.toml").read_text(encoding="utf-8")))


def published_model(name: str) -> PublishedModel | None:
    """The paper's numbers for a model, by Hub id or catalog id in any case; None if it reports none."""
    wanted = name.lower()
    for model in published().models:
        if wanted == model.catalog_id or wanted in map(str.lower, model.hub_ids):
            return model
    return None
