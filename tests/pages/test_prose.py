"""Texts as HTML: every character is shown, nothing is run, and Markdown is recognised by its look."""

import html
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pages.chatting.prose import escaped, prose_markup

TAGS = re.compile(r'<span class="(?:fence|code|strong)">|</span>|<mark class="parting" title="here">|</mark>')
MARKDOWN = st.text(alphabet='ab*`#< >&"\n\x00\u202e', max_size=60)


@given(MARKDOWN, st.integers(0, 60), st.integers(0, 60))
def test_every_character_is_shown_and_only_our_own_tags_are_there(text: str, one: int, other: int) -> None:
    marked = (min(one, other), max(one, other))
    markup = prose_markup(text, marked, "here")
    assert TAGS.sub("", markup) == escaped(text)
    inside = re.findall(r"<mark[^>]*>(.*?)</mark>", markup, re.DOTALL)
    assert "".join(inside) == escaped(text[slice(*marked)])


@pytest.mark.parametrize(
    ("text", "kind", "part"),
    [
        ("see **this** now", "strong", "**this**"),
        ("use `kill -9` here", "code", "`kill -9`"),
        ("so:\n```python\n<b>x</b> ** y ** z\n```\nend", "fence", "```python\n<b>x</b> ** y ** z\n```\n"),
        ("still written:\n```\nfor x in", "fence", "```\nfor x in"),
        ("## Steps\n1. go", "strong", "## Steps"),
    ],
)
def test_markdown_is_recognised(text: str, kind: str, part: str) -> None:
    assert f'<span class="{kind}">{html.escape(part)}</span>' in prose_markup(text)


def test_stars_and_ticks_that_mark_nothing_stay_as_they_are() -> None:
    assert prose_markup("2 * 3 ** 4 and `") == "2 * 3 ** 4 and `"
