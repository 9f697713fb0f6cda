"""Contrast sets pasted or uploaded by users, saved in the cache folder under a name that an address can hold."""

import contextlib
import json

from cna_core.cached import DAMAGED
from cna_core.errors import PromptError
from cna_core.paths import cache_folder, written_beside
from cna_core.prompts.sets import ContrastSet, PromptSet

PREFIX = "own"


def keep(positive: PromptSet, negative: PromptSet) -> str:
    """Save a pasted or uploaded contrast set in the cache folder, and return its name.

    Raises:
        PromptError: the two sets do not make a contrast set.
    """
    chosen = ContrastSet(positive, negative)
    name = f"{PREFIX}-{chosen.sha256[:12]}"
    with written_beside(cache_folder("prompts") / f"{name}.json") as draft:
        kept = {"positive": list(positive.prompts), "negative": list(negative.prompts)}
        draft.write_text(json.dumps(kept), encoding="utf-8")
    return name


def names() -> list[str]:
    """Names of the users' contrast sets on this machine, newest first."""
    ages: list[tuple[float, str]] = []
    for file in cache_folder("prompts", create=False).glob(f"{PREFIX}-*.json"):
        with contextlib.suppress(OSError):  # deleted meanwhile by another session, or a link that leads nowhere
            ages.append((-file.stat().st_mtime, file.stem))
    return [name for _, name in sorted(ages)]


def contrast(name: str) -> ContrastSet:
    """The contrast set with this name.

    Raises:
        PromptError: it is not on this machine, or its file is damaged.
    """
    if name not in names():
        raise PromptError(
            "The prompts of this link are not on this machine. Choose the built-in prompts or upload them again."
        )
    try:
        kept = json.loads((cache_folder("prompts", create=False) / f"{name}.json").read_text(encoding="utf-8"))
        positive, negative = (PromptSet(f"own {side}", tuple(kept[side])) for side in ("positive", "negative"))
        return ContrastSet(positive, negative)
    except DAMAGED as error:
        raise PromptError(
            f"The file of the prompts {name} is damaged. Choose the built-in prompts or upload them again."
        ) from error
