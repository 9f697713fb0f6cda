"""What may come of bad input: a result, or an error of this project in one sentence that can be shown."""

import re
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from cna_core.errors import CnaError

Given = ParamSpec("Given")
Result = TypeVar("Result")
_NOT_SHOWN = re.compile("[\x00-\x1f\x7f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
LONGEST = 1_600


def checked(message: str) -> str:
    """The message, if it is one sentence for a person."""
    assert message and len(message) <= LONGEST, f"{len(message)} characters: {message[:200]!r}"
    assert not _NOT_SHOWN.search(message), repr(message)
    assert "Traceback" not in message
    message.encode()
    return message


def outcome(work: Callable[Given, Result], *given: Given.args, **named: Given.kwargs) -> "Result | str":
    """What `work` gives, or the message of its error. Any other exception fails the test."""
    try:
        return work(*given, **named)
    except CnaError as error:
        return checked(str(error))


def refused(work: Callable[Given, object], *given: Given.args, **named: Given.kwargs) -> str:
    """The message with which `work` refuses."""
    found = outcome(work, *given, **named)
    assert isinstance(found, str), f"accepted: {found!r:.200}"
    return found
