"""A regular-expression matcher that counts its steps, to bound what a pattern can cost without measuring time.

It tries what Python's matcher tries, in the same order: every alternative, every number of repetitions, from every
place of the text. Python's own is faster, as it skips hopeless places, so its steps are no more than these.
"""

import re
from collections.abc import Iterator
from re import _parser as parser
from typing import Any

_BOUNDARY = re.compile(r"\b")


class TooManyStepsError(Exception):
    """The matcher gave up: the text costs more than allowed."""


class StepCounter:
    """Counts the steps of searching texts for one pattern.

    Args:
        pattern: compiled, without flags but IGNORECASE.
        limit: `search` gives up beyond so many steps.
    """

    def __init__(self, pattern: re.Pattern[str], limit: int) -> None:
        self._tree = list(parser.parse(pattern.pattern, pattern.flags))
        self._limit = limit
        self._single: dict[int, re.Pattern[str]] = {}
        self.steps = 0

    def search(self, text: str) -> bool:
        """Whether the pattern is found; `steps` then says what it cost.

        Raises:
            TooManyStepsError: more than `limit`.
        """
        self.steps = 0
        text = text.lower()
        for place in range(len(text) + 1):
            for _ in self._sequence(self._tree, 0, text, place):
                return True
        return False

    def _sequence(self, items: list[Any], index: int, text: str, place: int) -> Iterator[int]:
        if index == len(items):
            yield place
            return
        for end in self._item(items[index], text, place):
            yield from self._sequence(items, index + 1, text, end)

    def _item(self, item: tuple[Any, Any], text: str, place: int) -> Iterator[int]:
        self.steps += 1
        if self.steps > self._limit:
            raise TooManyStepsError(f"{self.steps} steps")
        name, content = str(item[0]), item[1]
        if name == "BRANCH":
            for branch in content[1]:
                yield from self._sequence(list(branch), 0, text, place)
        elif name == "SUBPATTERN":
            yield from self._sequence(list(content[3]), 0, text, place)
        elif name in ("MAX_REPEAT", "MIN_REPEAT"):
            low, high, body = content
            yield from self._repeat(list(body), low, high, text, place, greedy=name == "MAX_REPEAT")
        elif name in ("ASSERT", "ASSERT_NOT"):
            direction, body = content
            assert direction == 1, "only lookahead is known here"
            found = next(self._sequence(list(body), 0, text, place), None) is not None
            if found == (name == "ASSERT"):
                yield place
        elif name == "AT":
            if self._is_at(str(content), text, place):
                yield place
        elif place < len(text) and self._fits(item, text[place]):
            yield place + 1

    def _repeat(self, body: list[Any], low: int, high: Any, text: str, place: int, greedy: bool) -> Iterator[int]:
        """`body` at least `low` times: longest first, or shortest first; an empty repetition is not repeated."""
        if low <= 0 and not greedy:
            yield place
        if high is parser.MAXREPEAT or high > 0:
            fewer = high if high is parser.MAXREPEAT else high - 1
            for end in self._sequence(body, 0, text, place):
                if end > place or low > 0:
                    yield from self._repeat(body, low - 1, fewer, text, end, greedy)
        if low <= 0 and greedy:
            yield place

    def _fits(self, item: tuple[Any, Any], sign: str) -> bool:
        single = self._single.get(id(item))
        if single is None:
            # Compile this one set of signs alone, as Python would.
            single = self._single[id(item)] = re.compile(_written(item), re.IGNORECASE)
        return single.fullmatch(sign) is not None

    @staticmethod
    def _is_at(where: str, text: str, place: int) -> bool:
        if where in ("AT_BEGINNING", "AT_BEGINNING_STRING"):
            return place == 0
        if where in ("AT_END", "AT_END_STRING"):
            return place == len(text)
        assert where == "AT_BOUNDARY", where
        return _BOUNDARY.match(text, place) is not None


def _written(item: tuple[Any, Any]) -> str:
    name, content = str(item[0]), item[1]
    if name == "LITERAL":
        return re.escape(chr(content))
    if name == "NOT_LITERAL":
        return f"[^{re.escape(chr(content))}]"
    if name == "ANY":
        return "."
    assert name == "IN", name
    written = ""
    for kind, value in content:
        kind = str(kind)
        if kind == "NEGATE":
            written += "^"
        elif kind == "LITERAL":
            written += re.escape(chr(value))
        elif kind == "RANGE":
            written += f"{re.escape(chr(value[0]))}-{re.escape(chr(value[1]))}"
        else:
            assert kind == "CATEGORY", kind
            written += {"CATEGORY_WORD": r"\w", "CATEGORY_SPACE": r"\s", "CATEGORY_DIGIT": r"\d"}[str(value)]
    return f"[{written}]"
