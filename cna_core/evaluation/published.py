"""The paper's figures, read from `assets/published.toml`, so that they can stand beside what is measured here.

This file knows the paper, no model in memory and no catalog; a model that the paper does not report has no entry.
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
    """Refusal rate before and after ablating the circuit, on all of the benchmark's harmful prompts."""

    refusal_baseline: Share
    refusal_ablated: Share


class MethodComparison(_Published):
    """Refusal rate and quality under CNA and under CAA, both at strength 1."""

    cna_refusal: Share
    cna_quality: Share
    caa_refusal: Share
    caa_quality: Share


class BaseAgainstInstruct(_Published):
    """Refusal rate at strength 0 and 1, and quality at strength 1, of one of a pair of base and instruct model."""

    refusal_baseline: Share
    refusal_ablated: Share
    quality: Share


class FinalThreeLayers(_Published):
    """Share of the circuit's neurons in the last three layers."""

    share: Share
    approximate: bool = False


class PublishedModel(_Published):
    """What the paper reports about one of its 16 models; None where it reports nothing of that kind."""

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
        """The name the catalog gives the model: its title in lower case."""
        return self.title.lower()


class Paper(_Published):
    """The paper itself; `citation` is BibTeX."""

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
    """How each of the figures was measured, in one line."""

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
    """What the paper reports about a model, found by Hub id or catalog id in any case; None where that is nothing."""
    wanted = name.lower()
    for model in published().models:
        if wanted == model.catalog_id or wanted in map(str.lower, model.hub_ids):
            return model
    return None
