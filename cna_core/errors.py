"""What can go wrong, in the user's words.

Every message is one sentence that says what is wrong and what to do; the command line prints it and leaves with
`exit_code`, a page shows it in place. Anything that is not a `CnaError` is a bug in this project.
"""


class CnaError(Exception):
    """Base of every error this library raises on purpose."""

    exit_code = 2


class ModelError(CnaError):
    """A model cannot be named, fetched, converted or loaded."""


class PromptError(CnaError):
    """A prompt file, a prompt set or a message cannot be used."""


class CircuitError(CnaError):
    """A circuit cannot be computed, read, or applied to this model."""


class RunError(CnaError):
    """An evaluation run cannot be started, read or resumed."""


class StoppedError(CnaError):
    """The person who asked for the work stopped it; nothing finished is lost."""

    exit_code = 130
