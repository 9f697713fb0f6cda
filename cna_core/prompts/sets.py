"""Prompt sets: read from files and pasted text, checked, compared by content.

A prompt is one request in the user's words. This file knows nothing of models, chat templates or tokens; it is the
place where text from outside comes in, so all that can be wrong with such text is said here, with the line it is on.
"""

import csv
import hashlib
import io
import json
import re
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast, get_args

import numpy as np
from numpy.typing import NDArray

from cna_core.errors import PromptError
from cna_core.prompts.builtin import builtin_set

Kind = Literal["txt", "csv", "jsonl"]
KINDS: tuple[str, ...] = get_args(Kind)

MAXIMUM_SIZE_BYTES = 2_000_000
MAXIMUM_PROMPTS = 5_000
MAXIMUM_PROMPT_CHARACTERS = 8_000

PROMPT_COLUMNS = ("prompt", "prompts", "goal", "request", "instruction", "question", "text")
"""Column names that mark a CSV file's first line as its header; the first of them that occurs holds the prompts."""

_LINE_END = re.compile(r"\r\n|\n|\r")
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")

Numbered = tuple[int, str]
"""A line number, from 1, and the prompt that begins on it."""


@dataclass(frozen=True)
class PromptSet:
    """Prompts in order, none empty, none twice.

    Args:
        name: what to call the set: a file's name, a built-in name, "pasted".
        prompts: the requests; surrounding white space is dropped.

    Raises:
        PromptError: no prompts or too many, one that is empty or too long, or the same one twice (whatever its case and
            white space).
    """

    name: str
    prompts: tuple[str, ...]

    def __post_init__(self) -> None:
        numbered = list(enumerate(map(_normalised, self.prompts), start=1))
        _check(numbered, self.name, "prompt")
        object.__setattr__(self, "prompts", tuple(text for _, text in numbered))

    def __len__(self) -> int:
        return len(self.prompts)

    def __iter__(self) -> Iterator[str]:
        return iter(self.prompts)

    @property
    def sha256(self) -> str:
        """Hash of the prompts in their order (64 hexadecimal digits); the name does not count."""
        return _hash(self.prompts)

    @classmethod
    def from_file(cls, path: str | Path) -> "PromptSet":
        """Read a .txt, .csv or .jsonl file in UTF-8; `from_text` says how each is read.

        Raises:
            PromptError: the file is missing, too large, of another kind, not UTF-8, or its content cannot be used.
        """
        path = Path(path).expanduser()
        kind = path.suffix.lower().removeprefix(".")
        if kind not in KINDS:
            raise PromptError(f"{path.name} is none of the files prompts are read from: use .txt, .csv or .jsonl.")
        try:
            with path.open("rb") as file:
                data = file.read(MAXIMUM_SIZE_BYTES + 1)
        except OSError as error:
            raise PromptError(f"{path} cannot be read: {error.strerror or error}.") from error
        return cls.from_bytes(data, kind=cast(Kind, kind), name=path.name)

    @classmethod
    def from_bytes(cls, data: bytes, *, kind: Kind, name: str) -> "PromptSet":
        """Read an uploaded file's bytes, UTF-8 with or without a byte order mark; errors as in `from_file`."""
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
            text: as `kind` says.
                "txt": one prompt a line; blank lines and lines that start with # are skipped.
                "csv": the column named prompt (or another of `PROMPT_COLUMNS`); without such a header, the first column
                of every line.
                "jsonl": a string, or an object with a "prompt", on each line.
            name: what the errors and the set are to call it.

        Raises:
            PromptError: one sentence that names the line.
        """
        if kind not in KINDS:
            raise PromptError(f"Prompts of the kind '{kind}' cannot be read: use txt, csv or jsonl.")
        _check_size(len(text.encode("utf-8", "surrogatepass")), name)
        reader = {"txt": _read_txt, "csv": _read_csv, "jsonl": _read_jsonl}[kind]
        numbered = [(line, _normalised(prompt)) for line, prompt in reader(text.removeprefix("\ufeff"), name)]
        _check(numbered, name, "line")
        return cls(name, tuple(prompt for _, prompt in numbered))

    @classmethod
    def builtin(cls, name: str) -> "PromptSet":
        """A set written for this project; `builtin.BUILTIN_SETS` has the names."""
        return cls(name, cls.from_file(builtin_set(name).path).prompts)


@dataclass(frozen=True)
class ContrastSet:
    """Positive prompts (they trigger the behaviour) and negative prompts (they do not).

    Raises:
        PromptError: a prompt is in both sets, whatever its case and white space.
    """

    positive: PromptSet
    negative: PromptSet

    def __post_init__(self) -> None:
        negative = {_key(prompt) for prompt in self.negative}
        both = [prompt for prompt in self.positive if _key(prompt) in negative]
        if both:
            more = f" and {len(both) - 1} more are" if len(both) > 1 else " is"
            raise PromptError(
                f"“{_shortened(both[0])}”{more} in both the positive and the negative prompts:"
                " a prompt can be in one of them only."
            )

    def __len__(self) -> int:
        return len(self.positive) + len(self.negative)

    @property
    def prompts(self) -> tuple[str, ...]:
        """All prompts, the positive ones first."""
        return self.positive.prompts + self.negative.prompts

    @property
    def is_positive(self) -> NDArray[np.bool_]:
        """(prompts,) bool, in the order of `prompts`."""
        return np.arange(len(self)) < len(self.positive)

    @property
    def sha256(self) -> str:
        """Hash of both sets' prompts in their order (64 hexadecimal digits); names do not count."""
        return _hash({"positive": self.positive.prompts, "negative": self.negative.prompts})

    @classmethod
    def builtin(cls) -> "ContrastSet":
        """The discovery set written for this project: harmful against benign, matched pair by pair."""
        return cls(PromptSet.builtin("harmful"), PromptSet.builtin("benign"))


def _read_txt(text: str, name: str) -> Iterator[Numbered]:
    for number, line in enumerate(_LINE_END.split(text), start=1):
        if line.strip() and not line.lstrip().startswith("#"):
            yield number, line


def _read_jsonl(text: str, name: str) -> Iterator[Numbered]:
    for number, line in enumerate(_LINE_END.split(text), start=1):
        if not line.strip():
            continue
        try:
            entry = json.loads(line)
        except (ValueError, RecursionError) as error:
            reason = error.msg if isinstance(error, json.JSONDecodeError) else "it cannot be read"
            raise PromptError(f"{name}, line {number}, is not JSON ({reason}): write one entry a line.") from error
        prompt = entry.get("prompt") if isinstance(entry, dict) else entry
        if not isinstance(prompt, str):
            raise PromptError(f'{name}, line {number}, is neither a string nor an object with a "prompt" that is one.')
        yield number, prompt


def _read_csv(text: str, name: str) -> Iterator[Numbered]:
    rows = _csv_rows(text, name)
    if not rows:
        return
    width = len(rows[0][1])
    header = [cell.strip().lower() for cell in rows[0][1]]
    column = next((header.index(wanted) for wanted in PROMPT_COLUMNS if wanted in header), None)
    for number, row in rows[0 if column is None else 1 :]:
        # A prompt with an unquoted comma would otherwise be cut off at it, and nobody would notice.
        if len(row) != width:
            raise PromptError(
                f"{name}, line {number}, has {len(row)} columns and the first line has {width}:"
                " put prompts that contain commas in double quotes."
            )
        yield number, row[column or 0]


def _csv_rows(text: str, name: str) -> list[tuple[int, list[str]]]:
    """The rows that are not blank, each with the line it begins on."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=_csv_delimiter(text), strict=True)
    rows: list[tuple[int, list[str]]] = []
    number = 1
    try:
        for row in reader:
            if any(cell.strip() for cell in row):
                rows.append((number, row))
            number = reader.line_num + 1
    except csv.Error as error:
        raise PromptError(f"{name}, line {number}, cannot be read as CSV: {error}.") from error
    return rows


def _csv_delimiter(text: str) -> str:
    """What separates the columns: spreadsheets write semicolons or tabs in some countries, as a header shows."""
    first = _LINE_END.split(text.lstrip(), maxsplit=1)[0]
    for delimiter in (",", ";", "\t"):
        if any(cell.strip(' "').lower() in PROMPT_COLUMNS for cell in first.split(delimiter)):
            return delimiter
    return ","


def _check_size(size_bytes: int, name: str) -> None:
    if size_bytes > MAXIMUM_SIZE_BYTES:
        raise PromptError(f"{name} is larger than {MAXIMUM_SIZE_BYTES / 1e6:g} MB: split it or leave prompts out.")


def _check(numbered: Iterable[Numbered], name: str, unit: str) -> None:
    """Raise `PromptError` for the first thing wrong with prompts that are numbered by line or by place."""
    seen: dict[str, int] = {}
    for number, prompt in numbered:
        place = f"{name}, {unit} {number},"
        if not prompt:
            raise PromptError(f"{place} is an empty prompt: fill it in or remove it.")
        if len(prompt) > MAXIMUM_PROMPT_CHARACTERS:
            raise PromptError(
                f"{place} is {len(prompt):,} characters long: a prompt can have up to {MAXIMUM_PROMPT_CHARACTERS:,}."
            )
        if _CONTROL.search(prompt) or not _is_encodable(prompt):
            raise PromptError(f"{place} holds control characters or broken Unicode: check that it is a text file.")
        first = seen.setdefault(_key(prompt), number)
        if first != number:
            raise PromptError(f"{place} repeats {unit} {first}: remove one of the two.")
        if len(seen) > MAXIMUM_PROMPTS:
            raise PromptError(f"{place} is one prompt too many: a set can have up to {MAXIMUM_PROMPTS:,}.")
    if not seen:
        raise PromptError(f"{name} has no prompts in it: write one a line.")


def _is_encodable(text: str) -> bool:
    return not any("\ud800" <= character <= "\udfff" for character in text)


def _normalised(prompt: str) -> str:
    """One spelling for one text: composed characters, line feeds, no surrounding white space."""
    return unicodedata.normalize("NFC", _LINE_END.sub("\n", prompt)).strip()


def _key(prompt: str) -> str:
    """What two prompts that only differ in case and white space have in common."""
    return " ".join(prompt.casefold().split())


def _shortened(prompt: str, length: int = 60) -> str:
    line = " ".join(prompt.split())
    return line if len(line) <= length else f"{line[: length - 1]}…"


def _hash(content: object) -> str:
    return hashlib.sha256(json.dumps(content, ensure_ascii=True, separators=(",", ":")).encode()).hexdigest()
