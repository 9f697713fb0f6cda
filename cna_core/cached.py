"""Results that are kept on disk, so that they are computed once: `ResultCache`.

An entry is one file in the cache folder, under a name made of all that the result depends on. It is written beside and
renamed, a damaged one is removed and made again, and the longest unused go when a kind's limit is reached. Knows
nothing of what the results are.
"""

import contextlib
import hashlib
import json
import logging
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

from cna_core.errors import CnaError
from cna_core.paths import cache_folder, mark_used, trim_cache, written_beside

Result = TypeVar("Result")

DAMAGED = (
    AttributeError,
    CnaError,
    EOFError,
    IndexError,
    KeyError,
    OSError,
    TypeError,
    ValueError,
    zipfile.BadZipFile,
)
"""What reading a damaged file may raise."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ResultCache(Generic[Result]):
    """One kind of results in the cache folder, a file each.

    What a result depends on is given as values that JSON can hold: texts, numbers, lists, dictionaries. A version of
    the file's format belongs to them.

    Args:
        kind: the cache's folder, such as "activations".
        suffix: of the files' names, such as ".json".
        read: the result in a file; raises one of `DAMAGED` where the file is not whole.
        write: write a result to a path.
        limit_bytes: how much all entries may take before the longest unused ones go.

    Example:
        CACHE = ResultCache("hashes", ".txt", read=Path.read_text, write=lambda text, path: path.write_text(text))
        found = CACHE.find(name, size) or CACHE.keep(computed(), name, size)
    """

    kind: str
    suffix: str
    read: Callable[[Path], Result]
    write: Callable[[Result, Path], object]
    limit_bytes: int = 1 << 30

    def path(self, *depends_on: object) -> Path:
        """Where the result that depends on exactly these values is kept; it may not exist."""
        content = json.dumps(depends_on, sort_keys=True)
        return cache_folder(self.kind) / f"{hashlib.sha256(content.encode()).hexdigest()[:32]}{self.suffix}"

    def find(self, *depends_on: object) -> Result | None:
        """The result that is kept for these values, or None; using it makes it the last to be removed."""
        try:
            path = self.path(*depends_on)
        except OSError as error:
            log.warning("The cache folder's '%s' cannot be used (%s).", self.kind, error)
            return None
        if not path.exists():
            return None
        try:
            found = self.read(path)
        except DAMAGED as error:
            log.warning("%s is damaged (%s), so it is removed and made again.", path, error)
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)
            return None
        mark_used(path)
        return found

    def keep(self, result: Result, *depends_on: object) -> Result:
        """Keep the result for these values, and remove the longest unused ones until the kind fits its limit.

        Where the disk is full or must not be written to, the result is not kept, and the log says so.

        Returns:
            The result.
        """
        try:
            path = self.path(*depends_on)
            with written_beside(path) as draft:
                self.write(result, draft)
            trim_cache(self.limit_bytes, self.kind, spare=path)
        except OSError as error:
            log.warning("A result could not be kept in the cache folder's '%s' (%s).", self.kind, error)
        return result
