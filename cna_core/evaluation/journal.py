"""Runs on disk: every finished batch is saved immediately, so that a killed process loses at most one batch.

A run's folder is named after everything that determines its measurements, so the same run, started again, finds its
finished batches. The folder contains about.json (the run without results), circuit.json and inputs.json (the data for
resuming), journal-N.jsonl (one line per finished batch, one file per process), run.json when the run is finished, and
review.json when a person has judged its answers. This module knows nothing about models; `measures/` and `points.py`
define what the records mean.
"""

import hashlib
import json
import os
import re
import shutil
import zlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from cna_core.cached import DAMAGED
from cna_core.circuits.circuit import Circuit
from cna_core.errors import CircuitError, RunError
from cna_core.evaluation.judgements import Review
from cna_core.evaluation.old_formats import setting_of_journal_1
from cna_core.evaluation.runs import Run, RunSettings, SetName
from cna_core.evaluation.setting import Setting
from cna_core.models.layout import ModelIdentity
from cna_core.paths import cache_folder, storing, written_beside

JOURNAL_FORMAT = "cna-run-journal/2"
OLDER_FORMATS = ("cna-run-journal/1",)
"""Journals of this version can still be read; new records are added in the present format."""
LONGEST_NAME = 80
_IDENTITY = re.compile(r"[0-9a-f]{16}")


@dataclass(frozen=True)
class Record:
    """The observations for one prompt of a set under one setting, from one kind of reading.

    Args:
        observations: the numbers that each measure observed, by its name.
        text: the answer; None if only the first token was computed.
        thought: the thought before the answer; None if the model was not asked to think.
        unfinished: whether the thought did not end, so that there is no answer.
    """

    reads: Literal["answers", "first-token"]
    prompt_set: SetName
    prompt: int
    setting: Setting
    observations: dict[str, dict[str, float]]
    text: str | None = None
    thought: str | None = None
    unfinished: bool = False

    def to_list(self) -> list[Any]:
        setting = [self.setting.method, self.setting.strength, self.setting.fraction, self.setting.twin_of]
        setting += [self.setting.circuit] if self.setting.circuit else []
        thought = [] if self.thought is None else [self.thought, self.unfinished]
        return [self.reads, self.prompt_set, self.prompt, setting, self.observations, self.text, *thought]

    @classmethod
    def from_list(cls, content: list[Any]) -> "Record":
        reads, prompt_set, prompt, given, observations, text, *thought = content
        setting = Setting(*given) if len(given) >= 4 else Setting(**setting_of_journal_1(*given))
        return cls(reads, prompt_set, int(prompt), setting, observations, text, *thought)


def _line(batch: int, records: list[list[Any]]) -> str:
    """A line of the journal: the batch, its records, and a checksum of both."""
    content = json.dumps([batch, records], separators=(",", ":"))
    return f'{content[:-1]},"{zlib.crc32(content.encode()):08x}"]\n'


def _of_line(line: str) -> tuple[int, list[Record]]:
    """The batch and its records.

    Raises:
        ValueError, TypeError, RecursionError, RunError: the line is damaged or was cut off.
    """
    content = json.loads(line)
    batch, records = content[:2]
    if len(content) > 2 and _line(batch, records).strip() != line.strip():  # lines of earlier versions have no checksum
        raise ValueError("the checksum does not match")
    return int(batch), [Record.from_list(record) for record in records]


@dataclass(frozen=True)
class StoredRun:
    """An entry of the list of runs.

    Args:
        identity: the name of its folder, 16 hexadecimal digits.
        about: the run without results.
        batches, done: the number of batches, in all and finished.
        written: when its run file was written, in nanoseconds; None while there is none.
    """

    identity: str
    about: Run
    batches: int
    done: int
    written: int | None

    @property
    def finished(self) -> bool:
        """Whether its run file exists."""
        return self.written is not None

    @property
    def name(self) -> str:
        return self.about.name or f"{self.about.layers_and_size}, {self.about.created[:16].replace('T', ' ')}"


class Journal:
    """The folder of one run."""

    def __init__(self, identity: str) -> None:
        if not _IDENTITY.fullmatch(identity):
            raise RunError(f"{identity!r} is not the identity of a run: use 16 hexadecimal digits.")
        self.identity = identity
        self.folder = cache_folder("runs", identity, create=False)

    @classmethod
    def start(cls, about: Run, batches: int, identity: str | None = None) -> "Journal":
        """The journal of this run: a new one, or the existing one of an interrupted run.

        Args:
            identity: the identity of a run that an earlier version started, whose folder has another name; None: the
                run's own.
        """
        journal = cls(identity or run_identity(about.model, about.circuit_sha256, about.settings))
        try:
            journal.about()
        except RunError:  # new or damaged: write it; batches in the journal stay
            journal._write_about(about, batches)
        return journal

    def keep_inputs(self, circuit: Circuit, inputs: dict[str, Any]) -> None:
        """Save what a resumed run needs besides its settings: the largest circuit, and further JSON data."""
        try:
            Circuit.load(self.folder / "circuit.json")
        except CircuitError:  # missing or damaged
            circuit.save(self.folder / "circuit.json")
        with written_beside(self.folder / "inputs.json") as draft:
            draft.write_text(json.dumps(inputs), encoding="utf-8")

    def inputs(self) -> tuple[Circuit, dict[str, Any]]:
        """The data that `keep_inputs` saved.

        Raises:
            RunError: they are missing: the run was uploaded as a file, or its folder is damaged.
        """
        try:
            inputs = json.loads((self.folder / "inputs.json").read_text(encoding="utf-8"))
            return Circuit.load(self.folder / "circuit.json"), inputs
        except DAMAGED as error:
            raise RunError(
                "This run cannot be resumed, because its inputs are not on this machine; start a new run."
            ) from error

    def about(self) -> tuple[Run, int]:
        """The run without results, and its number of batches.

        Raises:
            RunError: there is no such run, or its folder is damaged.
        """
        try:
            content = json.loads((self.folder / "about.json").read_text(encoding="utf-8"))
            form = content["format"]
            if form in (JOURNAL_FORMAT, *OLDER_FORMATS):
                return Run.model_validate(content["run"]), int(content["batches"])
        except DAMAGED as error:
            try:
                return _without_results(Run.load(self.folder / "run.json")), 0  # a finished run describes itself
            except RunError:
                raise RunError(f"There is no run {self.identity}, or it is damaged; start it again.") from error
        raise RunError(f"Run {self.identity} is of an unknown format, {form!r}: delete it.")

    def append(self, batch: int, records: Iterable[Record], process: int = 0) -> None:
        """Save a finished batch: one line, which is on disk when this returns.

        Raises:
            StorageError: the disk is full or read-only, or the run was deleted meanwhile.
        """
        line = _line(batch, [record.to_list() for record in records])
        path = self.folder / f"journal-{process}.jsonl"
        with storing(path), path.open("ab", buffering=0) as file:  # without a buffer, a line is one write
            content = ("\n" if _is_torn(path) else "").encode() + line.encode()
            while content:
                content = content[file.write(content) :]
            os.fsync(file.fileno())

    def read(self) -> dict[int, list[Record]]:
        """The finished batches and their records; a line that a killed process left incomplete is skipped."""
        found: dict[int, list[Record]] = {}
        for path in sorted(self.folder.glob("journal-*.jsonl")):
            found |= self._read(path)
        return found

    @staticmethod
    def _read(path: Path) -> dict[int, list[Record]]:
        found: dict[int, list[Record]] = {}
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
            try:
                batch, records = _of_line(line)
            except DAMAGED:
                continue
            found[batch] = records
        return found

    def change(self, about: Run, batches: int, changed: Callable[[Record], Record]) -> None:
        """Replace every record by what `changed` makes of it, then what the run says of itself."""
        for path in self.folder.glob("journal-*.jsonl"):
            lines = []
            for batch, records in self._read(path).items():
                lines.append(_line(batch, [changed(one).to_list() for one in records]))
            with written_beside(path) as draft:
                draft.write_text("".join(lines), encoding="utf-8")
        self._write_about(about, batches)

    def finish(self, run: Run) -> None:
        run.save(self.folder / "run.json")

    def finished_run(self) -> Run | None:
        """The finished run with its present name and review, or None if it is unfinished or its file is damaged.

        Raises:
            RunError: its file is damaged, and there is no journal to make it from again: it was uploaded.
        """
        path = self.folder / "run.json"
        if not path.exists():
            return None
        try:
            run = Run.load(path)
        except RunError:
            if not any(self.folder.glob("journal-*.jsonl")):
                raise
            path.unlink(missing_ok=True)  # rebuilt from the journal
            return None
        return run.model_copy(update={"name": self.about()[0].name, "review": self._review() or run.review})

    def keep_review(self, review: Review) -> None:
        """Save a review with the run, in place of an earlier one.

        Raises:
            RunError: it cannot be written.
        """
        try:
            with written_beside(self.folder / "review.json") as draft:
                draft.write_text(review.model_dump_json(), encoding="utf-8")
        except OSError as error:
            raise RunError(f"The review cannot be saved: {error.strerror or error}.") from error

    def _review(self) -> Review | None:
        try:
            return Review.model_validate_json((self.folder / "review.json").read_bytes())
        except (OSError, ValueError):
            return None

    def clear(self) -> None:
        """Delete all measurements."""
        for path in [*self.folder.glob("journal-*.jsonl"), self.folder / "run.json", self.folder / "review.json"]:
            path.unlink(missing_ok=True)

    def _write_about(self, about: Run, batches: int) -> None:
        content = {"format": JOURNAL_FORMAT, "run": json.loads(about.to_json()), "batches": batches}
        with written_beside(self.folder / "about.json") as draft:
            draft.write_text(json.dumps(content), encoding="utf-8")


def run_identity(model: ModelIdentity, circuit_sha256: str, settings: RunSettings) -> str:
    """16 hexadecimal digits that are equal for two runs exactly if they measure the same.

    They do not depend on how the circuit was selected: the circuit's hash identifies it, and versions describe the
    selection differently.
    """
    unsaid: dict[str, Any] = {"circuit": True, "prompts": {"__all__": {"categories"}}}
    if not settings.others:  # as before runs had several circuits
        unsaid["others"] = True
    if not settings.thinking:  # as before models could think
        unsaid["thinking"] = True
    content = [model.model_dump_json(), circuit_sha256, settings.model_dump_json(exclude=unsaid)]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]


def now() -> str:
    """The present time in UTC, ISO 8601, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def stored_runs() -> list[StoredRun]:
    """All runs in the cache folder, the newest first, without damaged ones."""
    found = []
    for folder in cache_folder("runs", create=False).glob("*"):
        if not _IDENTITY.fullmatch(folder.name):
            continue
        journal = Journal(folder.name)
        try:
            about, batches = journal.about()
        except RunError:
            continue
        done = sum(_lines(path) for path in folder.glob("journal-*.jsonl"))
        found.append(StoredRun(folder.name, about, batches, min(done, batches), _written(folder / "run.json")))
    return sorted(found, key=lambda run: (run.about.created, run.identity), reverse=True)


def rename_run(identity: str, name: str) -> None:
    """Rename the run.

    Raises:
        RunError: there is no such run, or the name is empty or too long.
    """
    name = " ".join(name.split())
    if not name or len(name) > LONGEST_NAME:
        raise RunError(f"A run's name must have 1 to {LONGEST_NAME} characters.")
    journal = Journal(identity)
    about, batches = journal.about()
    journal._write_about(about.model_copy(update={"name": name}), batches)


def delete_run(identity: str) -> None:
    """Delete the run and its measurements, if it exists."""
    shutil.rmtree(Journal(identity).folder, ignore_errors=True)


def keep_run(run: Run) -> str:
    """Store a run that was uploaded as a file, and return its identity.

    It replaces a stored run with the same settings only if that one is unfinished.
    """
    identity = run_identity(run.model, run.circuit_sha256, run.settings)
    journal = Journal(identity)
    try:
        there = journal.finished_run()
    except RunError:  # its file is damaged, and this is a good one
        there = None
    if there is None:
        journal._write_about(_without_results(run), 0)
        journal.finish(run)
    return identity


def _without_results(run: Run) -> Run:
    return run.model_copy(update={"points": (), "answers": (), "finished": False})


def _written(path: Path) -> int | None:
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return None


def _lines(path: Path) -> int:
    return path.read_bytes().count(b"\n")


def _is_torn(path: Path) -> bool:
    """Whether the last line lacks its end, because its process was killed or the disk was full."""
    with path.open("rb") as file:
        end = file.seek(0, os.SEEK_END)
        file.seek(max(0, end - 1))
        return file.read(1) not in (b"", b"\n")


def cells(records: Iterable[Record], reads: str, prompt_set: str) -> dict[Setting, dict[int, Record]]:
    """The records of one kind of reading on one set, by setting, then by prompt in the set's order."""
    found: dict[Setting, dict[int, Record]] = {}
    chosen: Sequence[Record] = [
        record for record in records if record.reads == reads and record.prompt_set == prompt_set
    ]
    for record in sorted(chosen, key=lambda record: record.prompt):
        found.setdefault(record.setting, {})[record.prompt] = record
    return found
