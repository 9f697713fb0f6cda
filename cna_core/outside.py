"""Values that come from outside, in files and uploads: read and checked once, where they come in.

Whoever sends a file is not trusted. Names are one line that can be shown as it is, texts can be written to a file,
and numbers are finite and have bounds. Readers of files build their pydantic models from these types, so the rest of
the code need not check again.
"""

import json
import re
from typing import Annotated, Any

from pydantic import AfterValidator, Field, ValidationError

from cna_core.shown import LONGEST_LINE, is_line, shown

LARGEST_COUNT = 10**9
LARGEST_FLOAT32 = 3.4028235e38
DEEPEST = 16
MOST_VALUES = 10_000


def first_problem(error: ValidationError) -> str:
    """The first validation problem and its place, in a few words."""
    problem = error.errors(include_url=False, include_input=False, include_context=False)[0]
    place = shown(".".join(str(part) for part in problem["loc"]), 100)
    words = shown(problem["msg"].removeprefix("Value error, "), 300)
    return f"{place}: {words}" if place else words


def _line(text: str) -> str:
    if not is_line(text):
        raise ValueError(f"has more than {LONGEST_LINE:,} characters, a line break, or characters that cannot be shown")
    return text


def _text(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError("has a half of a character (a lone surrogate)") from None
    return text


def _plain(content: dict[str, Any]) -> dict[str, Any]:
    count, rest = 0, [(1, value) for value in content.values()]
    while rest:
        depth, value = rest.pop()
        count += 1
        if depth > DEEPEST or count > MOST_VALUES:
            raise ValueError(f"is nested deeper than {DEEPEST} levels or has more than {MOST_VALUES:,} values")
        if isinstance(value, dict):
            rest += [(depth + 1, inside) for inside in value.values()]
        elif isinstance(value, list | tuple):
            rest += [(depth + 1, inside) for inside in value]
        elif isinstance(value, int | float) and not abs(value) <= LARGEST_FLOAT32:
            raise ValueError("has a number that is infinite, too large or not a number")
    return content


Line = Annotated[str, AfterValidator(_line)]
"""A name: one line of text that can be shown."""
Text = Annotated[str, AfterValidator(_text)]
"""A text of any length that can be written to a file; it may have control characters."""
Plain = Annotated[dict[str, Any], AfterValidator(_plain)]
"""JSON values by name, of bounded depth and number."""
Count = Annotated[int, Field(ge=0, le=LARGEST_COUNT)]
"""A number of things, or the place of one, from 0."""
Share = Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)]
"""A share above 0."""
Finite = Annotated[float, Field(ge=-LARGEST_FLOAT32, le=LARGEST_FLOAT32, allow_inf_nan=False)]
"""A number that also fits into float32."""
Seed = Annotated[int, Field(ge=0, lt=2**63)]
"""The seed of a generator of random numbers."""


def read_json(text: str | bytes) -> Any:
    """The value of a JSON text from outside.

    Raises:
        ValueError: it is not UTF-8 or not JSON, is nested too deeply, or has half of a character (a lone surrogate).
            Numbers may still be infinite or NaN; the types above refuse them.
    """
    words = text.decode("utf-8-sig") if isinstance(text, bytes) else text
    try:
        content = json.loads(words)
        if _MAY_BE_HALF.search(words):
            json.dumps(content, ensure_ascii=False).encode()
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    return content


_MAY_BE_HALF = re.compile("\\\\u[dD][89a-fA-F]|[\ud800-\udfff]")
