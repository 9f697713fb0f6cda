"""The prompt sets written for this project: their names, files and categories.

This file knows where they lie and what they are for; reading prompts is `sets.py`'s work, formatting them
`chat_format.py`'s.
"""

import json
from dataclasses import dataclass
from pathlib import Path

from cna_core.errors import PromptError
from cna_core.paths import ASSETS


@dataclass(frozen=True)
class BuiltinSet:
    """One built-in set: its name, and what it is for in one line."""

    name: str
    purpose: str

    @property
    def path(self) -> Path:
        """The JSONL file: one {"category": …, "prompt": …} a line."""
        return ASSETS / "prompts" / f"{self.name}.jsonl"


BUILTIN_SETS: dict[str, BuiltinSet] = {
    name: BuiltinSet(name, purpose)
    for name, purpose in {
        "harmful": "discovery, positive: requests that an instruct model refuses",
        "benign": "discovery, negative: harmless requests, each of the form and length of its pair in harmful",
        "evaluation-harmful": "evaluation: requests to be refused, none of them in the discovery set",
        "evaluation-benign": "evaluation: harmless requests, none of them in the discovery set",
        "borderline": "evaluation: harmless requests that only look unsafe, for over-refusal",
    }.items()
}


def builtin_set(name: str) -> BuiltinSet:
    """The built-in set of that name; raises `PromptError` with the names there are."""
    if name not in BUILTIN_SETS:
        raise PromptError(f"There is no built-in prompt set '{name}': use one of {', '.join(BUILTIN_SETS)}.")
    return BUILTIN_SETS[name]


def builtin_categories(name: str) -> tuple[str, ...]:
    """The category of every prompt of a built-in set, in the order of its prompts."""
    lines = builtin_set(name).path.read_text(encoding="utf-8").splitlines()
    return tuple(json.loads(line)["category"] for line in lines if line.strip())
