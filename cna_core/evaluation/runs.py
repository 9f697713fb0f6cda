"""The file of an evaluation run, cna-run/2: what was measured, under which settings, and every answer.

Data and its file format; knows nothing about models in memory, journals or figures. Files of version 1 are read, too
(old_formats.py).
"""

import importlib.metadata
import json
import platform
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from cna_core.drawing import plot
from cna_core.errors import RunError
from cna_core.evaluation.intervals import Estimate
from cna_core.evaluation.judgements import Review
from cna_core.evaluation.old_formats import RUN_1, run_of_version_1
from cna_core.evaluation.setting import BASELINE, Setting, Treatment
from cna_core.interventions.registry import DEFAULT_METHOD, TWIN
from cna_core.models.layout import ModelIdentity
from cna_core.paths import written_beside

if TYPE_CHECKING:
    import pandas as pd

FORMAT: Literal["cna-run/2"] = "cna-run/2"
LARGEST_FILE_BYTES = 200_000_000

SetName = Literal["harmful", "benign", "borderline", "knowledge", "problems"]


class PromptsUsed(BaseModel):
    """A prompt set as it was used: its name, hash and texts (a knowledge set's texts are its questions)."""

    model_config = ConfigDict(frozen=True)

    name: str
    count: int
    sha256: str
    texts: tuple[str, ...] = ()


class RunSettings(BaseModel):
    """Everything that decides what a run measures; two runs with equal settings, model and circuit are the same run.

    `methods` are keys, `controls` those of them whose random twins were measured; `others` are the hashes of further
    circuits, by name; `contrast_sha256` is of the prompts that methods were fitted with, None where none needed any.
    """

    model_config = ConfigDict(frozen=True)

    strengths: tuple[float, ...]
    fractions: tuple[float, ...]
    methods: tuple[str, ...] = (DEFAULT_METHOD,)
    controls: tuple[str, ...] = ()
    measures: tuple[str, ...] = ()
    measure_settings: dict[str, dict[str, Any]] = Field(default_factory=dict)
    prompts: dict[SetName, PromptsUsed]
    max_new_tokens: int = 64
    temperature: float = 0.0
    seed: int = 0
    rows_per_batch: int = 64
    circuit: dict[str, Any] = Field(default_factory=dict)
    others: dict[str, str] = Field(default_factory=dict)
    contrast_sha256: str | None = None


class _AtSetting(BaseModel):
    """What a point and an answer say of how the model was steered."""

    model_config = ConfigDict(frozen=True, extra="allow", populate_by_name=True)

    method: str = DEFAULT_METHOD
    twin_of: str | None = None
    strength: float
    fraction: float | None = None
    circuit: str | None = None

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
        """How the model was steered; the baseline is one setting, whichever curve it is on."""
        if self.strength == 0:
            return BASELINE
        return Setting(self.method, self.strength, self.fraction, self.twin_of, self.circuit)


class Point(_AtSetting):
    """What was measured at one setting; the measures' values are further fields, absent where they were not taken.

    Which fields a measure has, and what they mean, is its own business (measures/). Numbers, and pairs of numbers: 95 %
    intervals, Wilson's for rates, bootstrap over prompts for means, paired for changes.
    """

    __pydantic_extra__: dict[str, float | tuple[float, float] | None] = Field(init=False)

    prompts: int = 0

    @property
    def fields(self) -> dict[str, float | tuple[float, float]]:
        """What the measures found, by field."""
        return {name: value for name, value in (self.__pydantic_extra__ or {}).items() if value is not None}

    def estimate(self, field: str) -> Estimate | None:
        """A measure's value with its interval (the value twice where there is none), or None if it was not taken."""
        value = self.fields.get(field)
        if value is None or isinstance(value, tuple):
            return None
        interval = self.fields.get(f"{field.removesuffix('_rate')}_interval")
        low, high = interval if isinstance(interval, tuple) else (value, value)
        return Estimate(value, low, high)


class RunAnswer(_AtSetting):
    """One answer: `prompt` is the prompt's place in its set, from 0. The baseline's is stored once.

    `refused`, `late` (it begins and then declines) and `neither` (it neither refuses nor answers) are the detector's
    verdict on the whole answer; None where it was not asked. Measures may say more of an answer in further fields.
    """

    prompt: int
    prompt_set: SetName = Field(alias="set")
    text: str
    refused: bool | None = None
    late: bool | None = None
    neither: bool | None = None


class Run(BaseModel):
    """A run, whole or so far.

    Args:
        name: what a person called it, or what it is.
        created: when it was started, ISO 8601 in UTC.
        notes: what a reader must know beside the figures.
        finished: whether all of it was measured.
        review: what a person said of some of its answers without knowing their settings.
    """

    model_config = ConfigDict(frozen=True)

    format: Literal["cna-run/2"] = FORMAT
    name: str = ""
    created: str = ""
    model: ModelIdentity
    circuit_sha256: str
    settings: RunSettings
    versions: dict[str, str] = Field(default_factory=dict)
    notes: tuple[str, ...] = ()
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
            raise ValueError(f"its format is {given!r}, and {FORMAT} and {RUN_1} are what can be read")
        return content

    def __repr__(self) -> str:
        name = repr(self.name) if self.name else "unnamed"
        state = f"{len(self.points)} points" if self.finished else f"{len(self.points)} points so far"
        return f"Run({name}, {self.layers_and_size}, {state})"

    __str__ = __repr__

    def table(self) -> "pd.DataFrame":
        """One row a point: method, circuit size, strength, and each measure with the ends of its 95 % interval."""
        from cna_core.evaluation.tables import points_table

        return points_table(self)

    def plot(self, fraction: float | None = None, *, dark: bool = False) -> Any:
        """Refusal and what it costs over strength, as a Plotly figure; `fraction` is the circuit size."""
        return plot(self, fraction=fraction, dark=dark)

    @property
    def baseline(self) -> Point | None:
        """The point at strength 0, or None where it was not measured."""
        return next((point for point in self.points if point.strength == 0), None)

    @property
    def layers_and_size(self) -> str:
        """What was evaluated, in a few words."""
        neurons = self.settings.circuit.get("top_k")
        return self.model.name + (f" · {neurons:,} neurons" if neurons else "")

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
        """The run as cna-run/2; what was not measured is left out."""
        return self.model_dump_json(exclude_none=True, by_alias=True)

    def save(self, path: str | Path) -> Path:
        """Write the file, beside it first.

        Raises:
            RunError: it cannot be written.
        """
        path = Path(path).expanduser()
        try:
            with written_beside(path) as draft:
                draft.write_text(self.to_json() + "\n", encoding="utf-8")
        except OSError as error:
            raise RunError(f"{path} cannot be written ({error.strerror or error}); choose another file.") from error
        return path

    @classmethod
    def from_json(cls, text: str | bytes, name: str = "The file") -> "Run":
        """A run from the text of its file; `name` is what errors call the file.

        Raises:
            RunError: it is no JSON, no run, of an unknown version, or huge; one sentence that says which.
        """
        if len(text) > LARGEST_FILE_BYTES:
            raise RunError(f"{name} is larger than {LARGEST_FILE_BYTES // 1_000_000} MB; that is no run file.")
        try:
            content = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise RunError(f"{name} is not JSON; choose a file that evaluate wrote.") from error
        try:
            return cls.model_validate(content)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            place = ".".join(map(str, first["loc"]))
            said = first["msg"].removeprefix("Value error, ")
            raise RunError(f"{name} is no run of format {FORMAT}: {f'{place}: ' if place else ''}{said}.") from error

    @classmethod
    def load(cls, path: str | Path) -> "Run":
        """Read a run file; errors as in `from_json`, and when it is missing."""
        path = Path(path).expanduser()
        try:
            content = path.read_bytes()
        except OSError as error:
            raise RunError(f"{path} cannot be read: {error.strerror or error}.") from error
        return cls.from_json(content, path.name)


def versions() -> dict[str, str]:
    """What a run depends on beside its settings: releases of Python and the libraries that compute."""
    names = ("torch", "transformers", "accelerate", "numpy", "tokenizers")
    return {"python": platform.python_version(), **{name: importlib.metadata.version(name) for name in names}}
