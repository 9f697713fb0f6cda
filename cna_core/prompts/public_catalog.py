"""The catalog of public sets, read from assets/public_sets.toml and validated: authors, license and source of each.

public.py downloads and reads them.
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
"""Distinguishes a public set from a file where either can be given: `public:jbb-harmful`."""

Role = Literal["harmful", "benign", "borderline", "questions", "word-problems"]
PROMPT_ROLES: tuple[Role, ...] = ("harmful", "benign", "borderline")


class PublicFile(BaseModel):
    """A file that holds a set, and how to read it.

    Args:
        name: its path in the data set's repository. In a folder, the last part is enough.
        sha256: its hash; None if unknown.
        prompt, category: names of the columns, ignoring case; None for no category.
        where: columns and values that select the set's rows; empty selects all rows.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(pattern=r"^[\w.-]+(/[\w.-]+)*\.(csv|jsonl|parquet)$")
    sha256: str | None = Field(None, pattern=r"^[0-9a-f]{64}$")
    prompt: str
    category: str | None = None
    where: dict[str, str] = Field(default_factory=dict)


class PublicSet(BaseModel):
    """A public set.

    Args:
        id: its name on the command line and in addresses, without `PREFIX`.
        source: authors, year and name, as in a citation.
        revision: the commit on the Hub; None if unknown.
        gated: whether users must accept its terms on the Hub before they can download it.
        rows: the number of its prompts or questions.
        files: the first is the Hub's file; a folder may hold any of them.
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
        """Whether the commit and the hash of the Hub's file are known."""
        return self.revision is not None and self.hub_file.sha256 is not None

    @property
    def credit(self) -> str:
        """The set's authors, license and source in one line."""
        return f"{self.title} · {self.rows:,} rows · {self.license} · {self.source} · {self.hub_id}, {self._pin()}"

    def _pin(self) -> str:
        if self.revision is not None and self.is_pinned:
            return f"revision {self.revision[:7]}, SHA-256 checked"
        asked = "asks you to accept its terms, " if self.gated else ""
        return f"{asked}no pinned revision, so the first download is trusted"


class PublicContrast(BaseModel):
    """Two public sets that form a contrast set."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str
    title: str
    positive: str
    negative: str


@functools.cache
def public_sets() -> dict[str, PublicSet]:
    """The public sets by id."""
    sets = (PublicSet(id=name, **facts) for name, facts in _document()["sets"].items())
    return {each.id: each for each in sets}


@functools.cache
def public_contrasts() -> dict[str, PublicContrast]:
    """The ready-made contrast sets by id."""
    contrasts = (PublicContrast(id=name, **facts) for name, facts in _document()["contrasts"].items())
    return {each.id: each for each in contrasts}


def public_set(name: str) -> PublicSet:
    """The set with this name, with or without `PREFIX`.

    Raises:
        PromptError: there is none; the message suggests names.
    """
    wanted = name.strip().removeprefix(PREFIX).lower()
    if wanted in public_sets():
        return public_sets()[wanted]
    raise PromptError(f"There is no public set '{wanted}': {_suggestion(wanted, public_sets())}.")


def public_contrast(name: str) -> PublicContrast:
    """The contrast set with this name, with or without `PREFIX`.

    Raises:
        PromptError: there is none; the message suggests names.
    """
    wanted = name.strip().removeprefix(PREFIX).lower()
    if wanted in public_contrasts():
        return public_contrasts()[wanted]
    raise PromptError(f"There is no public contrast set '{wanted}': {_suggestion(wanted, public_contrasts())}.")


def sets_of(*roles: Role) -> list[PublicSet]:
    """The sets with these roles, in the catalog's order."""
    return [each for each in public_sets().values() if each.role in roles]


def _suggestion(wanted: str, known: Iterable[str]) -> str:
    known = list(known)
    alike = difflib.get_close_matches(wanted, known, n=2, cutoff=0.6)
    return f"did you mean {' or '.join(alike)}" if alike else f"use one of {', '.join(known)}"


def _document() -> dict[str, dict[str, dict[str, Any]]]:
    return tomllib.loads((ASSETS / "public_sets.toml").read_text(encoding="utf-8"))
