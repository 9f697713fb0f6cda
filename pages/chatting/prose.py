"""A text as HTML that shows every character of it and runs nothing; what Markdown means there is shown by its look.

Marks stay where they are: `**bold**` is bold with its stars, code is in a box with its fence. So a text reads well, and
still is, letter for letter, what was written.
"""

import html
import re

_VISIBLE = {code: chr(0x2400 + code) for code in range(0x20) if chr(code) not in "\n\t"} | {0x7F: "\u2421"}
# Characters that turn the direction of what follows could make a page say something that was not written.
_VISIBLE |= dict.fromkeys((*range(0x202A, 0x202F), *range(0x2066, 0x206A)), "\N{REPLACEMENT CHARACTER}")

_PARTS = re.compile(
    r"(?P<fence>^[ ]{0,3}```.*?(?:^[ ]{0,3}```[ ]*$\n?|\Z))"
    r"|(?P<code>`[^`\n]+`)"
    r"|(?P<strong>\*\*[^*\n]+\*\*|^#{1,6} [^\n]+$)",
    re.MULTILINE | re.DOTALL,
)


def escaped(text: str) -> str:
    """Text as HTML that shows it and nothing else; control characters become visible signs."""
    return html.escape(text.translate(_VISIBLE), quote=True)


def prose_markup(text: str, marked: tuple[int, int] | None = None, title: str = "") -> str:
    """A text as HTML.

    Args:
        marked: first character and the one behind the last of what is marked; None: nothing is.
        title: shown while the pointer rests on the mark.
    """
    parts, at = [], 0
    for found in _PARTS.finditer(text):
        parts.append(_marked(text, at, found.start(), marked, title))
        inner = _marked(text, found.start(), found.end(), marked, title)
        parts.append(f'<span class="{found.lastgroup}">{inner}</span>')
        at = found.end()
    parts.append(_marked(text, at, len(text), marked, title))
    return "".join(parts)


def _marked(text: str, start: int, end: int, marked: tuple[int, int] | None, title: str) -> str:
    """The characters from `start` to `end`, those of the mark in a <mark>."""
    first, last = (min(max(place, start), end) for place in marked or (end, end))
    before, inside, after = (escaped(text[a:b]) for a, b in ((start, first), (first, last), (last, end)))
    mark = f'<mark class="parting" title="{escaped(title)}">{inside}</mark>' if inside else ""
    return before + mark + after
