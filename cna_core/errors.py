"""What can go wrong, in the user's words and as a code.

Every message is one sentence that says what is wrong and what to do; the command line prints it and leaves with
`exit_code`, a page shows it in place. Programs look at the class or at `code`, never at the sentence. Anything that is
not a `CnaError` is a bug in this project.
"""


class CnaError(Exception):
    """Base of every error this library raises on purpose.

    Args:
        message: one sentence for the user.
        code: what is wrong, as a stable word for programs; the class's own where none is given.
    """

    exit_code = 2
    code = "failed"

    def __init__(self, message: str = "", *, code: str | None = None) -> None:
        super().__init__(message)
        if code is not None:
            self.code = code


class ModelError(CnaError):
    """A model cannot be named, fetched, converted or loaded."""

    code = "model-unusable"


class PromptError(CnaError):
    """A prompt file, a prompt set or a message cannot be used."""

    code = "prompt-unusable"


class CircuitError(CnaError):
    """A circuit cannot be computed, read, or applied to this model."""

    code = "circuit-unusable"


class RunError(CnaError):
    """An evaluation run cannot be started, read or resumed."""

    code = "run-unusable"


class StrengthError(CnaError):
    """A strength is no number, too large, or not allowed where this runs."""

    code = "strength-not-allowed"


class StoppedError(CnaError):
    """The person who asked for the work stopped it; nothing finished is lost."""

    exit_code = 130
    code = "stopped"
