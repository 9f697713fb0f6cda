"""Finds the final number of an answer, exactly. Answers to word problems are judged by it.

It understands signs, thousands separators, decimals, currencies, units, percent signs, fractions, mixed numbers and
LaTeX. A number in `\\boxed{}` takes precedence. This module knows nothing about problems or models.
"""

import re
import unicodedata
from fractions import Fraction

LONGEST_NUMBER = 40
"""Numbers with more digits or a larger power of ten are ignored: no answer is that large."""

_LATEX = (
    (re.compile(r"\\[dt]?frac\s*\{([^{}]*)\}\s*\{([^{}]*)\}"), r" \1/\2"),
    (re.compile(r"\\(?:text|mathrm|mathbf|textbf)\s*\{([^{}]*)\}"), r" \1 "),
    (re.compile(r"\\([$%€£])"), r"\1"),
    (re.compile(r"(?<=\d)(?:\{,\}|\\,|\\!|[\u00a0\u2009\u202f])(?=\d{3}(?!\d))"), ","),
    (re.compile(r"\\(?:times|cdot)"), "×"),
    (re.compile(r"\\(?:left|right|!|,|;|quad)"), " "),
)
_WHOLE = r"\d{1,3}(?:,\d{3})+|\d+"
_NUMBER = re.compile(
    rf"""
    (?P<minus>(?<![\w)\]%.])[-−–]|(?<!\d\s)(?<!\w)(?:minus|negative)\s+)?   # a sign, not a subtraction or a range
    (?:[$€£]\s?)?
    (?<![A-Za-z_\d])(?<!\d\.)                                                # no m2, no part of another number
    (?:
        (?<![/⁄])(?:(?P<mixed>\d+)[ ])?(?P<numerator>{_WHOLE})\s?[/⁄]\s?
        (?!0+\b)(?P<denominator>{_WHOLE})(?!\d|\.\d|\s?/\s?\d)
      | (?P<value>(?:{_WHOLE})(?:\.\d+)?|(?<!\.)\.\d+)
        (?:\s?[×x*]\s?10\s?\^\s?\{{?(?P<power>[-−]?\d+)\}}?|[eE](?P<exponent>[-+]?\d+)(?!\w))?
    )
    (?!(?:st|nd|rd|th)\b)(?!\d)
    """,
    re.VERBOSE | re.IGNORECASE,
)
_BOXED = re.compile(r"\\boxed\s*\{((?:[^{}]|\{(?:[^{}]|\{[^{}]*\})*\})*)\}")


def final_number(text: str) -> Fraction | None:
    """The last number in `text`, or the number of the last `\\boxed{}` that contains one; None if there is none.

    Units, currencies and percent signs are ignored: "12.5 %" and "12.5 km" are 12.5. Ordinals ("3rd") and digits inside
    words ("CO2", "m2") are not numbers.

    Example:
        >>> final_number("So she pays 3 * 4 = $12.50 in all.")
        Fraction(25, 2)
    """
    boxed = [number for content in _BOXED.findall(text) if (number := _last(content)) is not None]
    return boxed[-1] if boxed else _last(text)


def _last(text: str) -> Fraction | None:
    numbers = (_value(match) for match in _NUMBER.finditer(_plain(text)))
    found = [number for number in numbers if number is not None]
    return found[-1] if found else None


def _plain(text: str) -> str:
    """Replace LaTeX commands by plain text, and "2½" by "2 1/2"."""
    for pattern, plain in _LATEX:
        text = pattern.sub(plain, text)
    return "".join(_spelled_out(character) for character in text)


def _spelled_out(character: str) -> str:
    if not character.isascii() and unicodedata.category(character) == "No":
        spelled = unicodedata.normalize("NFKC", character)
        return f" {spelled}" if "⁄" in spelled else character
    return character


def _value(match: re.Match[str]) -> Fraction | None:
    parts = match.groupdict()
    power = int((parts["power"] or parts["exponent"] or "0").replace("−", "-")[:LONGEST_NUMBER])
    if len(match[0]) > LONGEST_NUMBER or abs(power) > LONGEST_NUMBER:
        return None
    if parts["value"] is None:
        numerator, denominator = (int(parts[part].replace(",", "")) for part in ("numerator", "denominator"))
        value = int(parts["mixed"] or 0) + Fraction(numerator, denominator)
    else:
        value = Fraction(parts["value"].replace(",", "")) * Fraction(10) ** power
    return -value if parts["minus"] else value
