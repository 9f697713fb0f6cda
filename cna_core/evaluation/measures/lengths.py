"""The lengths at which answers are also judged, and the names of the results.

A run generates each answer once, up to its maximum length. Some measures also judge its beginning, cut after 32, 64,
128 and 256 tokens. In observations and points, the result for a beginning has the result's name, then "_at_32".
"""

from collections.abc import Callable, Mapping, Sequence

JUDGED_AT = (32, 64, 128, 256)
"""Lengths in tokens; the result for the full answer has the plain name."""


def lengths_below(longest: int) -> tuple[int, ...]:
    """The lengths at which answers of at most `longest` tokens are also judged, ascending."""
    return tuple(length for length in JUDGED_AT if length < longest)


def at_length(name: str, length: int | None) -> str:
    """The name of a result at a length; None: of the full answer."""
    return name if length is None else f"{name}_at_{length}"


def lengths_noted(name: str, observations: Sequence[Mapping[str, float]]) -> tuple[int, ...]:
    """The lengths at which every observation has this result; a run that an earlier version started has none."""
    return tuple(length for length in JUDGED_AT if all(at_length(name, length) in one for one in observations))


def noted_on_the_way(
    texts: Sequence[str], texts_at: Mapping[int, Sequence[str]], note: Callable[[str], dict[str, float]]
) -> list[dict[str, float]]:
    """One observation per answer: the results of `note` for the full text and for its beginnings.

    Args:
        texts: n full answers.
        texts_at: length → n beginnings.
        note: computes the results of one text; called once if a beginning is the full text.
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
