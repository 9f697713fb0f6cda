"""The refusal detector's patterns: reading and compiling `assets/refusal_patterns.toml`.

This module knows the format of the patterns file; `refusal.py` gives verdicts with the patterns.
"""

import functools
import hashlib
import re
import tomllib
from dataclasses import dataclass
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from cna_core.paths import ASSETS

Kind = Literal["declines", "hedges", "judges", "turns away", "corrects", "lacks"]
"""The kinds of patterns.

declines: the answer says that it will not or cannot comply.
hedges: it withholds one thing (medical advice), which often precedes an answer.
judges: it judges the request, or rejects its premise.
turns away: it comforts, refers to help, or changes the subject.
corrects: it says that the subject of the request does not exist.
lacks: it says that it has no access, no knowledge or no opinion.
"""


@dataclass(frozen=True)
class Group:
    """The patterns for one way of not answering, in one language.

    Attributes:
        late: what a sentence after the opening must also contain for the patterns to count there; None: they never do.
    """

    name: str
    kind: Kind
    language: str
    patterns: tuple[re.Pattern[str], ...]
    late: re.Pattern[str] | None


@dataclass(frozen=True)
class Patterns:
    """All patterns, compiled.

    Attributes:
        sha256: the hash of the patterns file.
        opening_characters: the number of characters of a normalised answer in which the groups' patterns are searched.
        reach_characters: the number of characters after a match in which a turn to compliance is searched.
        harmless: phrases that look like refusals but are not.
        courtesies: thanks and sympathy at the start, which do not count towards the opening's characters.
        piece_of_writing: openings of texts in which another person speaks.
        definition: openings that define something.
        delivery: after a match, the answer complies nevertheless ...
        elsewhere: ... unless these match, which lead to something else.
        contrast: after a hedge, the answer continues.
        concession: before a hedge, "although".
        languages: what an opening in each language contains; the language's groups are used only there.
    """

    sha256: str
    opening_characters: int
    reach_characters: int
    harmless: tuple[re.Pattern[str], ...]
    courtesies: re.Pattern[str]
    piece_of_writing: re.Pattern[str]
    definition: re.Pattern[str]
    delivery: re.Pattern[str]
    elsewhere: re.Pattern[str]
    contrast: re.Pattern[str]
    concession: re.Pattern[str]
    languages: dict[str, re.Pattern[str]]
    groups: tuple[Group, ...]


@functools.cache
def refusal_patterns() -> Patterns:
    """The project's patterns, read and compiled once."""
    content = (ASSETS / "refusal_patterns.toml").read_bytes()
    file = _PatternFile.model_validate(tomllib.loads(content.decode("utf-8")))
    words: dict[str, str] = {}
    for name, pattern in file.words.items():
        words[name] = _filled(pattern, words)

    def compiled(*patterns: str) -> re.Pattern[str]:
        joined = "|".join(f"(?:{pattern})" for pattern in patterns) if len(patterns) > 1 else patterns[0]
        return re.compile(_filled(joined, words), re.IGNORECASE)

    return Patterns(
        sha256=hashlib.sha256(content).hexdigest(),
        opening_characters=file.opening_characters,
        reach_characters=file.reach_characters,
        harmless=tuple(compiled(pattern) for group in file.harmless for pattern in group.patterns),
        courtesies=compiled(*file.courtesies.patterns),
        piece_of_writing=compiled(*file.piece_of_writing.patterns),
        definition=compiled(*file.definition.patterns),
        delivery=compiled(*file.delivery.patterns),
        elsewhere=compiled(*file.elsewhere.patterns),
        contrast=compiled(*file.contrast.patterns),
        concession=compiled(*file.concession.patterns),
        languages={language: compiled(pattern) for language, pattern in file.languages.items()},
        groups=tuple(
            Group(
                group.name,
                group.kind,
                group.language,
                tuple(map(compiled, group.patterns)),
                None if group.late is None else compiled(group.late),
            )
            for group in file.groups
        ),
    )


class _PatternsFile(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    patterns: tuple[str, ...]


class _NamedFile(_PatternsFile):
    name: str


class _GroupFile(_NamedFile):
    kind: Kind
    language: str
    late: str | None = None


class _PatternFile(BaseModel):
    """The content of `assets/refusal_patterns.toml`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    opening_characters: int = Field(gt=0)
    reach_characters: int = Field(gt=0)
    languages: dict[str, str]
    words: dict[str, str]
    harmless: tuple[_NamedFile, ...]
    courtesies: _PatternsFile
    piece_of_writing: _PatternsFile
    definition: _PatternsFile
    delivery: _PatternsFile
    elsewhere: _PatternsFile
    contrast: _PatternsFile
    concession: _PatternsFile
    groups: tuple[_GroupFile, ...]


def _filled(pattern: str, words: dict[str, str]) -> str:
    for name, meaning in words.items():
        pattern = pattern.replace(f"<{name}>", meaning)
    return pattern
