"""The errors of this project, each with a message for the user and a code for programs.

A message is one sentence that says what is wrong and what to do. The command line prints it and exits with `exit_code`;
a page shows it in place. Programs check the class or `code`, never the message. Any exception that is not a `CnaError`
is a bug in this project.
"""

from cna_core.shown import shown

LONGEST_MESSAGE = 1_500
"""A message may quote a name from outside, which may be long."""


class CnaError(Exception):
    """Base of every error this library raises on purpose.

    Args:
        message: one sentence for the user: what is wrong and what to do.
        code: a stable name of the problem for programs; None takes the class's.
    """

    exit_code = 2
    code = "failed"

    def __init__(self, message: str = "", *, code: str | None = None) -> None:
        super().__init__(shown(message, LONGEST_MESSAGE))
        if code is not None:
            self.code = code


class ModelError(CnaError):
    """A model cannot be found, downloaded, converted or loaded."""

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
    """A strength is not a number, too large, or above this installation's limit."""

    code = "strength-not-allowed"


class StorageError(CnaError, OSError):
    """A file cannot be written: the disk is full, the folder is read-only, or it was deleted meanwhile.

    It is an OSError too, so code that can do without the file catches it as one.

    Args:
        message: one sentence for the user.
        cause: the system's error; `errno` and `strerror` are taken from it.
    """

    code = "storage-unusable"

    def __init__(self, message: str, cause: OSError | None = None) -> None:
        super().__init__(message)
        if cause is not None:
            self.errno, self.strerror = cause.errno, cause.strerror

    def __str__(self) -> str:
        return str(self.args[0])


class StoppedError(CnaError):
    """The user stopped the work. Finished work is saved."""

    exit_code = 130
    code = "stopped"
