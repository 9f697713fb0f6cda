"""The form for a new evaluation: widgets that fill in `SweepSettings` and start from its defaults.

Methods and measures come from their registries. The form does not use a model in memory.
"""

from collections.abc import Sequence
from typing import Any

import streamlit as st

from cna_core.circuits.activations import Activations
from cna_core.circuits.circuit import Circuit
from cna_core.circuits.library import saved_circuits
from cna_core.errors import CnaError, PromptError, RunError
from cna_core.evaluation.dials import fraction_of
from cna_core.evaluation.held_out import discovery_prompts, held_out
from cna_core.evaluation.knowledge import BUILT_IN, MMLU
from cna_core.evaluation.measures.registry import measure, measures, usual_measures
from cna_core.evaluation.runs import SetName
from cna_core.evaluation.sweep_settings import FINE_STRENGTHS, SweepSettings
from cna_core.evaluation.word_problems import ENOUGH_TOKENS, GSM8K, builtin_problems
from cna_core.interventions.registry import method, methods
from cna_core.limits import allowed, require_allowed
from cna_core.prompts.public_catalog import PREFIX, public_set
from cna_core.prompts.sets import PromptSet
from pages.common import keys, public_sets
from pages.common.plain import plain, tell_error
from pages.inspecting import panes

DEFAULTS = SweepSettings.model_fields
STRENGTHS = {
    "few": DEFAULTS["strengths"].default,
    "beyond": (0.0, 0.5, 1.0, 1.5, 2.0),
    "fine": FINE_STRENGTHS,
}
STRENGTH_WORDS = {"few": "0, 0.5, 1", "beyond": "0 … 2", "fine": "−1 … 2", "own": "custom"}
OTHER_SIZES = (0.001, 0.002, 0.004, 0.01)
NO_QUESTIONS, OWN_QUESTIONS, PUBLIC_QUESTIONS = "none", "file or folder", f"{PREFIX}{MMLU}"
QUESTIONS_FROM = {NO_QUESTIONS: "none", BUILT_IN: "built-in", PUBLIC_QUESTIONS: "MMLU", OWN_QUESTIONS: "MMLU (folder)"}
PUBLIC_PROBLEMS = f"{PREFIX}{GSM8K}"
PROBLEMS_FROM = {NO_QUESTIONS: "none", BUILT_IN: "built-in", PUBLIC_PROBLEMS: "GSM8K"}
THINKING = {"as the model's template decides": None, "on": True, "off": False}
MOST_QUESTIONS, USUAL_QUESTIONS = 14_042, 120
_KEEP: dict[str, Any] = {"persist_state": "session"}


def ask(circuit: Circuit, activations: Activations | None) -> SweepSettings | None:
    """Draw the form. Returns the settings, or None if one of them is invalid; then an error is shown.

    Args:
        circuit: the circuit to evaluate.
        activations: used to select larger circuits; without them only smaller ones are offered.
    """
    try:
        ordered = _ask_methods() | _ask_dials(circuit, activations) | _ask_prompts(circuit, activations)
        with st.expander("More settings", icon=":material/tune:"):
            ordered |= _ask_more(ordered)
        return SweepSettings(**ordered)
    except CnaError as error:
        tell_error(error)
        return None


def _ask_methods() -> dict[str, Any]:
    left, right = panes.side_by_side("order-methods", [3, 1])
    chosen = left.pills(
        "Methods",
        [one.key for one in methods()],
        default=list(DEFAULTS["methods"].default),
        selection_mode="multi",
        key="evaluate-methods",
        format_func=lambda key: method(key).label,
        help="  \n".join(f"**{one.label}**: {one.title}." for one in methods()),
        **_KEEP,
    )
    twins = right.toggle(
        "Random twins",
        True,
        key="evaluate-controls",
        help="The control of each method: the same change with other neurons of the same layers, or with a random "
        "direction or random vectors of the same length.",
        **_KEEP,
    )
    in_order = tuple(one.key for one in methods() if one.key in chosen)
    return {"methods": in_order, "controls": twins}


def _ask_dials(circuit: Circuit, activations: Activations | None) -> dict[str, Any]:
    left, right = panes.side_by_side("order-dials", [1, 1])
    with left:
        chosen = st.segmented_control(
            "Strengths",
            list(STRENGTH_WORDS),
            default="few",
            key="evaluate-strengths",
            required=True,
            format_func=STRENGTH_WORDS.__getitem__,
            help="0 … 2 is in steps of 0.5, −1 … 2 in steps of 0.25.",
            **_KEEP,
        )
        named = STRENGTHS.get(chosen or "few")
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
            help="With several sizes, every size is combined with every strength.",
        )
    if not fractions:
        raise RunError("Choose at least one circuit size.")
    return {"strengths": tuple(strengths), "fractions": tuple(sorted(fractions)), "others": _ask_others(circuit)}


def _ask_others(circuit: Circuit) -> dict[str, Circuit]:
    """Saved circuits of this model to measure in the same run, by name; nothing is asked if there are none."""
    saved = {one.name: one.circuit for one in saved_circuits(circuit.model) if one.circuit is not None}
    others = {name: one for name, one in saved.items() if one.sha256 != circuit.sha256}
    if not others:
        return {}
    chosen = st.multiselect(
        "Other circuits in the same run",
        list(others),
        key="evaluate-others",
        placeholder="None",
        help="Saved circuits, for example one by δ and one by effect. All are in one chart with one baseline. "
        "Save circuits in the sidebar.",
        **_KEEP,
    )
    return {name: others[name] for name in chosen}


def _own_strengths() -> tuple[float, ...]:
    text = st.text_input("Strengths, separated by commas", "0, 1, 2", key="evaluate-own-strengths", **_KEEP)
    try:
        strengths = tuple(float(part) for part in text.replace(";", ",").split(",") if part.strip())
    except ValueError as error:
        raise RunError("Strengths must be numbers separated by commas, such as 0, 0.5, 1.") from error
    require_allowed(strengths)
    return strengths


def _ask_prompts(circuit: Circuit, activations: Activations | None) -> dict[str, Any]:
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
        len(harmful),
        key=f"evaluate-count-{len(harmful)}",
        help="More prompts give narrower intervals. At a rate of 50 %, the interval is ±17 points with 32 prompts and "
        "±12 points with 64.",
        **_KEEP,
    )
    name = left.text_input("Name of the run", key="evaluate-name", placeholder="optional", **_KEEP)
    costs = right.pills(
        "Side effects to measure",
        ["benign", "borderline"],
        default=["benign", "borderline"],
        selection_mode="multi",
        key="evaluate-costs",
        format_func={"benign": "benign prompts", "borderline": "over-refusal"}.__getitem__,
        help="Benign prompts (refusals, KL) and benign prompts that only look unsafe (over-refusal). As many as there "
        "are harmful prompts, or all of them if all harmful prompts are used.",
        **_KEEP,
    )
    few = count if count < len(harmful) else None
    sets: dict[SetName, PromptSet] = {"harmful": harmful.spread(count)}
    if "benign" in costs:
        chosen = public_sets.choose(right, "Benign prompts from", "benign", "evaluation-benign", "evaluate-benign")
        sets["benign"] = chosen.spread(few or len(chosen))
    if "borderline" in costs:
        chosen = public_sets.choose(right, "Over-refusal on", "borderline", "borderline", "evaluate-borderline")
        sets["borderline"] = chosen.spread(few or len(chosen))
    for note in held_out(sets, discovery_prompts(circuit, activations, None))[1]:
        st.caption(f":material/info: {plain(note)}")
    parts = {"prompts": sets["harmful"], "benign": sets.get("benign"), "borderline": sets.get("borderline")}
    return parts | {"name": name.strip()}


def _ask_more(ordered: dict[str, Any]) -> dict[str, Any]:
    first, second, third = panes.side_by_side("order-more", [1, 1, 1])
    tokens = first.number_input(
        "Maximum answer length, tokens", 1, 2048, DEFAULTS["max_new_tokens"].default, 8, key="evaluate-tokens", **_KEEP
    )
    thinking = first.selectbox(
        "Thinking",
        list(THINKING),
        key="evaluate-thinking",
        help="For models that think before they answer. Only the answer is judged. The maximum length covers both, so "
        "raise it.",
        **_KEEP,
    )
    seed = second.number_input(
        "Seed of the random twins", 0, 2**31 - 1, DEFAULTS["seed"].default, key="evaluate-seed", **_KEEP
    )
    known = _ask_questions(third) | _ask_problems(second)
    parts: list[SetName] = ["harmful"]
    parts += [part for part in ("benign", "borderline") if ordered[part] is not None]
    parts += [part for part in ("knowledge", "problems") if known[part]]
    taken = _ask_measures(parts)
    st.file_uploader(
        "Your own harmful prompts", type=["txt", "csv", "jsonl"], key=keys.OWN_EVALUATION_PROMPTS, help="One per line."
    )
    chosen = {"max_new_tokens": int(tokens), "thinking": THINKING[thinking], "seed": int(seed)}
    return chosen | known | taken


def _ask_questions(place: Any) -> dict[str, Any]:
    source = place.selectbox(
        "Knowledge questions",
        list(QUESTIONS_FROM),
        key="evaluate-knowledge",
        format_func=QUESTIONS_FROM.__getitem__,
        **_KEEP,
    )
    if source == NO_QUESTIONS:
        return {"knowledge": ()}
    if source == PUBLIC_QUESTIONS:
        place.caption(public_set(MMLU).credit)
    if source == OWN_QUESTIONS:
        source = place.text_input("Folder with MMLU's CSV files", key="evaluate-mmlu", **_KEEP)
        if not source:
            raise RunError("Enter the folder that holds the questions, or choose no questions.")
    count = place.number_input(
        "Number of questions", 1, MOST_QUESTIONS, USUAL_QUESTIONS, 20, key="evaluate-questions", **_KEEP
    )
    return {"knowledge": source, "questions": int(count)}


def _ask_problems(place: Any) -> dict[str, Any]:
    source = place.selectbox(
        "Word problems",
        list(PROBLEMS_FROM),
        key="evaluate-problems",
        format_func=PROBLEMS_FROM.__getitem__,
        help=f"The model computes a number step by step, in up to {ENOUGH_TOKENS} tokens an answer, which is slow.",
        **_KEEP,
    )
    if source == NO_QUESTIONS:
        return {"problems": ()}
    if source == PUBLIC_PROBLEMS:
        place.caption(public_set(GSM8K).credit)
    count = place.number_input(
        "Number of word problems",
        1,
        public_set(GSM8K).rows if source == PUBLIC_PROBLEMS else len(builtin_problems()),
        DEFAULTS["problem_count"].default,
        10,
        key=f"evaluate-problem-count-{source}",
        **_KEEP,
    )
    return {"problems": source, "problem_count": int(count)}


def _ask_measures(parts: Sequence[SetName]) -> dict[str, Any]:
    """Choose from the measures that these prompt sets allow, and ask for the settings that they need."""
    offered = [one.key for one in measures() if one.prompt_set in parts]
    chosen = st.multiselect(
        "Measures",
        offered,
        default=[one.key for one in usual_measures(parts)],
        key=f"evaluate-measures-{'-'.join(parts)}",
        format_func=lambda key: measure(key).column_title(),
        help="  \n".join(f"**{measure(key).column_title()}**: {measure(key).description}" for key in offered),
    )
    asked: dict[str, dict[str, str]] = {}
    for key in chosen:
        for option, example in measure(key).options.items():
            label = f"{measure(key).column_title().capitalize()}: {option}"
            given = st.text_input(label, placeholder=example, key=f"evaluate-{key}-{option}", **_KEEP)
            asked.setdefault(key, {})[option] = given.strip()
    if missing := [key for key, given in asked.items() if not all(given.values())]:
        kind = measure(missing[0])
        raise RunError(
            f"“{kind.column_title()}” needs {' and '.join(kind.options)}. Enter them, or remove the measure."
        )
    return {"measures": tuple(chosen), "measure_settings": asked}


def _uploaded(upload: Any) -> PromptSet:
    kind = upload.name.rsplit(".", 1)[-1].lower()
    if kind not in ("txt", "csv", "jsonl"):
        raise PromptError("Prompts must be a .txt, .csv or .jsonl file.")
    return PromptSet.from_bytes(upload.getvalue(), kind=kind, name=upload.name)
