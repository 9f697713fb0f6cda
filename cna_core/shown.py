"""Text that may be shown in one line: names and messages that may hold what a file or person wrote."""

import re

LONGEST_LINE = 1_000
"""Characters of a name. A path of a model's folder is the longest name that this project writes."""

_UNSHOWN = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
"""Control characters, line ends, characters that reverse the writing direction, and halves of characters."""


def shown(text: object, longest: int = LONGEST_LINE) -> str:
    """A text from outside as one line that can be shown: shortened, with "�" for what cannot be shown."""
    line = _UNSHOWN.sub("\N{REPLACEMENT CHARACTER}", str(text)[: longest + 1])
    return line if len(line) <= longest else f"{line[: longest - 1]}…"


def is_line(text: str) -> bool:
    """Whether a name is one line that can be shown, and not too long."""
    return len(text) <= LONGEST_LINE and not _UNSHOWN.search(text)
