"""A disk cache for results, so that each is computed once: `ResultCache`.

An entry is a file in the cache folder, named after a hash of everything that the result depends on. Files are written
under a temporary name and then renamed. A damaged file is removed and computed again. When a kind of result reaches its
size limit, the least recently used files are removed. This module does not know what the results are.
"""

import contextlib
import hashlib
import json
import logging
import re
import zipfile
from collections.abc import Callable, Sequence
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
    OverflowError,
    RecursionError,
    TypeError,
    ValueError,
    zipfile.BadZipFile,
)
"""The exceptions that reading a damaged file may raise."""

_FILE_NAME = re.compile(r"[0-9a-f]{32}\.\w+")

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ResultCache(Generic[Result]):
    """One kind of result in the cache folder, one file for each result.

    What a result depends on is given as JSON values: strings, numbers, lists, dictionaries. Include a version of the
    file's format among them.

    Args:
        kind: the cache's folder, such as "activations".
        suffix: the suffix of the file names, such as ".json".
        read: reads the result from a file; raises one of `DAMAGED` if the file is damaged.
        write: writes a result to a path.
        limit_bytes: the size of all files above which the least recently used ones are removed.

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
        """The path of the result that depends on exactly these values; the file may not exist."""
        content = json.dumps(depends_on, sort_keys=True)
        return cache_folder(self.kind) / f"{hashlib.sha256(content.encode()).hexdigest()[:32]}{self.suffix}"

    def find(self, *depends_on: object) -> Result | None:
        """The stored result for these values, or None. Marks it as used."""
        try:
            path = self.path(*depends_on)
        except OSError as error:
            log.warning("The cache folder's '%s' cannot be used (%s).", self.kind, error)
            return None
        return self._found(path)

    def note(self, depends_on: Sequence[object], *known_before: object) -> None:
        """Let `find_noted` find the result for `depends_on` by values that are known before anything is computed."""
        with contextlib.suppress(OSError), written_beside(self._note(known_before)) as draft:
            draft.write_text(self.path(*depends_on).name)

    def find_noted(self, *known_before: object) -> Result | None:
        """The stored result that was noted under these values, or None."""
        note = self._note(known_before)
        try:
            name = note.read_text()
        except (OSError, ValueError):
            return None
        return self._found(note.parent.parent / self.kind / name) if _FILE_NAME.fullmatch(name) else None

    def _note(self, known_before: Sequence[object]) -> Path:
        content = json.dumps(known_before, sort_keys=True)
        folder = cache_folder(f"{self.kind}-notes", create=False)
        return folder / f"{hashlib.sha256(content.encode()).hexdigest()[:32]}.txt"

    def _found(self, path: Path) -> Result | None:
        if not path.exists():
            return None
        try:
            found = self.read(path)
        except DAMAGED as error:
            log.warning("%s is damaged (%s). It is removed and computed again.", path, error)
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)
            return None
        mark_used(path)
        return found

    def keep(self, result: Result, *depends_on: object) -> Result:
        """Store the result for these values, and remove the least recently used ones beyond the size limit.

        If the disk is full or read-only, the result is not stored, and a warning is logged.

        Returns:
            The result.
        """
        try:
            path = self.path(*depends_on)
            with written_beside(path) as draft:
                self.write(result, draft)
            trim_cache(self.limit_bytes, self.kind, spare=path)
        except OSError as error:
            log.warning("A result could not be stored in the cache folder's '%s' (%s).", self.kind, error)
        return result
