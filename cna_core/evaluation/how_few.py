"""How few neurons carry refusal? Measures the refusal chance over the number of ablated neurons, for several rankings.

No answers are generated: the gate meter computes the chance of a refusal from the first token. A prompt's batch
contains all rankings and sizes. Each prompt's result is stored, so a stopped measurement resumes there.
"""

import json
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from cna_core.cached import ResultCache
from cna_core.circuits.activations import Activations
from cna_core.circuits.attribution import attribute
from cna_core.circuits.capture import capture, weights_sample
from cna_core.circuits.circuit import Circuit, CircuitSettings
from cna_core.circuits.circuit_file import EffectSettings
from cna_core.circuits.controls import random_circuit
from cna_core.circuits.effect_circuit import circuit_with_effects, most_negative
from cna_core.circuits.effects import Effects, measured_layers
from cna_core.decoding.lanes import Lane, first_token_logits
from cna_core.decoding.prefix_cache import PrefixCaches
from cna_core.errors import CircuitError
from cna_core.evaluation.checks.null_circuits import matched, output_norms, with_neurons
from cna_core.evaluation.dials import PREFIX_BYTES
from cna_core.evaluation.effects import measure_effects
from cna_core.evaluation.gate_meter import RefusalOpenings, calibrate_openings
from cna_core.evaluation.held_out import held_out
from cna_core.evaluation.size_curves import FORMAT, HowFew, HowFewSettings, SizeCurve
from cna_core.interventions.intervention import Intervention, Material
from cna_core.interventions.registry import DEFAULT_METHOD, method
from cna_core.models.layout import ModelIdentity
from cna_core.models.loaded import LoadedModel
from cna_core.progress import Report, Stage, raise_if_stopped, tell
from cna_core.prompts.chat_format import as_messages
from cna_core.prompts.sets import ContrastSet, PromptSet

TITLES = {
    "effect": "effect, first two thirds of the layers",
    "effect-all": "effect, all layers",
    "delta": "|δ|",
    "effect-size": "effect size",
    "random": "random, same layers as by effect",
    "random-writing": "random, same layers and output size",
}


@dataclass(frozen=True)
class _Way:
    """One way to rank neurons.

    Args:
        ranked: one circuit per draw, of the largest size.
        sizes: the numbers of first neurons to ablate.
    """

    key: str
    ranked: tuple[Circuit, ...]
    sizes: tuple[int, ...]


def how_few(
    model: LoadedModel,
    contrast: ContrastSet | None = None,
    *,
    harmful: PromptSet | None = None,
    benign: PromptSet | None = None,
    settings: HowFewSettings | None = None,
    partial: Callable[[HowFew], None] | None = None,
    progress: Report | None = None,
    stop: threading.Event | None = None,
    use_cache: bool = True,
) -> HowFew:
    """Measure how the refusal chance falls as 1, 2, 4 … neurons are ablated.

    Neurons are ranked by effect (first two thirds of the layers; all layers), by |δ| and by effect size. The controls
    are random neurons of the same layers, and random neurons of the same layers and output size (|a|·‖w_down‖).

    Args:
        contrast: the discovery prompts for the ranking; None: the built-in ones.
        harmful, benign: the prompts to measure on; None: the built-in evaluation sets. Discovery prompts among them are
            skipped.
        settings: how much to measure; None: the defaults.
        partial: called after each prompt with the results so far.
        use_cache: use and store the results of each prompt and of the whole measurement.

    Raises:
        CircuitError: the model refuses none of the discovery prompts.
        RunError: all prompts are discovery prompts.
        StoppedError: `stop` was set; finished work is saved.

    Example:
        found = cna.how_few(model)
        print(found.halving(found.curve("effect")))
    """
    contrast, settings = contrast or ContrastSet.builtin(), settings or HowFewSettings()
    harmful, benign = _sets(contrast, harmful, benign, settings)
    if use_cache and (kept := _KEPT.find(*_depends_on(model.identity, contrast, harmful, benign, settings))):
        return kept
    openings = calibrate_openings(model, contrast, progress=progress, stop=stop)
    activations = capture(model, contrast, progress=progress, stop=stop)
    effects = measure_effects(
        model, contrast, settings=EffectSettings(layers="all"), progress=progress, stop=stop, use_cache=use_cache
    )
    ways, notes = _ways(model, activations, effects, settings)
    run = _Run(model, openings, ways, stop, use_cache)
    empty = HowFew(
        model=model.identity,
        settings=settings,
        harmful_name=harmful.name,
        benign_name=benign.name,
        refused=len(effects.positive),
        baseline=(),
        curves=(),
        notes=notes,
    )
    found = empty
    prompts = [(False, prompt) for prompt in harmful.prompts] + [(True, prompt) for prompt in benign.prompts]
    for done, (is_benign, prompt) in enumerate(prompts):
        raise_if_stopped(stop)
        tell(progress, Stage.HOW_FEW, done, len(prompts), "prompts")
        run.read(prompt, is_benign)
        found = run.filled(empty)
        if partial is not None:
            partial(found)
    tell(progress, Stage.HOW_FEW, len(prompts), len(prompts), "prompts")
    if use_cache:
        _KEPT.keep(found, *_depends_on(model.identity, contrast, harmful, benign, settings))
    return found


def cached_how_few(
    model: ModelIdentity,
    contrast: ContrastSet | None = None,
    *,
    harmful: PromptSet | None = None,
    benign: PromptSet | None = None,
    settings: HowFewSettings | None = None,
) -> HowFew | None:
    """The stored result of `how_few` for this model, these prompts and settings, or None. Loads no model."""
    contrast, settings = contrast or ContrastSet.builtin(), settings or HowFewSettings()
    harmful, benign = _sets(contrast, harmful, benign, settings)
    return _KEPT.find(*_depends_on(model, contrast, harmful, benign, settings))


def _sets(
    contrast: ContrastSet, harmful: PromptSet | None, benign: PromptSet | None, settings: HowFewSettings
) -> tuple[PromptSet, PromptSet]:
    sets, _ = held_out(
        {
            "harmful": harmful or PromptSet.builtin("evaluation-harmful"),
            "benign": benign or PromptSet.builtin("evaluation-benign"),
        },
        contrast.prompts,
    )
    counts = {"harmful": settings.prompts, "benign": settings.benign}
    few = {kind: prompts.spread(min(counts[kind], len(prompts))) for kind, prompts in sets.items()}
    return few["harmful"], few["benign"]


def _depends_on(
    model: ModelIdentity, contrast: ContrastSet, harmful: PromptSet, benign: PromptSet, settings: HowFewSettings
) -> list[object]:
    identity = model.model_dump(mode="json")
    return [FORMAT, identity, contrast.sha256, harmful.sha256, benign.sha256, settings.model_dump(mode="json")]


_KEPT = ResultCache("how-few", ".json", HowFew.load, HowFew.save)
_ROWS = ResultCache(
    "how-few-rows",
    ".json",
    read=lambda path: np.array(json.loads(path.read_text(encoding="utf-8")), dtype=np.float64),
    write=lambda row, path: path.write_text(json.dumps(row.tolist()), encoding="utf-8"),
    limit_bytes=64 << 20,
)
"""The numbers of one prompt, baseline first."""


def _ways(
    model: LoadedModel, activations: Activations, effects: Effects, settings: HowFewSettings
) -> tuple[list[_Way], tuple[str, ...]]:
    """All rankings, and a sentence for each that is not possible."""
    total, notes = model.layout.total, []
    first_layers = int(model.layout.offsets[measured_layers(model.layout, EffectSettings())])
    early = np.where(np.arange(total) < first_layers, effects.effect, np.nan)
    # Universal neurons are excluded, and random circuits need spare neurons, so not all can be selected.
    sizes = _powers_of_two(min(settings.largest, total // 8))
    ways = []
    for key, effect in (("effect", early), ("effect-all", effects.effect)):
        fitting = _powers_of_two(min(sizes[-1], int((np.nan_to_num(effect) < 0).sum())))
        flat = most_negative(effect, fitting[-1], np.empty(0, dtype=np.int64))
        found_by = CircuitSettings(score="attribution-patching", fraction=None, top_k=len(flat))
        circuit = circuit_with_effects(effects, flat, found_by)
        own = circuit.settings.model_copy(update={"effect": EffectSettings() if key == "effect" else effects.settings})
        ways.append(_Way(key, (replace(circuit, settings=own),), fitting))
    for score in ("delta", "effect-size"):
        circuit = attribute(activations, fraction=None, top_k=sizes[-1], score=score)
        ways.append(_Way(score, (circuit,), sizes))
    chosen, fewer = ways[0].ranked[0], ways[0].sizes[::2] if len(ways[0].sizes) % 2 else ways[0].sizes[1::2]
    for key, draw in (("random", _random), ("random-writing", _random_writing)):
        try:
            drawn = draw(model, chosen, activations, settings)
        except CircuitError as error:
            notes.append(f"{TITLES[key]}: not measured, {error}")
        else:
            ways.append(_Way(key, drawn, fewer))
    return ways, tuple(notes)


def _powers_of_two(largest: int) -> tuple[int, ...]:
    return tuple(1 << power for power in range(max(1, largest).bit_length()))


def _random(
    _model: LoadedModel, circuit: Circuit, _activations: Activations, settings: HowFewSettings
) -> tuple[Circuit, ...]:
    """Random neurons of the same layers, rank by rank: at every size, each layer has the same number."""
    return tuple(random_circuit(circuit, settings.seed + draw) for draw in range(settings.draws))


def _random_writing(
    model: LoadedModel, circuit: Circuit, activations: Activations, settings: HowFewSettings
) -> tuple[Circuit, ...]:
    """For each neuron of the circuit, another neuron of its layer with about the same output size."""
    size = activations.values[: len(activations.positive)].float().abs().mean(0).numpy()
    written = size * output_norms(model)
    generators = [np.random.default_rng(settings.seed + draw) for draw in range(settings.draws)]
    return tuple(with_neurons(circuit, matched(circuit, written, generator)) for generator in generators)


class _Run:
    """The results of the prompts so far; a row is (1 + all rankings, draws and sizes,), baseline first."""

    def __init__(
        self,
        model: LoadedModel,
        openings: RefusalOpenings,
        ways: Sequence[_Way],
        stop: threading.Event | None,
        use_cache: bool,
    ) -> None:
        self.model, self.openings, self.ways, self.stop, self.use_cache = model, openings, ways, stop, use_cache
        self.rows: tuple[list[NDArray[np.float64]], list[NDArray[np.float64]]] = ([], [])
        self.prefixes = PrefixCaches(model, PREFIX_BYTES)
        parts = [circuit.part(slice(size)) for way in ways for circuit in way.ranked for size in way.sizes]
        self.ablations: list[Intervention] = [method(DEFAULT_METHOD).fit(Material(model, part)) for part in parts]
        self.depends_on = [
            FORMAT,
            model.identity.model_dump(mode="json"),
            weights_sample(model),
            openings.sha256,
            [part.flat.tolist() for part in (circuit for way in ways for circuit in way.ranked)],
            [way.sizes for way in ways],
        ]

    def read(self, prompt: str, is_benign: bool) -> None:
        key = [*self.depends_on, prompt, is_benign]
        row = _ROWS.find(*key) if self.use_cache else None
        if row is None:
            row = self._measured(prompt, is_benign)
            if self.use_cache:
                _ROWS.keep(row, *key)
        self.rows[is_benign].append(row)

    def _measured(self, prompt: str, is_benign: bool) -> NDArray[np.float64]:
        messages = as_messages(prompt)
        lanes = [Lane(messages), *(Lane(messages, 1.0, ablation) for ablation in self.ablations)]
        logits = first_token_logits(self.model, lanes, None, prefixes=self.prefixes, stop=self.stop)
        return divergences(logits) if is_benign else self.openings.chance(logits)

    def filled(self, empty: HowFew) -> HowFew:
        """The results so far, in their stored form."""
        harmful, benign = (np.array(rows).reshape(len(rows), 1 + len(self.ablations)) for rows in self.rows)
        curves, start = [], 1
        for way in self.ways:
            shape, end = (len(way.ranked), len(way.sizes)), start + len(way.ranked) * len(way.sizes)
            chances, kl = (
                table[:, start:end].reshape(len(table), *shape).transpose(1, 0, 2).round(6).tolist()
                for table in (harmful, benign)
            )
            title = TITLES[way.key]
            content = {"key": way.key, "title": title, "sizes": way.sizes, "chances": chances, "divergences": kl}
            curves.append(SizeCurve.model_validate(content))
            start = end
        baseline = tuple(float(value) for value in harmful[:, 0].round(6))
        return empty.model_copy(update={"baseline": baseline, "curves": tuple(curves)})


def divergences(logits: torch.Tensor) -> NDArray[np.float64]:
    """(rows,) float64: KL(row 0 ‖ row) of the next token, in nats; logits are (rows, vocabulary)."""
    logs = torch.log_softmax(logits.double(), dim=-1)
    return (logs[:1].exp() * (logs[:1] - logs)).sum(-1).clamp(min=0).numpy()
