"""Text that may be shown: names, messages and answers that may hold what a file, a person or a model wrote."""

import re

LONGEST_LINE = 1_000
"""Characters of a name. A path of a model's folder is the longest name that this project writes."""

_UNSHOWN = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
"""Control characters, line ends, characters that reverse the writing direction, and halves of characters."""

_HALF = re.compile("[\ud800-\udfff]")

_WITHOUT_SYMBOL = (range(0x80, 0xA0), range(0x202A, 0x202F), range(0x2066, 0x206A), range(0xD800, 0xE000))
VISIBLE = {code: "\N{REPLACEMENT CHARACTER}" for codes in _WITHOUT_SYMBOL for code in codes} | {0x7F: "\u2421"}
VISIBLE |= {code: chr(0x2400 + code) for code in range(0x20) if chr(code) not in "\n\t"}
"""For `str.translate`: a symbol for each control character of a text, and "�" for what else cannot be shown."""


def shown(text: object, longest: int = LONGEST_LINE) -> str:
    """A text from outside as one line that can be shown: shortened, with "�" for what cannot be shown."""
    line = _UNSHOWN.sub("\N{REPLACEMENT CHARACTER}", str(text)[: longest + 1])
    return line if len(line) <= longest else f"{line[: longest - 1]}…"


def is_line(text: str) -> bool:
    """Whether a name is one line that can be shown, and not too long."""
    return len(text) <= LONGEST_LINE and not _UNSHOWN.search(text)


def is_whole(text: str) -> bool:
    """Whether a text has no half of a character (a lone surrogate), so that it can be written and encoded."""
    return text.isascii() or not _HALF.search(text)
