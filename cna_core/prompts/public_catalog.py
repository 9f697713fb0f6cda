"""The public sets that this project knows by name: read from assets/public_sets.toml, checked, and never changed.

What they are, whose, under which license, and where; fetching and reading them is `public.py`'s work.
"""

import difflib
import functools
import tomllib
from collections.abc import Iterable
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from cna_core.errors import PromptError
from cna_core.paths import ASSETS

PREFIX = "public:"
"""How a public set is told from a file where either can be named: `public:jbb-harmful`."""

Role = Literal["harmful", "benign", "borderline", "questions", "word-problems"]
PROMPT_ROLES: tuple[Role, ...] = ("harmful", "benign", "borderline")


class PublicFile(BaseModel):
    """One file that holds a set, and how it is read.

    Args:
        name: its path in the data set's repository; a folder may hold it by its last part alone.
        sha256: of its bytes; None: not known here.
        prompt, category: columns, whatever their case; without a category column the prompts have none.
        where: columns and the values that the rows of the set have there; empty: every row belongs to it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(pattern=r"^[\w.-]+(/[\w.-]+)*\.(csv|jsonl|parquet)$")
    sha256: str | None = Field(None, pattern=r"^[0-9a-f]{64}$")
    prompt: str
    category: str | None = None
    where: dict[str, str] = Field(default_factory=dict)


class PublicSet(BaseModel):
    """One public set.

    Args:
        id: its name on the command line and in addresses, without `PREFIX`.
        source: authors, year and name, as one would cite it.
        revision: the commit on the Hub; None: not known here.
        gated: people must accept its terms on the Hub before they can fetch it.
        rows: how many prompts or questions it is known to have.
        files: the first is the Hub's; a folder may hold any of them.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str
    title: str
    role: Role
    source: str
    license: str
    hub_id: str
    config: str
    split: str
    revision: str | None = Field(None, pattern=r"^[0-9a-f]{40}$")
    gated: bool = False
    rows: int = Field(gt=0)
    files: tuple[PublicFile, ...] = Field(min_length=1)

    @property
    def hub_file(self) -> PublicFile:
        return self.files[0]

    @property
    def is_pinned(self) -> bool:
        """Whether the commit and the hash of the Hub's file are known here."""
        return self.revision is not None and self.hub_file.sha256 is not None

    @property
    def credit(self) -> str:
        """Whose it is, its license and where it comes from, in one line."""
        return f"{self.title} · {self.rows:,} rows · {self.license} · {self.source} · {self.hub_id}, {self._pin()}"

    def _pin(self) -> str:
        if self.revision is not None and self.is_pinned:
            return f"revision {self.revision[:7]}, SHA-256 checked"
        asked = "asks you to accept its terms, " if self.gated else ""
        return f"{asked}no pinned revision: verified on first fetch, then remembered"


class PublicContrast(BaseModel):
    """Two public sets that make a contrast set: positive prompts against negative ones."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str
    title: str
    positive: str
    negative: str


@functools.cache
def public_sets() -> dict[str, PublicSet]:
    """Every known public set by id."""
    sets = (PublicSet(id=name, **facts) for name, facts in _document()["sets"].items())
    return {each.id: each for each in sets}


@functools.cache
def public_contrasts() -> dict[str, PublicContrast]:
    """The ready-made contrast sets by id."""
    contrasts = (PublicContrast(id=name, **facts) for name, facts in _document()["contrasts"].items())
    return {each.id: each for each in contrasts}


def public_set(name: str) -> PublicSet:
    """The set of that name, with or without `PREFIX`; raises `PromptError` with the names there are."""
    wanted = name.strip().removeprefix(PREFIX).lower()
    if wanted in public_sets():
        return public_sets()[wanted]
    raise PromptError(f"There is no public set '{wanted}': {_suggestion(wanted, public_sets())}.")


def public_contrast(name: str) -> PublicContrast:
    """The contrast set of that name, with or without `PREFIX`; raises `PromptError` with the names there are."""
    wanted = name.strip().removeprefix(PREFIX).lower()
    if wanted in public_contrasts():
        return public_contrasts()[wanted]
    raise PromptError(f"There is no public contrast set '{wanted}': {_suggestion(wanted, public_contrasts())}.")


def sets_of(*roles: Role) -> list[PublicSet]:
    """The sets of these roles, in the catalog's order."""
    return [each for each in public_sets().values() if each.role in roles]


def _suggestion(wanted: str, known: Iterable[str]) -> str:
    known = list(known)
    alike = difflib.get_close_matches(wanted, known, n=2, cutoff=0.6)
    return f"did you mean {' or '.join(alike)}" if alike else f"use one of {', '.join(known)}"


def _document() -> dict[str, dict[str, dict[str, Any]]]:
    return tomllib.loads((ASSETS / "public_sets.toml").read_text(encoding="utf-8"))
