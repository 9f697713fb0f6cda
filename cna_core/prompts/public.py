"""Public sets on this machine: download and check them, or find them in a folder, and read their rows.

If a folder (an argument, or `$CNA_PUBLIC_SETS`) holds a set, that copy is used. Otherwise the Hub's file is downloaded
once at its pinned commit and stored in the cache folder. A file without the pinned SHA-256 is never used. If no hash is
pinned, the hash of the first download is saved, and different files are rejected from then on. sets.py makes prompts
from the rows, the evaluation room makes questions.
"""

import csv
import io
import json
import os
import re
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cna_core.cached import DAMAGED
from cna_core.errors import ModelError, PromptError
from cna_core.models.disk import hash_file, one_at_a_time
from cna_core.models.hub import NoHubError, download_data_file, endpoint
from cna_core.paths import cache_folder, mark_used, path_named, written_beside
from cna_core.progress import Report
from cna_core.prompts.public_catalog import PublicFile, PublicSet, public_set

FOLDER_VARIABLE = "CNA_PUBLIC_SETS"
LARGEST_FILE_BYTES = 200_000_000

Row = dict[str, Any]
"""One row of a set's file: column names in lower case, and the cells as in the file."""


@dataclass(frozen=True)
class PublicCopy:
    """A set's file on this machine.

    Args:
        known: the set.
        path: the file.
        layout: how to read it.
        origin: where it came from and what was checked, for display.
    """

    known: PublicSet
    path: Path
    layout: PublicFile
    origin: str

    @property
    def credit(self) -> str:
        """The set's license, its authors, and the origin of this copy, in one line."""
        return f"{self.known.license} · {self.known.source} · {self.origin}"

    def rows(self) -> list[Row]:
        """The rows that belong to the set, in the file's order.

        Raises:
            PromptError: the file cannot be read, or lacks a column.
        """
        rows = _read(self.path)
        wanted = [self.layout.prompt, self.layout.category, *self.layout.where]
        there = set(rows[0]) if rows else set()
        if missing := [column for column in wanted if column and column.lower() not in there]:
            raise PromptError(
                f"{self.path} has no column '{missing[0]}', so it is not the file of {self.known.title}: "
                f"download it from {self.known.hub_id}."
            )
        where = {column.lower(): value for column, value in self.layout.where.items()}
        return [row for row in rows if all(str(row[column]) == value for column, value in where.items())]

    def prompts(self) -> list[tuple[str, str]]:
        """Each row's prompt and category ("" if the file has none). Raises as `rows` does."""
        prompt, category = self.layout.prompt.lower(), (self.layout.category or "").lower()
        return [(str(row[prompt] or ""), str(row[category] or "") if category else "") for row in self.rows()]


def find_public(
    name: str, folder: str | Path | None = None, *, progress: Report | None = None, stop: threading.Event | None = None
) -> PublicCopy:
    """The file of a public set, downloaded if it is not on this machine.

    Args:
        name: as in the catalog, with or without "public:".
        folder: the folder with the set's file; None uses `$CNA_PUBLIC_SETS` if it holds the file, or else the cache and
            the Hub.
        progress: reports the download.
        stop: stops the download.

    Raises:
        PromptError: there is no such set, it is not in the folder, or it cannot be downloaded.
        StoppedError: stopped.
    """
    known = public_set(name)
    if folder is not None:
        found = _in_folder(known, path_named(folder))
        if found is None:
            names = " or ".join(dict.fromkeys(Path(file.name).name for file in known.files))
            raise PromptError(f"The folder '{folder}' has no file of {known.title}: name the file {names}.")
        return found
    return _in_variable_folder(known) or _in_cache(known) or _from_hub(known, progress, stop)


def is_public_here(name: str) -> bool:
    """Whether a public set can be read without a download."""
    known = public_set(name)
    return _in_variable_folder(known) is not None or _in_cache(known) is not None


# --- In a folder ------------------------------------------------------------------------------------------------------


def _in_variable_folder(known: PublicSet) -> PublicCopy | None:
    folder = os.environ.get(FOLDER_VARIABLE)
    return _in_folder(known, path_named(folder)) if folder else None


def _in_folder(known: PublicSet, folder: Path) -> PublicCopy | None:
    for layout in known.files:
        for path in (folder / layout.name, folder / Path(layout.name).name):
            if path.is_file():
                return PublicCopy(known, path, layout, _folder_origin(known, path))
    return None


def _folder_origin(known: PublicSet, path: Path) -> str:
    published = {file.sha256 for file in known.files if file.sha256}
    if hash_file(path) in published:
        return "the published file from a folder, SHA-256 checked"
    return f"a copy from a folder, {'differs from the published file' if published else 'not checked'}"


# --- From the Hub -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Pin:
    revision: str | None = None
    sha256: str | None = None


def _pin_of(known: PublicSet) -> _Pin:
    """The commit and hash that a file must have: from the catalog, or else saved at the first download."""
    note, kept = _note(known), _Pin()
    if note.is_file():
        try:
            kept = _Pin(**json.loads(note.read_text(encoding="utf-8")))
            if not re.fullmatch("[0-9a-f]{64}", str(kept.sha256)):
                raise ValueError("no SHA-256")
        except DAMAGED as error:  # not forgotten without a word: any file would be trusted then
            raise PromptError(
                f"{note}, the note of the first download of {known.title}, is damaged: delete it to trust the next "
                "download."
            ) from error
    return _Pin(known.revision or kept.revision, known.hub_file.sha256 or kept.sha256)


def _note(known: PublicSet) -> Path:
    return cache_folder("pins", create=False) / f"{known.id}.json"


def _cached_path(known: PublicSet) -> Path:
    return cache_folder("public_sets", create=False) / known.hub_id.replace("/", "--") / known.hub_file.name


def _in_cache(known: PublicSet) -> PublicCopy | None:
    path, pin = _cached_path(known), _pin_of(known)
    if pin.sha256 is None or not path.is_file() or hash_file(path) != pin.sha256:
        return None
    mark_used(path)
    checked = "checked" if known.is_pinned else "the same as at the first download"
    return _fetched(known, path, pin.revision, f"SHA-256 {checked}")


def _from_hub(known: PublicSet, progress: Report | None, stop: threading.Event | None) -> PublicCopy:
    path = _cached_path(known)
    folder = cache_folder("public_sets") / known.hub_id.replace("/", "--")
    try:
        with one_at_a_time(folder, progress=progress, stop=stop):
            if (found := _in_cache(known)) is not None:  # downloaded by another process meanwhile
                return found
            path.unlink(missing_ok=True)
            pin = _pin_of(known)
            arrived = download_data_file(
                known.hub_id, pin.revision, known.hub_file.name, folder, progress=progress, stop=stop
            )
            sha256 = hash_file(arrived.path)
            if pin.sha256 is not None and sha256 != pin.sha256:
                arrived.path.unlink()
                raise PromptError(
                    f"{known.title} from {known.hub_id} has a wrong SHA-256 ({sha256[:12]}… instead of "
                    f"{pin.sha256[:12]}…) and was deleted: try again, or give a folder that holds the set."
                )
            if not known.is_pinned:
                with written_beside(_note(known)) as draft:
                    draft.write_text(json.dumps({"revision": arrived.revision, "sha256": sha256}), encoding="utf-8")
    except NoHubError as error:
        raise PromptError(
            f"{known.title} is not on this machine, and the Hub at {endpoint()} does not answer: connect to the "
            f"network, or put {Path(known.hub_file.name).name} into a folder and set ${FOLDER_VARIABLE} to that folder."
        ) from error
    except ModelError as error:
        raise PromptError(str(error)) from error
    checked = "checked" if pin.sha256 is not None else "saved, because the first download is trusted"
    return _fetched(known, arrived.path, arrived.revision, f"SHA-256 {checked}")


def _fetched(known: PublicSet, path: Path, revision: str | None, checked: str) -> PublicCopy:
    return PublicCopy(known, path, known.hub_file, f"{known.hub_id}, revision {(revision or '')[:7]}, {checked}")


# --- Reading ----------------------------------------------------------------------------------------------------------


def _read(path: Path) -> list[Row]:
    if path.stat().st_size > LARGEST_FILE_BYTES:
        raise PromptError(f"{path} is larger than {LARGEST_FILE_BYTES // 1_000_000} MB, so it is not a public set.")
    readers = {".csv": _read_csv, ".jsonl": _read_jsonl, ".parquet": _read_parquet}
    try:
        rows = readers[path.suffix.lower()](path)
    except (OSError, ValueError, RecursionError, csv.Error) as error:
        reason = re.split(r"[.\n]", str(error), maxsplit=1)[0]
        raise PromptError(f"{path} cannot be read ({reason}): download it again.") from error
    return [{str(column).strip().lower(): cell for column, cell in row.items() if column} for row in rows]


def _read_csv(path: Path) -> list[Row]:
    return list(csv.DictReader(io.StringIO(path.read_text(encoding="utf-8-sig"), newline=""), strict=True))


def _read_jsonl(path: Path) -> list[Row]:
    lines = path.read_text(encoding="utf-8-sig").splitlines()
    rows = [json.loads(line) for line in lines if line.strip()]
    if not all(isinstance(row, dict) for row in rows):
        raise ValueError("a line is not a JSON object")
    return rows


def _read_parquet(path: Path) -> list[Row]:
    import pandas as pd

    return pd.read_parquet(path).to_dict("records")
