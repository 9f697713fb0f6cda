"""Text as HTML that shows every character and runs nothing, with Markdown highlighted.

Markdown marks stay visible: `**bold**` is set in bold with its stars, code is set in a box with its fence. So the text
is easy to read and still shows exactly what was written.
"""

import html
import re

from cna_core.shown import VISIBLE

_PARTS = re.compile(
    r"(?P<fence>^[ ]{0,3}```.*?(?:^[ ]{0,3}```[ ]*$\n?|\Z))"
    r"|(?P<code>`[^`\n]+`)"
    r"|(?P<strong>\*\*[^*\n]+\*\*|^#{1,6} [^\n]+$)",
    re.MULTILINE | re.DOTALL,
)


def escaped(text: str) -> str:
    """Text escaped for HTML; control characters become visible symbols."""
    return html.escape(text.translate(VISIBLE), quote=True)


def prose_markup(text: str, marked: tuple[int, int] | None = None, title: str = "") -> str:
    """Text as HTML.

    Args:
        marked: start and end (exclusive) of the marked characters; None marks nothing.
        title: the mark's tooltip.
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
    """The characters from `start` to `end`, with the marked ones in a <mark> element."""
    first, last = (min(max(place, start), end) for place in marked or (end, end))
    before, inside, after = (escaped(text[a:b]) for a, b in ((start, first), (first, last), (last, end)))
    mark = f'<mark class="parting" title="{escaped(title)}">{inside}</mark>' if inside else ""
    return before + mark + after
