"""Prompt sets: built-in, public, from files or from pasted text. They are validated, and compared by content.

A prompt is one request in the user's words. All errors in text from outside are reported here, with the line number.
This module does not use models, chat templates or tokens.
"""

import hashlib
import json
import re
import threading
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from cna_core.errors import PromptError
from cna_core.paths import path_named
from cna_core.progress import Report
from cna_core.prompts.builtin import builtin_set
from cna_core.prompts.public import find_public
from cna_core.prompts.public_catalog import PREFIX, public_contrast
from cna_core.prompts.reading import KINDS, Kind, entries_of, normalised
from cna_core.shown import is_whole, shown

MAXIMUM_SIZE_BYTES = 2_000_000
MAXIMUM_PROMPTS = 5_000
MAXIMUM_PROMPT_CHARACTERS = 8_000

_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")


@dataclass(frozen=True)
class PromptSet:
    """An ordered set of prompts, none empty and none twice.

    Args:
        name: the set's name: a file name, a built-in or public name, "pasted".
        prompts: the prompts; surrounding white space is removed.
        categories: the topic of each prompt, in the same order; empty if unknown. They affect neither the hash nor
            equality.

    Raises:
        PromptError: there are no prompts or too many, or a prompt is empty, too long, or there twice (ignoring case and
            white space).
    """

    name: str
    prompts: tuple[str, ...]
    categories: tuple[str, ...] = field(default=(), compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "name", shown(self.name))
        numbered = list(enumerate(map(normalised, self.prompts), start=1))
        _check(numbered, self.name, "prompt")
        if self.categories and len(self.categories) != len(numbered):
            raise PromptError(f"{self.name} has {len(numbered)} prompts and {len(self.categories)} categories.")
        object.__setattr__(self, "prompts", tuple(text for _, text in numbered))
        object.__setattr__(self, "categories", self.categories if any(self.categories) else ())

    def __len__(self) -> int:
        return len(self.prompts)

    def __repr__(self) -> str:
        return f"PromptSet({self.name!r}, {len(self)} prompts)"

    def __iter__(self) -> Iterator[str]:
        return iter(self.prompts)

    @cached_property
    def sha256(self) -> str:
        """Hash of the prompts in their order (64 hexadecimal digits), without the name."""
        return _hash(self.prompts)

    def at(self, places: Sequence[int], name: str | None = None) -> "PromptSet":
        """The prompts at these positions (from 0), with their categories. Raises `PromptError` if there are none."""
        categories = tuple(self.categories[place] for place in places) if self.categories else ()
        return PromptSet(name or self.name, tuple(self.prompts[place] for place in places), categories)

    def spread(self, count: int) -> "PromptSet":
        """`count` prompts, evenly spread over the set so that every category has its share; all if there are fewer."""
        if count >= len(self):
            return self
        places = [place * len(self) // count for place in range(count)]
        return self.at(places, f"{self.name}, {count} of {len(self)}")

    def places_in(self, others: Iterable[str]) -> list[int]:
        """The positions of prompts that are among `others`, ignoring case, white space and punctuation."""
        there = {_words(prompt) for prompt in others}
        return [place for place, prompt in enumerate(self.prompts) if _words(prompt) in there]

    @classmethod
    def named(
        cls,
        source: str | Path,
        *,
        folder: str | Path | None = None,
        progress: Report | None = None,
        stop: threading.Event | None = None,
    ) -> "PromptSet":
        """The prompts of a file, or of a public set if `source` is `public:NAME`. Raises as these do."""
        if str(source).startswith(PREFIX):
            return cls.public(str(source), folder=folder, progress=progress, stop=stop)
        return cls.from_file(source)

    @classmethod
    def from_file(cls, path: str | Path) -> "PromptSet":
        """Read a .txt, .csv or .jsonl file in UTF-8; `from_text` describes the formats.

        Raises:
            PromptError: the file is missing, too large, of another kind, not UTF-8, or its content is invalid.
        """
        path = path_named(path)
        kind = path.suffix.lower().removeprefix(".")
        if kind not in KINDS:
            raise PromptError(f"{path.name} is not a prompt file: use .txt, .csv or .jsonl.")
        try:
            with path.open("rb") as file:
                data = file.read(MAXIMUM_SIZE_BYTES + 1)
        except OSError as error:
            raise PromptError(f"{path} cannot be read ({error.strerror or error}): check the path.") from error
        return cls.from_bytes(data, kind=cast(Kind, kind), name=path.name)

    @classmethod
    def from_bytes(cls, data: bytes, *, kind: Kind, name: str) -> "PromptSet":
        """Read an uploaded file's bytes, in UTF-8 with or without a byte order mark. Raises as `from_file` does."""
        name = shown(name)
        _check_size(len(data), name)
        try:
            text = data.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            line = data.count(b"\n", 0, error.start) + 1
            raise PromptError(f"{name}, line {line}, is not UTF-8 text: save the file as UTF-8.") from error
        return cls.from_text(text, kind=kind, name=name)

    @classmethod
    def from_text(cls, text: str, *, kind: Kind = "txt", name: str = "pasted") -> "PromptSet":
        """Read prompts from text.

        Args:
            text: the prompts.
            kind: the text's format. "txt": one prompt per line; blank lines and lines that start with # are skipped.
                "csv": the column named prompt (or another of `PROMPT_COLUMNS`); without such a header, the first
                column. "jsonl": a string, or an object with a "prompt", on each line.
            name: the set's name, also for errors.

        Raises:
            PromptError: the text is invalid; the message names the line.
        """
        name = shown(name)
        if kind not in KINDS:
            raise PromptError(f"Prompts of the kind '{kind}' cannot be read: use txt, csv or jsonl.")
        _check_size(len(text.encode("utf-8", "surrogatepass")), name)
        entries = list(entries_of(text, kind, name))
        _check(((entry.line, entry.prompt) for entry in entries), name, "line")
        return cls(name, tuple(entry.prompt for entry in entries), tuple(entry.category for entry in entries))

    @classmethod
    def builtin(cls, name: str) -> "PromptSet":
        """A built-in set; `builtin.BUILTIN_SETS` has the names. Its file is read once in a process."""
        return _builtin(name)

    @classmethod
    def public(
        cls,
        name: str,
        *,
        folder: str | Path | None = None,
        progress: Report | None = None,
        stop: threading.Event | None = None,
    ) -> "PromptSet":
        """A public set, downloaded the first time; `public_catalog.public_sets()` has the names.

        Prompts that occur twice in the set are used once.

        Args:
            name: as in the catalog, with or without "public:".
            folder: the folder with the set's file; None tries `$CNA_PUBLIC_SETS`, the cache and the Hub, in this order.
            progress: reports the download.
            stop: stops the download.

        Raises:
            PromptError: there is no such set, it cannot be downloaded, or its file is invalid.
            StoppedError: stopped.
        """
        copy = find_public(name, folder, progress=progress, stop=stop)
        once: dict[str, tuple[str, str]] = {}
        for prompt, category in copy.prompts():
            once.setdefault(_key(normalised(prompt)), (prompt, category))
        once.pop("", None)
        prompts, categories = ([pair[part] for pair in once.values()] for part in (0, 1))
        return cls(f"{PREFIX}{copy.known.id}", tuple(prompts), tuple(categories))


@dataclass(frozen=True)
class ContrastSet:
    """Positive prompts, which the model should refuse, and negative prompts, which it should answer.

    Raises:
        PromptError: a prompt is in both sets, ignoring case and white space.
    """

    positive: PromptSet
    negative: PromptSet

    def __post_init__(self) -> None:
        negative = {_key(prompt) for prompt in self.negative}
        both = [prompt for prompt in self.positive if _key(prompt) in negative]
        if both:
            more = f" and {len(both) - 1} more are" if len(both) > 1 else " is"
            raise PromptError(
                f"“{_shortened(both[0])}”{more} in both the positive and the negative prompts: remove it from one of "
                "them."
            )

    def __len__(self) -> int:
        return len(self.positive) + len(self.negative)

    def __repr__(self) -> str:
        sides = f"{len(self.positive)} positive ({self.positive.name!r})", f"{len(self.negative)} negative"
        return f"ContrastSet({', '.join(sides)} ({self.negative.name!r}))"

    @property
    def prompts(self) -> tuple[str, ...]:
        """All prompts, the positive ones first."""
        return self.positive.prompts + self.negative.prompts

    @property
    def is_positive(self) -> NDArray[np.bool_]:
        """(prompts,) bool, in the order of `prompts`."""
        return np.arange(len(self)) < len(self.positive)

    @cached_property
    def sha256(self) -> str:
        """Hash of both sets' prompts in their order (64 hexadecimal digits), without names."""
        return _hash({"positive": self.positive.prompts, "negative": self.negative.prompts})

    @classmethod
    def public(cls, name: str, **fetching: Any) -> "ContrastSet":
        """A ready-made public contrast set; `public_catalog.public_contrasts()` has the names.

        Arguments and errors as for `PromptSet.public`.
        """
        known = public_contrast(name)
        return cls(PromptSet.public(known.positive, **fetching), PromptSet.public(known.negative, **fetching))

    @classmethod
    def builtin(cls) -> "ContrastSet":
        """The built-in discovery set: harmful and benign prompts in matched pairs."""
        return _builtin_contrast()


@cache
def _builtin(name: str) -> PromptSet:
    found = PromptSet.from_file(builtin_set(name).path)
    return PromptSet(name, found.prompts, found.categories)


@cache
def _builtin_contrast() -> ContrastSet:
    return ContrastSet(PromptSet.builtin("harmful"), PromptSet.builtin("benign"))


def _check_size(size_bytes: int, name: str) -> None:
    if size_bytes > MAXIMUM_SIZE_BYTES:
        raise PromptError(f"{name} is larger than {MAXIMUM_SIZE_BYTES / 1e6:g} MB: split it or remove prompts.")


def _check(numbered: Iterable[tuple[int, str]], name: str, unit: str) -> None:
    """Raise `PromptError` for the first invalid prompt; prompts are numbered by line or by position."""
    seen: dict[str, int] = {}
    for number, prompt in numbered:
        place = f"{name}, {unit} {number},"
        if not prompt:
            raise PromptError(f"{place} is an empty prompt: fill it in or remove it.")
        if len(prompt) > MAXIMUM_PROMPT_CHARACTERS:
            raise PromptError(
                f"{place} is {len(prompt):,} characters long and may have {MAXIMUM_PROMPT_CHARACTERS:,}: shorten it."
            )
        if _CONTROL.search(prompt) or not is_whole(prompt):
            raise PromptError(f"{place} contains control characters or invalid Unicode: check that it is a text file.")
        first = seen.setdefault(_key(prompt), number)
        if first != number:
            raise PromptError(f"{place} repeats {unit} {first}: remove one of the two.")
        if len(seen) > MAXIMUM_PROMPTS:
            raise PromptError(f"{place} is one prompt too many: a set can have up to {MAXIMUM_PROMPTS:,}.")
    if not seen:
        raise PromptError(f"{name} contains no prompts: write one per line.")


def _key(prompt: str) -> str:
    """A key that is equal for prompts that differ only in case and white space."""
    return " ".join(prompt.casefold().split())


def _words(prompt: str) -> str:
    """A key that is equal for prompts that differ only in case, white space and punctuation."""
    return " ".join(re.findall(r"\w+", prompt.casefold())) or _key(prompt)


def _shortened(prompt: str, length: int = 60) -> str:
    line = " ".join(prompt.split())
    return line if len(line) <= length else f"{line[: length - 1]}…"


def _hash(content: object) -> str:
    return hashlib.sha256(json.dumps(content, ensure_ascii=True, separators=(",", ":")).encode()).hexdigest()
