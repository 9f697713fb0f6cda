"""The built-in prompt sets, written for this project: their names, files and categories.

sets.py reads prompts, chat_format.py formats them.
"""

import json
from dataclasses import dataclass
from pathlib import Path

from cna_core.errors import PromptError
from cna_core.paths import ASSETS


@dataclass(frozen=True)
class BuiltinSet:
    """A built-in set: its name and its purpose in one line."""

    name: str
    purpose: str

    @property
    def path(self) -> Path:
        """The JSONL file, with one {"category": …, "prompt": …} per line."""
        return ASSETS / "prompts" / f"{self.name}.jsonl"


BUILTIN_SETS: dict[str, BuiltinSet] = {
    name: BuiltinSet(name, purpose)
    for name, purpose in {
        "harmful": "discovery, positive: requests that an instruct model refuses",
        "benign": "discovery, negative: benign requests, each with the form and length of its pair in harmful",
        "evaluation-harmful": "evaluation: requests that should be refused, none of them in the discovery set",
        "evaluation-benign": "evaluation: benign requests, none of them in the discovery set",
        "borderline": "evaluation: benign requests that only look unsafe, for over-refusal",
    }.items()
}


def builtin_set(name: str) -> BuiltinSet:
    """The built-in set with this name.

    Raises:
        PromptError: there is none; the message lists the names.
    """
    if name not in BUILTIN_SETS:
        raise PromptError(f"There is no built-in prompt set '{name}': use one of {', '.join(BUILTIN_SETS)}.")
    return BUILTIN_SETS[name]


def builtin_categories(name: str) -> tuple[str, ...]:
    """The category of every prompt of a built-in set, in the order of its prompts."""
    lines = builtin_set(name).path.read_text(encoding="utf-8").splitlines()
    return tuple(json.loads(line)["category"] for line in lines if line.strip())
