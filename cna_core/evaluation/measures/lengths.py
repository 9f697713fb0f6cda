"""At which lengths an answer is judged before it ends, and how what is noted there is named.

A run generates each answer once, up to its maximum length. Some measures also look at its beginning, cut after 32, 64,
128 and 256 tokens. In observations and points, a number of a beginning has the number's own name, then "_at_32".
"""

from collections.abc import Callable, Mapping, Sequence

JUDGED_AT = (32, 64, 128, 256)
"""Lengths in tokens; what an answer's whole text gives stands beside them under the plain name."""


def lengths_below(longest: int) -> tuple[int, ...]:
    """The lengths at which answers of at most `longest` tokens are judged on the way, ascending."""
    return tuple(length for length in JUDGED_AT if length < longest)


def at_length(name: str, length: int | None) -> str:
    """The name of a number at a length; None: of the whole answer."""
    return name if length is None else f"{name}_at_{length}"


def lengths_noted(name: str, observations: Sequence[Mapping[str, float]]) -> tuple[int, ...]:
    """The lengths at which every observation has this number; a run that was begun by an earlier version has none."""
    return tuple(length for length in JUDGED_AT if all(at_length(name, length) in one for one in observations))


def noted_on_the_way(
    texts: Sequence[str], texts_at: Mapping[int, Sequence[str]], note: Callable[[str], dict[str, float]]
) -> list[dict[str, float]]:
    """What `note` says of each whole text and of its beginnings, in one observation each.

    Args:
        texts: n whole answers.
        texts_at: length → n beginnings.
        note: numbers of one text; asked once where a beginning is the whole.
    """
    noted = []
    for row, whole in enumerate(texts):
        of_whole = note(whole)
        observation = dict(of_whole)
        for length, beginnings in texts_at.items():
            of_part = of_whole if beginnings[row] == whole else note(beginnings[row])
            observation |= {at_length(name, length): value for name, value in of_part.items()}
        noted.append(observation)
    return noted
