"""Runs all checks of a circuit, and derives the claim that they support: `verify`. Also defines their file."""

import json
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from cna_core.cached import ResultCache
from cna_core.circuits.circuit import Circuit
from cna_core.errors import CircuitError, RunError
from cna_core.evaluation.checks.bench import Bench
from cna_core.evaluation.checks.contract import CheckSettings, Row
from cna_core.evaluation.checks.registry import CHECKS, checks_named
from cna_core.evaluation.held_out import discovery_prompts, held_out
from cna_core.evaluation.refusal import detector_identity
from cna_core.evaluation.runs import SetName
from cna_core.models.layout import ModelIdentity
from cna_core.models.loaded import LoadedModel
from cna_core.outside import first_problem
from cna_core.paths import written_beside
from cna_core.progress import Report
from cna_core.prompts.sets import ContrastSet, PromptSet

FORMAT = "cna-checks/1"

Sign = Literal["passed", "failed", "open"]


class Verification(BaseModel):
    """The results of the checks of one circuit.

    Attributes:
        circuit_sha256, neurons, score: the circuit's hash, its size, and the score by which it was found.
        rows: the rows of the checks, in order.
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
        """A check's outcome: failed if one of its rows failed, open if no row decides."""
        decided = [row.passed for row in self.rows if row.check == key and row.passed is not None]
        if not decided:
            return "open"
        return "passed" if all(decided) else "failed"

    @property
    def claim(self) -> str:
        """The claim that the checks support: what the circuit may be called."""
        needed = [key for key, check in CHECKS.items() if check.needed]
        if all(self.sign_of(key) == "passed" for key in needed):
            return "the neurons behind refusal"
        return "neurons that open refusals"

    def to_json(self) -> str:
        """The text of its file, with a final line break."""
        return self.model_dump_json(indent=1) + "\n"

    def save(self, path: str | Path) -> Path:
        """Write a file of format cna-checks/1."""
        path = Path(path)
        with written_beside(path) as draft:
            draft.write_text(self.to_json(), encoding="utf-8")
        return path

    @classmethod
    def from_json(cls, text: str | bytes, name: str = "The file") -> "Verification":
        """Parse the output of `to_json`.

        Raises:
            RunError: it is another format, or damaged.
        """
        try:
            content = json.loads(text)
            version = content.get("format") if isinstance(content, dict) else None
            if version != FORMAT:
                raise RunError(f"{name} is not a file of format {FORMAT}; choose a file of the command verify.")
            return cls.model_validate(content)
        except ValidationError as error:
            raise RunError(f"{name} is damaged: {first_problem(error)}; verify the circuit again.") from error
        except (ValueError, RecursionError) as error:
            raise RunError(f"{name} is damaged or not JSON; choose a file of the command verify.") from error

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
    use_cache: bool = True,
) -> Verification:
    """Run the checks that test the claim that a circuit's neurons act on refusal.

    A check that is not possible (a public set that cannot be downloaded, weights that cannot be read) gives a row that
    says so and does not decide. The caller has exclusive use of the model meanwhile (models/host.py).

    Args:
        contrast: the discovery prompts with which the circuit was found; None: the built-in ones.
        harmful, benign, borderline: the prompts to measure on; None: the built-in evaluation sets. Discovery prompts
            among them are skipped.
        settings: how much to measure; None: the defaults.
        checks: the keys of some checks (`checks.registry.CHECKS`); None: all.
        partial: called after each check with the results so far.
        use_cache: use and store each check's rows in the cache folder, so that a stopped verification resumes.

    Raises:
        CircuitError: the circuit belongs to another model, or the model refuses none of the discovery prompts.
        CnaError: there is no such check.
        StoppedError: `stop` was set; `partial` received the finished checks.

    Example:
        found = cna.verify(model, circuit)
        print(found.claim, [row.verdict for row in found.rows])
    """
    wanted = checks_named(None if checks is None else tuple(checks))
    settings, contrast = settings or CheckSettings(), contrast or ContrastSet.builtin()
    sets = _sets(circuit, contrast, harmful, benign, borderline)
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
    found = _empty(model.identity, circuit, settings)
    depends_on = _depends_on(model.identity, circuit, contrast, sets, settings)
    for check in wanted:
        bench.subject = check.title
        rows = _ROWS.find(*depends_on, check.key) if use_cache else None
        if rows is None:
            try:
                rows = check.run(bench)
            except CircuitError as error:
                rows = [check.not_measured(str(error))]
            if use_cache and all(row.value is not None for row in rows):  # checks that could not be measured run again
                _ROWS.keep(rows, *depends_on, check.key)
        found = found.model_copy(update={"rows": (*found.rows, *rows)})
        if partial is not None:
            partial(found)
    return found


def known_checks(
    model: ModelIdentity,
    circuit: Circuit,
    *,
    contrast: ContrastSet | None = None,
    settings: CheckSettings | None = None,
) -> Verification:
    """The stored rows of `verify` for this circuit, the built-in evaluation sets and these settings. Loads no model."""
    settings, contrast = settings or CheckSettings(), contrast or ContrastSet.builtin()
    depends_on = _depends_on(model, circuit, contrast, _sets(circuit, contrast, None, None, None), settings)
    rows = [row for key in CHECKS for row in _ROWS.find(*depends_on, key) or ()]
    return _empty(model, circuit, settings).model_copy(update={"rows": tuple(rows)})


def _sets(
    circuit: Circuit,
    contrast: ContrastSet,
    harmful: PromptSet | None,
    benign: PromptSet | None,
    borderline: PromptSet | None,
) -> dict[SetName, PromptSet]:
    sets, _ = held_out(
        {
            "harmful": harmful or PromptSet.builtin("evaluation-harmful"),
            "benign": benign or PromptSet.builtin("evaluation-benign"),
            "borderline": borderline or PromptSet.builtin("borderline"),
        },
        discovery_prompts(circuit, None, contrast),
    )
    return sets


def _empty(model: ModelIdentity, circuit: Circuit, settings: CheckSettings) -> Verification:
    return Verification(
        model=model,
        circuit_sha256=circuit.sha256,
        neurons=len(circuit),
        score=circuit.settings.score,
        settings=settings,
    )


def _depends_on(
    model: ModelIdentity,
    circuit: Circuit,
    contrast: ContrastSet,
    sets: Mapping[SetName, PromptSet],
    settings: CheckSettings,
) -> list[object]:
    return [
        FORMAT,
        model.model_dump(mode="json"),
        circuit.sha256,
        circuit.settings.model_dump(mode="json"),
        contrast.sha256,
        {kind: prompts.sha256 for kind, prompts in sets.items()},
        settings.model_dump(mode="json"),
        detector_identity(),
    ]


_ROWS = ResultCache(
    "checks",
    ".json",
    read=lambda path: TypeAdapter(list[Row]).validate_json(path.read_bytes()),
    write=lambda rows, path: path.write_bytes(TypeAdapter(list[Row]).dump_json(rows)),
    limit_bytes=64 << 20,
)
"""The stored rows of one check."""


def markdown_rows(found: Verification) -> Iterator[str]:
    """The lines of a Markdown table, one for each row of the checks."""
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
