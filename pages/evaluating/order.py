"""What a person wants measured, and the widgets that ask for it; knows arithmetic of time, and no model."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import streamlit as st

from cna_core.circuits.activations import Activations
from cna_core.circuits.circuit import Circuit
from cna_core.errors import CnaError, PromptError, RunError
from cna_core.evaluation.dials import fraction_of
from cna_core.evaluation.gate_meter import RefusalOpenings
from cna_core.evaluation.held_out import discovery_prompts, held_out
from cna_core.evaluation.judge import KEY_VARIABLE, Judge, JudgedRefusalRate
from cna_core.evaluation.knowledge import MMLU, Question, builtin_questions, public_questions, read_questions, spread
from cna_core.evaluation.measures import Measure, default_measures
from cna_core.evaluation.pace import Pace
from cna_core.evaluation.runs import SetName
from cna_core.evaluation.sweep_settings import DEFAULT_STRENGTHS, SweepSettings
from cna_core.interventions.registry import DEFAULT_METHODS, method, methods
from cna_core.limits import allowed, require_allowed
from cna_core.prompts.public_catalog import public_set
from cna_core.prompts.sets import PromptSet
from pages.common import keys, public_sets
from pages.inspecting import panes

QUICK_STRENGTHS = (0.0, 0.5, 1.0, 1.5, 2.0)
STRENGTHS = {"quick": QUICK_STRENGTHS, "full": DEFAULT_STRENGTHS}
OTHER_SIZES = (0.001, 0.002, 0.004, 0.01)
QUESTIONS_OFFERED = ("none", "built-in", "MMLU (Hub)", "MMLU (folder)")
_KEEP: dict[str, Any] = {"persist_state": "session"}


@dataclass(frozen=True)
class Order:
    """One sweep as it was ordered."""

    strengths: tuple[float, ...]
    fractions: tuple[float, ...]
    methods: tuple[str, ...]
    controls: bool
    prompts: PromptSet
    benign: PromptSet | None
    borderline: PromptSet | None
    questions_from: str
    questions_folder: str
    questions_count: int
    perplexity: bool
    chance: bool
    judge: Judge | None
    max_new_tokens: int
    seed: int
    name: str

    @property
    def settings(self) -> int:
        """How many settings each prompt goes through."""
        away = len([strength for strength in self.strengths if strength != 0])
        sizes = sum(len(self.fractions) if method(key).uses_circuit else 1 for key in self.methods)
        return 1 + away * sizes * (1 + self.controls)

    def questions(self, **watching: Any) -> tuple[Question, ...]:
        """The knowledge questions; MMLU may have to be fetched.

        Args:
            watching: `progress` and `stop` of the fetching.

        Raises:
            RunError, PromptError: they cannot be had.
        """
        if self.questions_from == "built-in":
            return spread(builtin_questions(), self.questions_count)
        if self.questions_from == "MMLU (Hub)":
            return public_questions(limit=self.questions_count, **watching)
        if self.questions_from == "MMLU (folder)":
            return spread(read_questions(self.questions_folder), self.questions_count)
        return ()

    def measures(self, questions: Sequence[Question], openings: RefusalOpenings | None) -> list[Measure]:
        """What is to be taken, the judge among it where one is asked for."""
        sets = ["harmful"] + ["benign"] * bool(self.benign) + ["borderline"] * bool(self.borderline)
        chosen = default_measures(sets, questions, openings)  # type: ignore[arg-type]
        judged: list[Measure] = [JudgedRefusalRate(self.judge)] if self.judge else []
        return [measure for measure in chosen if self.perplexity or measure.name != "perplexity"] + judged

    def sweep_settings(self, questions: tuple[Question, ...], openings: RefusalOpenings | None) -> SweepSettings:
        """The order as the library takes it."""
        return SweepSettings(
            prompts=self.prompts,
            strengths=self.strengths,
            fractions=self.fractions,
            benign=self.benign,
            borderline=self.borderline,
            methods=self.methods,
            controls=self.methods if self.controls else (),
            measures=tuple(self.measures(questions, openings)),
            max_new_tokens=self.max_new_tokens,
            seed=self.seed,
            knowledge=questions,
            name=self.name,
        )

    def seconds(self, pace: Pace) -> float:
        """How long it will take at this machine's pace."""
        benign, borderline = len(self.benign or ()), len(self.borderline or ())
        return pace.seconds(
            self.settings,
            written=len(self.prompts) + benign + borderline,
            read=benign + self.chance * len(self.prompts),
            questions=self.questions_count if self.questions_from != "none" else 0,
            max_new_tokens=self.max_new_tokens,
            perplexity_prompts=len(self.prompts) if self.perplexity else 0,
        )


def ask(circuit: Circuit, activations: Activations | None) -> Order | None:
    """Draw the widgets; the order, or None where something in it cannot be used (which is said in place).

    Args:
        circuit: what is to be evaluated.
        activations: from which larger circuits can be selected; None: only smaller ones are offered.
    """
    try:
        strengths, fractions = _ask_dials(circuit, activations)
        prompts, benign, borderline = _ask_prompts(circuit, activations)
        left, right = st.columns([3, 2], vertical_alignment="center")
        chosen, twins = _ask_methods(left)
        name = right.text_input("Name of the run", key="evaluate-name", placeholder="optional", **_KEEP)
        with st.expander("More settings", icon=":material/tune:"):
            more = _ask_more()
    except CnaError as error:
        st.error(str(error))
        return None
    return Order(strengths, fractions, chosen, twins, prompts, benign, borderline, name=name.strip(), **more)


def _ask_methods(place: Any) -> tuple[tuple[str, ...], bool]:
    chosen = place.pills(
        "Methods",
        [one.key for one in methods()],
        default=list(DEFAULT_METHODS),
        selection_mode="multi",
        key="evaluate-methods",
        format_func=lambda key: method(key).label,
        help="  \n".join(f"**{one.label}**: {one.title}." for one in methods()),
        **_KEEP,
    )
    twins = place.toggle(
        "Random twins",
        True,
        key="evaluate-controls",
        help="The control of each method: the same done with other neurons of the same layers, or random vectors.",
        **_KEEP,
    )
    if not chosen:
        raise RunError("Choose at least one method.")
    return tuple(chosen), twins


def _ask_dials(circuit: Circuit, activations: Activations | None) -> tuple[tuple[float, ...], tuple[float, ...]]:
    left, right = panes.side_by_side("order-dials", [1, 1])
    with left:
        chosen = st.segmented_control(
            "Strengths",
            [*STRENGTHS, "own"],
            default="full",
            key="evaluate-strengths",
            required=True,
            format_func={"quick": "0 … 2 by 0.5", "full": "−1 … 2 by 0.25", "own": "own"}.__getitem__,
            **_KEEP,
        )
        named = STRENGTHS.get(chosen or "full")
        strengths = allowed(named) if named else _own_strengths()
    own = fraction_of(circuit)
    sizes = [own, *(size for size in OTHER_SIZES if size != own and (activations is not None or size < own))]
    with right:
        fractions = st.multiselect(
            "Circuit sizes, % of all neurons",
            sorted(sizes),
            default=[own],
            key=f"evaluate-sizes-{own}",
            format_func=lambda size: f"{100 * size:g} %",
            help="Several sizes make a grid of size by strength.",
        )
    if not fractions:
        raise RunError("Choose at least one circuit size.")
    return tuple(strengths), tuple(sorted(fractions))


def _own_strengths() -> tuple[float, ...]:
    text = st.text_input("Strengths, separated by commas", "0, 1, 2", key="evaluate-own-strengths", **_KEEP)
    try:
        strengths = tuple(float(part) for part in text.replace(";", ",").split(",") if part.strip())
    except ValueError as error:
        raise RunError("Strengths are numbers separated by commas, like 0, 0.5, 1.") from error
    require_allowed(strengths)
    return strengths


def _ask_prompts(
    circuit: Circuit, activations: Activations | None
) -> tuple[PromptSet, PromptSet | None, PromptSet | None]:
    left, right = panes.side_by_side("order-prompts", [1, 1])
    upload = st.session_state.get(keys.OWN_EVALUATION_PROMPTS)
    harmful = (
        _uploaded(upload)
        if upload
        else public_sets.choose(left, "Harmful prompts from", "harmful", "evaluation-harmful", "evaluate-harmful")
    )
    count = left.slider(
        "Harmful prompts",
        1,
        len(harmful),
        min(32, len(harmful)),
        key=f"evaluate-count-{len(harmful)}",
        help="More prompts, narrower intervals: with 32, a rate of 50 % is known to ±17 points, with 64 to ±12.",
        **_KEEP,
    )
    costs = right.pills(
        "Costs measured beside it",
        ["benign", "borderline"],
        default=["benign", "borderline"],
        selection_mode="multi",
        key="evaluate-costs",
        format_func={"benign": "benign prompts", "borderline": "over-refusal"}.__getitem__,
        help="As many benign prompts (refusals, KL), and as many that only look unsafe (over-refusal).",
        **_KEEP,
    )
    sets: dict[SetName, PromptSet] = {"harmful": harmful.spread(count)}
    if "benign" in costs:
        chosen = public_sets.choose(right, "Benign prompts from", "benign", "evaluation-benign", "evaluate-benign")
        sets["benign"] = chosen.spread(count)
    if "borderline" in costs:
        chosen = public_sets.choose(right, "Over-refusal on", "borderline", "borderline", "evaluate-borderline")
        sets["borderline"] = chosen.spread(count)
    for note in held_out(sets, discovery_prompts(circuit, activations, None))[1]:
        st.caption(f":material/info: {note}")
    return sets["harmful"], sets.get("benign"), sets.get("borderline")


def _ask_more() -> dict[str, Any]:
    first, second, third = panes.side_by_side("order-more", [1, 1, 1])
    tokens = first.number_input("Longest answer, tokens", 1, 2048, 64, 8, key="evaluate-tokens", **_KEEP)
    seed = first.number_input("Seed of the random circuit", 0, 2**31 - 1, 0, key="evaluate-seed", **_KEEP)
    perplexity = second.checkbox(
        "Perplexity of the answers",
        True,
        key="evaluate-perplexity",
        help="Under the unsteered model: sees word salad that the 4-gram quality does not.",
        **_KEEP,
    )
    chance = second.checkbox(
        "Gate meter", True, key="evaluate-chance", help="The chance of a refusal, read off the first token.", **_KEEP
    )
    source = third.selectbox("Knowledge questions", QUESTIONS_OFFERED, index=1, key="evaluate-knowledge", **_KEEP)
    folder, count = "", 120
    if source == "MMLU (folder)":
        folder = third.text_input("Folder with MMLU's CSV files", key="evaluate-mmlu", **_KEEP)
    if source == "MMLU (Hub)":
        third.caption(public_set(MMLU).credit)
    if source != "none":
        count = third.number_input("How many questions", 1, 14_042, 120, 20, key="evaluate-questions", **_KEEP)
    first.file_uploader(
        "Own harmful prompts instead", type=["txt", "csv", "jsonl"], key=keys.OWN_EVALUATION_PROMPTS, help="One a line."
    )
    judge = _ask_judge(second)
    return {
        "questions_from": source,
        "questions_folder": folder,
        "questions_count": int(count),
        "perplexity": perplexity,
        "chance": chance,
        "judge": judge,
        "max_new_tokens": int(tokens),
        "seed": int(seed),
    }


def _ask_judge(place: Any) -> Judge | None:
    wanted = place.checkbox(
        "Second opinion by a judge model",
        False,
        key="evaluate-judged",
        help=f"An OpenAI-compatible endpoint of your choice; its key comes from ${KEY_VARIABLE} alone. "
        "Prompts and answers are sent there.",
        **_KEEP,
    )
    if not wanted:
        return None
    endpoint = place.text_input("Endpoint", placeholder="http://127.0.0.1:8000/v1", key="evaluate-endpoint", **_KEEP)
    model = place.text_input("Judge model", key="evaluate-judge-model", **_KEEP)
    if not endpoint or not model:
        raise RunError("Name the judge's endpoint and model, or leave the second opinion out.")
    return Judge(endpoint.strip(), model.strip())


def _uploaded(upload: Any) -> PromptSet:
    kind = upload.name.rsplit(".", 1)[-1].lower()
    if kind not in ("txt", "csv", "jsonl"):
        raise PromptError("Prompts come as .txt, .csv or .jsonl.")
    return PromptSet.from_bytes(upload.getvalue(), kind=kind, name=upload.name)
