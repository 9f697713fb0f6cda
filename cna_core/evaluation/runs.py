"""Evaluation runs and their file format, cna-run/2: the measurements, the settings, and every answer.

Files of version 1 can also be read (old_formats.py). This module knows nothing about loaded models, journals or charts.
"""

import importlib.metadata
import platform
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, model_validator

from cna_core.drawing import plot
from cna_core.errors import RunError
from cna_core.evaluation.intervals import Estimate
from cna_core.evaluation.judgements import Review
from cna_core.evaluation.old_formats import RUN_1, run_of_version_1
from cna_core.evaluation.setting import BASELINE, Setting, Treatment
from cna_core.interventions.registry import DEFAULT_METHOD, TWIN
from cna_core.limits import FARTHEST
from cna_core.models.layout import ModelIdentity
from cna_core.outside import LARGEST_COUNT, Count, Finite, Line, Plain, Share, Text, first_problem, read_json
from cna_core.paths import path_named, written_beside
from cna_core.shown import shown

if TYPE_CHECKING:
    import pandas as pd

FORMAT: Literal["cna-run/2"] = "cna-run/2"
LARGEST_FILE_BYTES = 200_000_000

SetName = Literal["harmful", "benign", "borderline", "knowledge", "problems"]
Strength = Annotated[float, Field(ge=-FARTHEST, le=FARTHEST, allow_inf_nan=False)]


class PromptsUsed(BaseModel):
    """A prompt set of a run: its name, hash, texts (the questions, for a knowledge set) and categories."""

    model_config = ConfigDict(frozen=True)

    name: Line
    count: Count
    sha256: Line
    texts: tuple[Text, ...] = ()
    categories: tuple[Line, ...] = ()


class RunSettings(BaseModel):
    """Everything that determines a run: runs with equal settings, model and circuit are the same run.

    `methods` are keys; `controls` are the methods whose random twins were measured; `others` are the hashes of further
    circuits, by name; `contrast_sha256` is the hash of the prompts for fitting, None if no method needed any;
    `thinking` is whether the model was asked to think before it answered.
    """

    model_config = ConfigDict(frozen=True)

    strengths: tuple[Strength, ...] = Field(min_length=1)
    fractions: tuple[Share, ...]
    methods: tuple[Line, ...] = (DEFAULT_METHOD,)
    controls: tuple[Line, ...] = ()
    measures: tuple[Line, ...] = ()
    measure_settings: dict[Line, Plain] = Field(default_factory=dict)
    prompts: dict[SetName, PromptsUsed]
    max_new_tokens: int = Field(64, ge=0, le=LARGEST_COUNT)
    thinking: bool = False
    temperature: Finite = 0.0
    seed: int = Field(0, ge=-(2**63), lt=2**63)
    rows_per_batch: int = Field(64, ge=0, le=LARGEST_COUNT)
    circuit: Plain = Field(default_factory=dict)
    others: dict[Line, Line] = Field(default_factory=dict)
    contrast_sha256: Line | None = None

    @model_validator(mode="after")
    def _circuit_is_described(self) -> "RunSettings":
        size, source = self.circuit.get("top_k"), self.circuit.get("transferred_from")
        if not (size is None or (isinstance(size, int) and 0 <= size <= LARGEST_COUNT)):
            raise ValueError("the circuit's top_k is not a number of neurons")
        if source is not None:
            TypeAdapter(Line).validate_python(source, strict=True)
        return self

    def count_of(self, kind: SetName) -> int:
        """The number of prompts of a set; 0 if the run has none."""
        return self.prompts[kind].count if kind in self.prompts else 0

    def texts_of(self, kind: SetName) -> tuple[str, ...]:
        """The texts of a set's prompts; empty if the run has none."""
        return self.prompts[kind].texts if kind in self.prompts else ()


class _AtSetting(BaseModel):
    """How the model was steered, as points and answers store it."""

    model_config = ConfigDict(frozen=True, extra="allow", populate_by_name=True)

    method: Line = DEFAULT_METHOD
    twin_of: Line | None = None
    strength: Strength
    fraction: Share | None = None
    circuit: Line | None = None

    @model_validator(mode="after")
    def _twins_have_owners(self) -> "_AtSetting":
        if (self.method == TWIN) != (self.twin_of is not None):
            raise ValueError(
                f"a control has the method {TWIN!r} and names its own method in twin_of; other points have none"
            )
        return self

    @property
    def treatment(self) -> Treatment:
        return Treatment(self.method, self.twin_of, self.circuit)

    @property
    def setting(self) -> Setting:
        """How the model was steered; the baseline is the same setting on every curve."""
        if self.strength == 0:
            return BASELINE
        return Setting(self.method, self.strength, self.fraction, self.twin_of, self.circuit)


class Point(_AtSetting):
    """The results at one setting. The values of measures are further fields; values that were not measured are absent.

    Each measure defines its fields (measures/): numbers, and pairs of numbers for 95 % intervals, which are Wilson
    intervals for rates, bootstrap intervals over prompts for means, and paired intervals for changes.
    """

    __pydantic_extra__: dict[str, Finite | tuple[Finite, Finite] | None] = Field(init=False)

    prompts: Count = 0

    @model_validator(mode="after")
    def _rates_are_shares(self) -> "Point":
        for name, value in (self.__pydantic_extra__ or {}).items():
            if name.endswith("_rate") and isinstance(value, float) and not 0 <= value <= 1:
                raise ValueError(f"{name[:80]} is not between 0 and 1")
        return self

    @property
    def fields(self) -> dict[str, float | tuple[float, float]]:
        """The measures' values by field."""
        return {name: value for name, value in (self.__pydantic_extra__ or {}).items() if value is not None}

    def estimate(self, field: str) -> Estimate | None:
        """A measure's value with its interval (without one, the value twice), or None if it was not measured."""
        value = self.fields.get(field)
        if value is None or isinstance(value, tuple):
            return None
        interval = self.fields.get(f"{field.removesuffix('_rate')}_interval")
        low, high = interval if isinstance(interval, tuple) else (value, value)
        return Estimate(value, low, high)


class RunAnswer(_AtSetting):
    """One answer; `prompt` is the prompt's index in its set, from 0. The baseline's answers are stored once.

    `refused`, `late` (it begins and then declines) and `neither` (it neither refuses nor answers) are the detector's
    verdicts on the full answer; None if the detector did not judge it. In runs with thinking, `thought` is the text
    before the answer, and `unfinished` is whether it did not end, so that there is no answer. Measures may add further
    fields.
    """

    prompt: Count
    prompt_set: SetName = Field(alias="set")
    text: Text
    refused: bool | None = None
    late: bool | None = None
    neither: bool | None = None
    thought: Text | None = None
    unfinished: bool | None = None


class Run(BaseModel):
    """An evaluation run, finished or not.

    Args:
        name: the name that the user gave it, or a description.
        created: the time of its start, ISO 8601 in UTC.
        notes: remarks that a reader of the numbers needs.
        finished: whether everything was measured.
        review: a person's verdicts on some of its answers, given without knowing their settings.
    """

    model_config = ConfigDict(frozen=True)

    format: Literal["cna-run/2"] = FORMAT
    name: Line = ""
    created: Line = ""
    model: ModelIdentity
    circuit_sha256: Line
    settings: RunSettings
    versions: dict[Line, Line] = Field(default_factory=dict)
    notes: tuple[Text, ...] = ()
    finished: bool = True
    points: tuple[Point, ...] = ()
    answers: tuple[RunAnswer, ...] = ()
    review: Review | None = None

    @model_validator(mode="before")
    @classmethod
    def _known_format(cls, content: Any) -> Any:
        given = content.get("format", FORMAT) if isinstance(content, dict) else None
        if given == RUN_1:
            return run_of_version_1(content) | {"format": FORMAT}
        if given != FORMAT:
            raise ValueError(f"its format is {shown(repr(given), 60)}, and {FORMAT} and {RUN_1} are what can be read")
        return content

    @model_validator(mode="after")
    def _circuits_are_named(self) -> "Run":
        named = {one.circuit for one in (*self.points, *self.answers)} - {None, *self.settings.others}
        if named:
            raise ValueError(f"the settings do not name the circuit {min(filter(None, named))[:80]!r}")
        return self

    def __repr__(self) -> str:
        name = repr(self.name) if self.name else "unnamed"
        state = f"{len(self.points)} points" if self.finished else f"{len(self.points)} points so far"
        return f"Run({name}, {self.layers_and_size}, {state})"

    __str__ = __repr__

    def table(self) -> "pd.DataFrame":
        """One row per point: method, circuit size, strength, and each measure with the ends of its 95 % interval."""
        from cna_core.evaluation.tables import points_table

        return points_table(self)

    def plot(self, fraction: float | None = None, *, dark: bool = False) -> Any:
        """A Plotly figure of refusal and its cost over strength; `fraction` is the circuit size."""
        return plot(self, fraction=fraction, dark=dark)

    @property
    def baseline(self) -> Point | None:
        """The point at strength 0, or None if it was not measured."""
        return next((point for point in self.points if point.strength == 0), None)

    @property
    def layers_and_size(self) -> str:
        """The model's layers and the circuit's size, as text."""
        neurons = self.settings.circuit.get("top_k")
        source = f" of {self.transferred_from}" if self.transferred_from else ""
        return self.model.name + (f" · {neurons:,} neurons{source}" if neurons else "")

    @property
    def transferred_from(self) -> str:
        """The model that the circuit was found on, if it was applied to another one on purpose; else ""."""
        return str(self.settings.circuit.get("transferred_from") or "")

    @property
    def transfer_note(self) -> str:
        """The same in one sentence, for charts; "" for a circuit of the run's own model."""
        return f"Transfer: the circuit was found on {self.transferred_from}." if self.transferred_from else ""

    @property
    def treatments(self) -> tuple[Treatment, ...]:
        """The methods and twins that have points, in the order of the run."""
        return tuple(dict.fromkeys(point.treatment for point in self.points))

    def series(self, treatment: Treatment, fraction: float | None = None) -> tuple[Point, ...]:
        """The points of one method or twin by strength.

        Args:
            fraction: the circuit's size, for methods that use one; None: the run's largest.
        """
        if fraction is None and self.settings.fractions:
            fraction = max(self.settings.fractions)
        chosen = [point for point in self.points if point.treatment == treatment and point.fraction in (None, fraction)]
        return tuple(sorted(chosen, key=lambda point: point.strength))

    def to_json(self) -> str:
        """The run as cna-run/2, without values that were not measured."""
        return self.model_dump_json(exclude_none=True, by_alias=True)

    def save(self, path: str | Path) -> Path:
        """Write the file, through a temporary file beside it.

        Raises:
            RunError: it cannot be written.
        """
        path = path_named(path)
        try:
            with written_beside(path) as draft:
                draft.write_text(self.to_json() + "\n", encoding="utf-8")
        except OSError as error:
            raise RunError(f"{path} cannot be written ({error.strerror or error}); choose another file.") from error
        return path

    @classmethod
    def from_json(cls, text: str | bytes, name: str = "The file") -> "Run":
        """Parse the text of a run file; `name` is the file's name in errors.

        Raises:
            RunError: it is not JSON, not a run, of an unknown version, or too large; one sentence says which.
        """
        name = shown(name)
        if len(text) > LARGEST_FILE_BYTES:
            raise RunError(f"{name} is larger than {LARGEST_FILE_BYTES // 1_000_000} MB; choose a run file.")
        try:
            content = read_json(text)
        except ValueError as error:
            raise RunError(f"{name} is not JSON; choose a run file.") from error
        try:
            return cls.model_validate(content)
        except ValidationError as error:
            raise RunError(f"{name} is not a run of format {FORMAT}: {first_problem(error)}.") from error

    @classmethod
    def load(cls, path: str | Path) -> "Run":
        """Read a run file; errors as in `from_json`, and when it is missing."""
        path = path_named(path)
        try:
            content = path.read_bytes()
        except OSError as error:
            raise RunError(f"{path} cannot be read: {error.strerror or error}.") from error
        return cls.from_json(content, path.name)


def versions() -> dict[str, str]:
    """The versions of Python and of the libraries that compute, on which results also depend."""
    names = ("torch", "transformers", "accelerate", "numpy", "tokenizers")
    return {"python": platform.python_version(), **{name: importlib.metadata.version(name) for name in names}}
