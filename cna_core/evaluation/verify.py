"""All checks of a circuit in one go, their file, and what may be claimed when they are through: `verify`."""

import json
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from cna_core.circuits.circuit import Circuit
from cna_core.circuits.circuit_file import first_problem
from cna_core.errors import CircuitError, RunError
from cna_core.evaluation.checks.bench import Bench
from cna_core.evaluation.checks.contract import CheckSettings, Row
from cna_core.evaluation.checks.registry import CHECKS, checks_named
from cna_core.evaluation.held_out import discovery_prompts, held_out
from cna_core.models.layout import ModelIdentity
from cna_core.models.loaded import LoadedModel
from cna_core.paths import written_beside
from cna_core.progress import Report
from cna_core.prompts.sets import ContrastSet, PromptSet

FORMAT = "cna-checks/1"

Sign = Literal["passed", "failed", "open"]


class Verification(BaseModel):
    """What the checks said of a circuit.

    Attributes:
        circuit_sha256, neurons, score: which circuit, its size, and what it was found by.
        rows: the checks' rows, in order.
    """

    model_config = ConfigDict(frozen=True)

    format: Literal["cna-checks/1"] = "cna-checks/1"
    model: ModelIdentity
    circuit_sha256: str
    neurons: int
    score: str
    settings: CheckSettings
    rows: tuple[Row, ...] = ()

    def sign_of(self, key: str) -> Sign:
        """A check's outcome: failed where one of its rows failed, open where none decided anything."""
        decided = [row.passed for row in self.rows if row.check == key and row.passed is not None]
        if not decided:
            return "open"
        return "passed" if all(decided) else "failed"

    @property
    def claim(self) -> str:
        """What the circuit may be called."""
        needed = [key for key, check in CHECKS.items() if check.needed]
        if all(self.sign_of(key) == "passed" for key in needed):
            return "the neurons behind refusal"
        return "neurons that open refusals"

    def to_json(self) -> str:
        """The text of its file, ending with a line break."""
        return self.model_dump_json(indent=1) + "\n"

    def save(self, path: str | Path) -> Path:
        """Write a file of format cna-checks/1."""
        path = Path(path)
        with written_beside(path) as draft:
            draft.write_text(self.to_json(), encoding="utf-8")
        return path

    @classmethod
    def from_json(cls, text: str | bytes, name: str = "The file") -> "Verification":
        """Read what `to_json` wrote.

        Raises:
            RunError: it is something else, or damaged.
        """
        try:
            content = json.loads(text)
            version = content.get("format") if isinstance(content, dict) else None
            if version != FORMAT:
                raise RunError(f"{name} is not a file of format {FORMAT}; choose one that verify wrote.")
            return cls.model_validate(content)
        except ValidationError as error:
            raise RunError(f"{name} is damaged: {first_problem(error)}; verify the circuit again.") from error
        except ValueError as error:
            raise RunError(f"{name} is broken or not JSON; choose a file that verify wrote.") from error

    @classmethod
    def load(cls, path: str | Path) -> "Verification":
        """Read a file; errors as in `from_json`."""
        path = Path(path)
        try:
            return cls.from_json(path.read_bytes(), path.name)
        except OSError as error:
            raise RunError(f"{path} cannot be read ({error.strerror or error}); choose another file.") from error


def verify(
    model: LoadedModel,
    circuit: Circuit,
    *,
    contrast: ContrastSet | None = None,
    harmful: PromptSet | None = None,
    benign: PromptSet | None = None,
    borderline: PromptSet | None = None,
    settings: CheckSettings | None = None,
    checks: Sequence[str] | None = None,
    partial: Callable[[Verification], None] | None = None,
    progress: Report | None = None,
    stop: threading.Event | None = None,
) -> Verification:
    """Put any circuit to the checks that must stand beside the claim that its neurons act on refusal.

    A check that cannot be carried out (a public set that cannot be fetched, weights that cannot be read) gives a row
    that says so and decides nothing. The caller has the model to itself while this runs (models/host.py).

    Args:
        contrast: the discovery prompts that the circuit was found with; None: the built-in ones.
        harmful, benign, borderline: prompts to measure on; the built-in evaluation sets if not given. Discovery
            prompts among them are left out.
        settings: how much is measured; the defaults if not given.
        checks: the keys of some checks (`checks.registry.CHECKS`); None: all.
        partial: called with what is known so far after each check.

    Raises:
        CircuitError: the circuit belongs to another model, or the model refuses none of the discovery prompts.
        CnaError: there is no such check.
        StoppedError: `stop` was set; what was finished was handed to `partial`.

    Example:
        found = cna.verify(model, circuit)
        print(found.claim, [row.verdict for row in found.rows])
    """
    wanted = checks_named(None if checks is None else tuple(checks))
    settings, contrast = settings or CheckSettings(), contrast or ContrastSet.builtin()
    sets, _ = held_out(
        {
            "harmful": harmful or PromptSet.builtin("evaluation-harmful"),
            "benign": benign or PromptSet.builtin("evaluation-benign"),
            "borderline": borderline or PromptSet.builtin("borderline"),
        },
        discovery_prompts(circuit, None, contrast),
    )
    bench = Bench(
        model,
        circuit,
        contrast=contrast,
        harmful=sets["harmful"],
        benign=sets["benign"],
        borderline=sets["borderline"],
        settings=settings,
        progress=progress,
        stop=stop,
    )
    found = Verification(
        model=model.identity,
        circuit_sha256=circuit.sha256,
        neurons=len(circuit),
        score=circuit.settings.score,
        settings=settings,
    )
    for check in wanted:
        bench.subject = check.title
        try:
            rows = check.run(bench)
        except CircuitError as error:
            rows = [check.not_measured(str(error))]
        found = found.model_copy(update={"rows": (*found.rows, *rows)})
        if partial is not None:
            partial(found)
    return found


def markdown_rows(found: Verification) -> Iterator[str]:
    """The lines of a Markdown table: a row for each of the checks' rows."""
    yield "| check | measured | circuit | control | verdict | |"
    yield "| --- | --- | --- | --- | --- | --- |"
    signs = {True: "passed", False: "failed", None: ""}
    for row in found.rows:
        value, control = (_in_words(part, row.unit) for part in (row.value, row.control))
        title = CHECKS[row.check].title if row.check in CHECKS else row.check
        held = f"{control} ({row.control_words})" if control else row.control_words
        yield f"| {title} | {row.quantity} | {value} | {held} | {row.verdict} | {signs[row.passed]} |"


def _in_words(figure: object, unit: str) -> str:
    if figure is None:
        return ""
    numbers = [getattr(figure, name) for name in ("value", "low", "high")]
    if unit in ("share", "chance"):
        value, low, high = (f"{100 * number:.0f}" for number in numbers)
        return f"{value} % [{low}, {high}]"
    value, low, high = (f"{number:.2f}" for number in numbers)
    return value if low == high == value else f"{value} [{low}, {high}]"
