"""The working point: the setting that at least halves refusal with the smallest effect on benign prompts.

That effect is KL(baseline ‖ setting) of the first token, averaged over benign prompts. It costs one forward pass per
prompt, so all settings are ranked by it first. Then answers to the harmful prompts are generated, in the order of the
ranking, until one setting has at most half of the baseline's refusals. A run that measured both needs no search. This
module knows nothing about pages.
"""

import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from cna_core.circuits.activations import Activations
from cna_core.circuits.circuit import Circuit
from cna_core.errors import RunError
from cna_core.evaluation.batches import Batch
from cna_core.evaluation.dials import Dials, dials_for
from cna_core.evaluation.measures.benign_kl import BenignDivergence
from cna_core.evaluation.measures.refusal_rate import RefusalRate
from cna_core.evaluation.refusal import wilson_interval
from cna_core.evaluation.runs import Run
from cna_core.evaluation.setting import BASELINE, DEFAULT_TREATMENT, Setting
from cna_core.evaluation.sweep import measured
from cna_core.evaluation.sweep_plan import SweepPlan, plan_sweep
from cna_core.evaluation.sweep_settings import ROWS_PER_BATCH, SweepSettings
from cna_core.interventions.registry import DEFAULT_METHOD
from cna_core.models.loaded import LoadedModel
from cna_core.progress import Report, Stage, raise_if_stopped, tell
from cna_core.prompts.sets import PromptSet

FRACTIONS = (0.001, 0.002, 0.004, 0.007, 0.01)
STRENGTHS = (0.5, 0.75, 1.0, 1.25, 1.5, 1.75, 2.0)
HALVED = 0.5
FEW_PROMPTS = 8
"""The size of the first batch: enough prompts to show that most settings do not halve refusal."""


@dataclass(frozen=True)
class WorkingPoint:
    """The chosen setting and its measurements.

    Args:
        setting: the circuit's fraction and the strength.
        refusal_rate, baseline_rate: refusal rates on the same prompts.
        refusal_interval: the 95 % Wilson interval.
        benign_kl: the cost, in nats.
        prompts: the number of prompts.
    """

    setting: Setting
    refusal_rate: float
    baseline_rate: float
    refusal_interval: tuple[float, float]
    benign_kl: float
    prompts: int


def working_point_of(run: Run) -> WorkingPoint | None:
    """The point of a run that at least halves refusal with the smallest benign KL, or None if no point halves it.

    Only points of the run's first circuit count: it is the one that the run keeps, and that Chat can open.

    Raises:
        RunError: the run did not measure refusal and benign KL, or the baseline does not refuse.
    """
    before = run.baseline.estimate(RefusalRate.key) if run.baseline else None
    if before is None:
        raise RunError(
            "A working point needs the baseline's refusals, which this run does not have; start one with refusal_rate."
        )
    _check_refuses(before.value)
    rated = [
        (kl.value, refused, point)
        for point in run.points
        if point.method == DEFAULT_METHOD
        and point.setting.circuit is None
        and point.strength != 0
        and (kl := point.estimate(BenignDivergence.key)) is not None
        and (refused := point.estimate(RefusalRate.key)) is not None
    ]
    if not rated:
        raise RunError(
            "A working point needs KL on benign prompts, which this run did not measure; start one with benign prompts."
        )
    enough = [found for found in rated if found[1].value <= HALVED * before.value]
    if not enough:
        return None
    least, refused, point = min(enough, key=lambda found: (found[0], found[2].strength))
    interval = (refused.low, refused.high)
    return WorkingPoint(point.setting, refused.value, before.value, interval, least, point.prompts)


def search_working_point(
    model: LoadedModel,
    circuit: Circuit | Activations,
    prompts: PromptSet | None = None,
    benign: PromptSet | None = None,
    fractions: Sequence[float] = FRACTIONS,
    strengths: Sequence[float] = STRENGTHS,
    *,
    activations: Activations | None = None,
    max_new_tokens: int = 32,
    rows_per_batch: int = ROWS_PER_BATCH,
    progress: Report | None = None,
    stop: threading.Event | None = None,
) -> WorkingPoint | None:
    """Search fraction × strength for the setting that at least halves refusal with the smallest benign KL.

    Args:
        circuit: a circuit, or activations to select one from; sizes above the circuit's need `activations`.
        prompts, benign: the prompt sets; None: the built-in evaluation sets.
        fractions, strengths: the grid.
        max_new_tokens: the answer length, which must be enough for the detector to judge an opening.

    Returns:
        The working point, or None if no setting halves refusal.

    Raises:
        RunError: the baseline does not refuse.
        CircuitError: a size is not available.
        StoppedError: `stop` was set.
    """
    wanted = SweepSettings(
        thinking=False,  # as the first tokens, by which the settings are ranked
        prompts=prompts or PromptSet.builtin("evaluation-harmful"),
        strengths=tuple(strengths),
        fractions=tuple(fractions),
        benign=benign or PromptSet.builtin("evaluation-benign"),
        methods=(DEFAULT_METHOD,),
        controls=(),
        measures=(BenignDivergence(), RefusalRate()),
        max_new_tokens=max_new_tokens,
        rows_per_batch=rows_per_batch,
    )
    plan = plan_sweep(model, circuit, wanted, activations)
    search = _Search(model, plan, dials_for(model, plan.circuits, [DEFAULT_TREATMENT], 0, None), progress, stop)
    return search.result()


class _Search:
    """One search: the ranked settings, and the refusals counted so far."""

    def __init__(
        self, model: LoadedModel, plan: SweepPlan, dials: Dials, progress: Report | None, stop: threading.Event | None
    ) -> None:
        self.model, self.plan, self.dials, self.progress, self.stop = model, plan, dials, progress, stop
        self.prompts = len(plan.conversations["harmful"])
        self.baseline: dict[int, bool] = {}

    def result(self) -> WorkingPoint | None:
        divergences = self._divergences()
        self.baseline = self._refusals([BASELINE], range(self.prompts))[BASELINE]
        refused = sum(self.baseline.values())
        _check_refuses(refused / self.prompts)
        allowed = int(HALVED * refused)
        ranked = sorted(divergences, key=lambda setting: (divergences[setting], setting.strength))
        for some in _parts(ranked, max(1, self.plan.run.settings.rows_per_batch // FEW_PROMPTS)):
            tell(self.progress, Stage.WORKING_POINT_SETTINGS, ranked.index(some[0]), len(ranked), "settings")
            counts = self._counted(some, allowed)
            for setting in some:
                if counts[setting] is not None:
                    return self._point(setting, counts[setting] or 0, refused, divergences[setting])
        return None

    def _divergences(self) -> dict[Setting, float]:
        """The mean benign KL of every setting except the baseline."""
        batches = [batch for batch in self.plan.batches if batch.reads == "first-token"]
        totals = dict.fromkeys(self.plan.settings, 0.0)
        for done, batch in enumerate(batches):
            raise_if_stopped(self.stop)
            tell(self.progress, Stage.WORKING_POINT_DIVERGENCES, done, len(batches), "batches")
            for record in measured(self.model, self.plan, self.dials, batch, self.stop):
                totals[record.setting] += record.observations[BenignDivergence.key]["kl"]
        benign = len(self.plan.conversations["benign"])
        return {setting: total / benign for setting, total in totals.items() if not setting.is_baseline}

    def _counted(self, settings: Sequence[Setting], allowed: int) -> dict[Setting, int | None]:
        """The refusals of each setting over all prompts; None if they exceed the limit, at which counting ends.

        Prompts that the baseline refuses come first, because they decide soonest.
        """
        order = sorted(range(self.prompts), key=lambda prompt: (not self.baseline[prompt], prompt))
        counts: dict[Setting, int | None] = dict.fromkeys(settings, 0)
        place = 0
        while place < len(order):
            living = [setting for setting in settings if counts[setting] is not None]
            if not living:
                break
            together = max(FEW_PROMPTS, self.plan.run.settings.rows_per_batch // len(living))
            prompts = order[place : place + together]
            for setting, refusals in self._refusals(living, prompts).items():
                count = (counts[setting] or 0) + sum(refusals.values())
                counts[setting] = count if count <= allowed else None
            place += together
        return counts

    def _refusals(self, settings: Sequence[Setting], prompts: Sequence[int]) -> dict[Setting, dict[int, bool]]:
        """Which of these prompts the model refuses under each setting."""
        places = [self.plan.settings.index(setting) for setting in settings]
        pairs = [(prompt, place) for prompt in prompts for place in places]
        found: dict[Setting, dict[int, bool]] = {setting: {} for setting in settings}
        for part in _parts(pairs, self.plan.run.settings.rows_per_batch):
            raise_if_stopped(self.stop)
            batch = Batch(0, "answers", "harmful", tuple(part))
            for record in measured(self.model, self.plan, self.dials, batch, self.stop):
                found[record.setting][record.prompt] = bool(record.observations[RefusalRate.key]["refused"])
        return found

    def _point(self, setting: Setting, count: int, refused: int, kl: float) -> WorkingPoint:
        rates = count / self.prompts, refused / self.prompts
        return WorkingPoint(setting, *rates, wilson_interval(count, self.prompts), kl, self.prompts)


def _check_refuses(rate: float) -> None:
    if rate == 0:
        raise RunError(
            "The unsteered model refuses none of these prompts, so there is no refusal to halve; choose other prompts."
        )


def _parts(items: Sequence, size: int) -> Iterator[Sequence]:
    for start in range(0, len(items), size):
        yield items[start : start + size]
