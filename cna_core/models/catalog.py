"""The catalog: the models that this project knows by name, read from assets/catalog.toml and validated.

Models that are not in the catalog can be named by Hub id, folder or file. This module downloads nothing.
"""

import difflib
import functools
import tomllib
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from cna_core.paths import ASSETS

DEFAULT_MODEL = "qwen2.5-coder-0.5b-instruct"
SMALL_MODEL = "smollm2-135m-instruct"


class Wheel(BaseModel):
    """A package of a package index, and the data file in its wheel."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    requirement: str = Field(pattern=r"^[A-Za-z0-9._-]+==[A-Za-z0-9.]+$", description="exactly pinned")
    member: str = Field(description="the data file's path in the wheel")
    size_bytes: int = Field(gt=0, description="size of the wheel")
    member_bytes: int = Field(gt=0, description="size of the data file")
    member_sha256: str = Field(pattern=r"^[0-9a-f]{64}$")


class Embedded(BaseModel):
    """The sources of an embedded model's file: the Hub, or, split into wheels, a package index."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    file: str
    size_bytes: int = Field(gt=0)
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    hub_id: str
    hub_revision: str | None = None
    wheels: tuple[Wheel, ...]


class CatalogEntry(BaseModel):
    """A model of the catalog."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str
    title: str
    family: str
    kind: Literal["instruct", "base"]
    hub_id: str = Field(description="the original weights on the Hub")
    hub_revision: str | None = None
    layers: int = Field(gt=0)
    neurons_per_layer: int = Field(gt=0)
    parameters: float = Field(gt=0, description="billions")
    gated: bool = False
    memory_bfloat16_gib: float = Field(gt=0, description="weights alone")
    memory_4bit_gib: float = Field(gt=0, description="weights alone")
    license: str
    paper: bool = Field(False, description="one of the paper's sixteen models")
    embedded: Embedded | None = None

    @property
    def neurons(self) -> int:
        """The number of MLP neurons of the model."""
        return self.layers * self.neurons_per_layer


@functools.cache
def catalog() -> dict[str, CatalogEntry]:
    """The models of the catalog by id, the embedded ones first."""
    document = tomllib.loads((ASSETS / "catalog.toml").read_text(encoding="utf-8"))
    entries = (CatalogEntry(id=name, **facts) for name, facts in document["models"].items())
    return {entry.id: entry for entry in entries}


def catalog_entry(name: str) -> CatalogEntry | None:
    """The entry with this id, ignoring case; None if there is none."""
    return catalog().get(name.strip()) or catalog().get(name.strip().lower())


def nearest(name: str, count: int = 3) -> list[str]:
    """Catalog ids similar to `name`, or that begin similarly, most similar first; may be empty."""
    wanted = name.rsplit("/", 1)[-1].lower()
    likeness = {known: _likeness(wanted, known) for known in catalog()}
    alike = sorted((known for known in likeness if likeness[known] > 0.65), key=lambda known: -likeness[known])
    return alike[:count]


def _likeness(wanted: str, known: str) -> float:
    beginning = known[: len(wanted) + 1]
    return max(difflib.SequenceMatcher(None, wanted, part).ratio() for part in (known, beginning))
