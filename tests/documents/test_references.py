"""What code and documents point to is in the repository."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")] + sorted(ROOT.glob("docs/*.md"))
SOURCES = [
    file for folder in ("cna_core", "pages", "tests", "benchmarks") for file in sorted((ROOT / folder).rglob("*.py"))
]
NAMED_FILE = re.compile(r"(?<![\w/.-])((?:assets|benchmarks|cna_core|docs|examples|pages|tests)/[\w./-]+\.\w+)")
LINK = re.compile(r"\]\((?!https?://|#)([^)#\s]+)")
GENERATED = ("docs/reference/",)


def named_files(file: Path) -> Iterator[Path]:
    """The files of this repository that a text names by their path from its root."""
    for name in NAMED_FILE.findall(file.read_text(encoding="utf-8")):
        if not name.startswith(GENERATED):
            yield ROOT / name.rstrip(".")


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_a_document_names_and_links_files_that_exist(document: Path) -> None:
    linked = {document.parent / name for name in LINK.findall(document.read_text(encoding="utf-8"))}
    missing = {path for path in linked | set(named_files(document)) if not path.exists()}
    assert missing == set()


def test_docstrings_and_comments_cite_documents_that_exist() -> None:
    missing = {
        (source.name, path.name)
        for source in SOURCES
        for path in named_files(source)
        if path.suffix == ".md" and not path.exists()
    }
    assert missing == set()


def test_nothing_cites_documents_outside_the_repository() -> None:
    outside = re.compile(r"\.\./shared|\b(?:METHOD|MODEL_FACTS|UI_FACTS|DESIGN|STYLE)\.md")
    own = Path(__file__)
    citing = {
        file.name for file in [*SOURCES, *DOCUMENTS] if file != own and outside.search(file.read_text(encoding="utf-8"))
    }
    assert citing == set()
