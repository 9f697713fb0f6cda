"""Read prompts from text (one per line), CSV or JSON lines, each with its line number and category.

Errors say what is wrong and on which line. sets.py checks the prompts themselves.
"""

import csv
import io
import json
import re
import unicodedata
from collections.abc import Iterator
from typing import Literal, NamedTuple, get_args

from cna_core.errors import PromptError
from cna_core.shown import shown

Kind = Literal["txt", "csv", "jsonl"]
KINDS: tuple[str, ...] = get_args(Kind)

PROMPT_COLUMNS = ("prompt", "prompts", "goal", "request", "instruction", "question", "text")
"""Column names that identify a CSV header. The first of them that occurs is the column of prompts."""
CATEGORY_COLUMN = "category"

_LINE_END = re.compile(r"\r\n|\n|\r")


class Entry(NamedTuple):
    """A prompt as read: its first line (from 1), its text, and its category or ""."""

    line: int
    prompt: str
    category: str = ""


def entries_of(text: str, kind: str, name: str) -> Iterator[Entry]:
    """The prompts in `text`, normalised. Errors refer to the text as `name`.

    Raises:
        PromptError: a line cannot be read.
    """
    reader = {"txt": _read_txt, "csv": _read_csv, "jsonl": _read_jsonl}[kind]
    for entry in reader(text.removeprefix("\ufeff"), name):
        yield Entry(entry.line, normalised(entry.prompt), shown(entry.category.strip()))


def normalised(prompt: str) -> str:
    """The text in normal form: composed characters, line feeds, no surrounding white space."""
    return unicodedata.normalize("NFC", _LINE_END.sub("\n", prompt)).strip()


def _read_txt(text: str, name: str) -> Iterator[Entry]:
    for number, line in enumerate(_LINE_END.split(text), start=1):
        if line.strip() and not line.lstrip().startswith("#"):
            yield Entry(number, line)


def _read_jsonl(text: str, name: str) -> Iterator[Entry]:
    for number, line in enumerate(_LINE_END.split(text), start=1):
        if not line.strip():
            continue
        try:
            content = json.loads(line)
        except (ValueError, RecursionError) as error:
            reason = error.msg if isinstance(error, json.JSONDecodeError) else "it cannot be read"
            raise PromptError(f"{name}, line {number}, is not JSON ({reason}): write one entry per line.") from error
        prompt = content.get("prompt") if isinstance(content, dict) else content
        if not isinstance(prompt, str):
            raise PromptError(f'{name}, line {number}, is neither a string nor an object with a string "prompt".')
        category = content.get(CATEGORY_COLUMN) if isinstance(content, dict) else None
        yield Entry(number, prompt, category if isinstance(category, str) else "")


def _read_csv(text: str, name: str) -> Iterator[Entry]:
    rows = _csv_rows(text, name)
    if not rows:
        return
    width = len(rows[0][1])
    header = [cell.strip().lower() for cell in rows[0][1]]
    column = next((header.index(wanted) for wanted in PROMPT_COLUMNS if wanted in header), None)
    with_category = column is not None and CATEGORY_COLUMN in header
    for number, row in rows[0 if column is None else 1 :]:
        # Otherwise a prompt with an unquoted comma would be cut off there unnoticed.
        if len(row) != width:
            raise PromptError(
                f"{name}, line {number}, has {len(row)} columns, but the first line has {width}: put prompts that "
                "contain commas in double quotes."
            )
        yield Entry(number, row[column or 0], row[header.index(CATEGORY_COLUMN)] if with_category else "")


def _csv_rows(text: str, name: str) -> list[tuple[int, list[str]]]:
    """The rows that are not blank, each with its first line's number."""
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
    """The column separator, detected in a header: in some countries spreadsheets write semicolons or tabs."""
    first = _LINE_END.split(text.lstrip(), maxsplit=1)[0]
    for delimiter in (",", ";", "\t"):
        if any(cell.strip(' "').lower() in PROMPT_COLUMNS for cell in first.split(delimiter)):
            return delimiter
    return ","
