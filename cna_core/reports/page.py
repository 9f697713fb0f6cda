"""A report as one HTML file that opens without a network: sections of words, charts, tables and folded texts.

Knows what a section is; knows nothing of circuits, runs or conversations.
"""

import base64
import functools
import gzip
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd
import plotly.graph_objects as go
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from plotly.offline import get_plotlyjs

from cna_core import __version__


@dataclass(frozen=True)
class Folded:
    """A text that is shown only when its reader opens it.

    Args:
        title: what can be read without opening it.
        text: what is folded.
    """

    title: str
    text: str


@dataclass(frozen=True)
class Section:
    """One part of a report; everything in it is shown as text, whatever it holds.

    Args:
        heading: what it is about.
        paragraphs: words, in order.
        figure: an interactive chart, or None.
        how_to_read: one line under the chart.
        table: rows and columns, or None.
        facts: (name, value) pairs.
        code: commands, or "".
        folded: texts that are folded.
    """

    heading: str
    paragraphs: tuple[str, ...] = ()
    figure: go.Figure | None = None
    how_to_read: str = ""
    table: pd.DataFrame | None = None
    facts: tuple[tuple[str, str], ...] = ()
    code: str = ""
    folded: tuple[Folded, ...] = ()


@dataclass(frozen=True)
class Report:
    """A whole report.

    Args:
        title: what it is a report of.
        lead: its finding, in a sentence or two.
        sections: in order.
        made_at: when it was made.
    """

    title: str
    lead: str
    sections: tuple[Section, ...]
    made_at: str = field(default_factory=lambda: time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()))

    def to_html(self) -> str:
        """The report as the text of one HTML file; Plotly's script is in it once, compressed."""
        shown = [_Shown(number, section) for number, section in enumerate(self.sections)]
        with_charts = any(one.section.figure is not None for one in shown)
        return _template().render(
            report=self, sections=shown, plotly=packed_plotly() if with_charts else "", version=__version__
        )


@dataclass(frozen=True)
class _Shown:
    """A section as the template reads it."""

    number: int
    section: Section

    @property
    def chart(self) -> str:
        """The figure as JSON that can stand inside a script element."""
        figure = self.section.figure
        return "" if figure is None else str(figure.to_json()).replace("<", "\\u003c")

    @property
    def height(self) -> int:
        figure = self.section.figure
        return int((figure.layout.height if figure is not None else None) or 450)

    @property
    def head(self) -> Sequence[str]:
        return [] if self.section.table is None else [str(name) for name in self.section.table.columns]

    @property
    def rows(self) -> Sequence[Sequence[str]]:
        table = self.section.table
        return [] if table is None else [[_cell(value) for value in row] for row in table.itertuples(index=False)]


def _cell(value: object) -> str:
    if value is None or (isinstance(value, float) and value != value):
        return ""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


@functools.cache
def packed_plotly() -> str:
    """Plotly's script, gzipped, in base64: two fifths of its size, and every browser unpacks it."""
    return base64.b64encode(gzip.compress(get_plotlyjs().encode("utf-8"), 9, mtime=0)).decode("ascii")


@functools.cache
def _template():  # type: ignore[no-untyped-def]
    loader = FileSystemLoader(Path(__file__).parent)
    environment = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    return environment.get_template("report.html.j2")
