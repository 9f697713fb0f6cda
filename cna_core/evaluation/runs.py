"""The file of an evaluation run, cna-run/1: what was measured, under which settings, and every answer.

Data and its file format; knows nothing about models in memory, journals or figures.
"""

import importlib.metadata
import json
import platform
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from cna_core.errors import RunError
from cna_core.evaluation.intervals import Estimate
from cna_core.models.layout import ModelIdentity
from cna_core.paths import written_beside

FORMAT: Literal["cna-run/1"] = "cna-run/1"
LARGEST_FILE_BYTES = 200_000_000

Control = Literal["cna", "random", "caa"]
SetName = Literal["harmful", "benign", "borderline", "knowledge"]
CONTROLS: tuple[Control, ...] = ("cna", "random", "caa")


class Setting(BaseModel):
    """One way in which the model is steered.

    Args:
        control: the circuit, a layer-matched random circuit of its size, or CAA vectors.
        strength: 0 baseline, 1 ablated, 2 inverted; for CAA the factor of the vectors.
        fraction: the circuit's share of all neurons; None for CAA, and for the baseline, which all share.
    """

    model_config = ConfigDict(frozen=True)

    control: Control = "cna"
    strength: float = 0.0
    fraction: float | None = None

    @property
    def is_baseline(self) -> bool:
        return self.strength == 0


BASELINE = Setting()


class PromptsUsed(BaseModel):
    """A prompt set as it was used: its name, hash and texts (a knowledge set's texts are its questions)."""

    model_config = ConfigDict(frozen=True)

    name: str
    count: int
    sha256: str
    texts: tuple[str, ...] = ()


class RunSettings(BaseModel):
    """Everything that decides what a run measures; two runs with equal settings, model and circuit are the same run."""

    model_config = ConfigDict(frozen=True)

    strengths: tuple[float, ...]
    fractions: tuple[float, ...]
    controls: tuple[Control, ...] = ()
    measures: tuple[str, ...] = ()
    measure_settings: dict[str, dict[str, Any]] = Field(default_factory=dict)
    prompts: dict[SetName, PromptsUsed]
    max_new_tokens: int = 64
    temperature: float = 0.0
    seed: int = 0
    rows_per_batch: int = 64
    circuit: dict[str, Any] = Field(default_factory=dict)
    caa_prompts_sha256: str | None = None


class Point(BaseModel):
    """What was measured at one setting; a measure that was not asked for is None, and absent from the file.

    Rates are shares; intervals are 95 %: Wilson's for rates, bootstrap over prompts for means, paired for changes.
    `knowledge_chance` is what guessing gives. Measures that are plugged in add fields of their own.
    """

    model_config = ConfigDict(frozen=True, extra="allow")

    strength: float
    fraction: float | None = None
    control: Control
    prompts: int = 0
    refusal_rate: float | None = None
    refusal_interval: tuple[float, float] | None = None
    benign_refusal_rate: float | None = None
    benign_refusal_interval: tuple[float, float] | None = None
    borderline_refusal_rate: float | None = None
    borderline_refusal_interval: tuple[float, float] | None = None
    refusal_chance: float | None = None
    refusal_chance_interval: tuple[float, float] | None = None
    quality: float | None = None
    quality_interval: tuple[float, float] | None = None
    benign_quality: float | None = None
    benign_quality_interval: tuple[float, float] | None = None
    perplexity: float | None = None
    perplexity_interval: tuple[float, float] | None = None
    benign_kl: float | None = None
    benign_kl_interval: tuple[float, float] | None = None
    knowledge: float | None = None
    knowledge_interval: tuple[float, float] | None = None
    knowledge_chance: float | None = None
    knowledge_change: float | None = None
    knowledge_change_interval: tuple[float, float] | None = None

    @property
    def setting(self) -> Setting:
        if self.strength == 0:
            return BASELINE
        return Setting(control=self.control, strength=self.strength, fraction=self.fraction)

    def estimate(self, measure: str) -> Estimate | None:
        """A measure's value with its interval (the value twice where there is none), or None if it was not taken."""
        value = getattr(self, measure, None)
        if value is None:
            return None
        low, high = getattr(self, f"{measure.removesuffix('_rate')}_interval", None) or (value, value)
        return Estimate(value, low, high)


class RunAnswer(BaseModel):
    """One answer: `prompt` is the prompt's place in its set, from 0. The baseline's is stored once, as CNA at 0."""

    model_config = ConfigDict(frozen=True, extra="allow", populate_by_name=True)

    prompt: int
    prompt_set: SetName = Field(alias="set")
    strength: float
    control: Control = "cna"
    fraction: float | None = None
    text: str
    refused: bool | None = None
    quality: float | None = None
    perplexity: float | None = None

    @property
    def setting(self) -> Setting:
        return Setting(control=self.control, strength=self.strength, fraction=self.fraction)


class Run(BaseModel):
    """A run, whole or so far.

    Args:
        name: what a person called it, or what it is.
        created: when it was started, ISO 8601 in UTC.
        notes: what a reader must know beside the figures.
        finished: whether all of it was measured.
    """

    model_config = ConfigDict(frozen=True)

    format: Literal["cna-run/1"] = FORMAT
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

    @model_validator(mode="before")
    @classmethod
    def _known_format(cls, content: Any) -> Any:
        given = content.get("format", FORMAT) if isinstance(content, dict) else None
        if given != FORMAT:
            raise ValueError(f"its format is {given!r}, and {FORMAT} is what can be read")
        return content

    @property
    def baseline(self) -> Point | None:
        """The point at strength 0, or None where it was not measured."""
        return next((point for point in self.points if point.strength == 0), None)

    @property
    def layers_and_size(self) -> str:
        """What was evaluated, in a few words."""
        neurons = self.settings.circuit.get("top_k")
        return self.model.name + (f" · {neurons:,} neurons" if neurons else "")

    def series(self, control: Control, fraction: float | None = None) -> tuple[Point, ...]:
        """The points of one control by strength; of the largest fraction where none is named (CAA has none)."""
        if control != "caa" and fraction is None and self.settings.fractions:
            fraction = max(self.settings.fractions)
        wanted = None if control == "caa" else fraction
        chosen = [point for point in self.points if point.control == control and point.fraction == wanted]
        return tuple(sorted(chosen, key=lambda point: point.strength))

    def to_json(self) -> str:
        """The run as cna-run/1; what was not measured is left out."""
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
