"""The report of a chat: each message, how each lane answered, and the circuit at work while it did."""

import json

import numpy as np

from cna_core.circuits.circuit import Circuit
from cna_core.decoding.conversation import Answer, Conversation, Turn
from cna_core.evaluation.quality import quality
from cna_core.evaluation.refusal import UNFINISHED, detect_refusal
from cna_core.figures import palette
from cna_core.figures.token_map import LaneActivity, token_map
from cna_core.interventions.registry import label_of, method
from cna_core.reports.circuit_report import about_circuit, attribute_commands
from cna_core.reports.page import Folded, Report, Section


def conversation_report(conversation: Conversation, circuit: Circuit, *, with_answers: bool = False) -> Report:
    """The report of a conversation.

    Args:
        circuit: the circuit whose activity was recorded.
        with_answers: also the answers, folded, and their tokens on the maps. Without it no word of an answer is in
            the file.
    """
    turns = [
        section
        for number, turn in enumerate(conversation.turns, 1)
        for section in _turn(turn, number, circuit, with_answers)
    ]
    commands = [*attribute_commands(circuit), *_generate_commands(conversation, circuit)]
    sections = (*turns, about_circuit(circuit), Section("How to repeat it", code="\n".join(commands)))
    count = len(conversation.turns)
    lead = f"{count} {'message' if count == 1 else 'messages'}, answered by the unsteered and the steered model."
    return Report(f"Conversation with {circuit.model.name}", lead, sections)


def _turn(turn: Turn, number: int, circuit: Circuit, with_answers: bool) -> list[Section]:
    answers = [answer for answer in turn.answers if answer.token_ids]
    facts = [(_name(answer), _figures(answer)) for answer in answers]
    facts += [("settings", json.dumps(turn.settings, ensure_ascii=False))]
    folded = [
        Folded(f"{_name(answer)}: the {part}", text)
        for answer in (answers if with_answers else [])
        for part, text in (("thought", answer.thought), ("answer", answer.text))
        if text or part == "answer"
    ]
    problem = (f"No answer: {turn.error}",) if turn.error else ()
    first = Section(f"Message {number}", (turn.message, *problem), facts=tuple(facts), folded=tuple(folded))
    layers = np.unique(circuit.layers).tolist()
    recorded = [
        answer
        for answer in answers
        if all(row is not None and len(row) == len(layers) for row in answer.layer_activity)
    ]
    if not recorded:
        return [first]
    lanes = [_lane(answer, turn, with_answers) for answer in recorded]
    figure = token_map(lanes, layers, circuit.model.layers)
    words = (
        "A column is a token, a row a layer of the circuit; vermilion is the direction of refused prompts. In steered "
        "lanes it is the activity before the multiplier. Dotted: the first token that differs."
    )
    return [first, Section(f"Message {number}: the circuit, token by token", figure=figure, how_to_read=words)]


def _lane(answer: Answer, turn: Turn, with_answers: bool) -> LaneActivity:
    activity = np.array([row or () for row in answer.layer_activity], dtype=np.float32)
    divergence = np.array([np.nan if value is None else value for value in answer.divergence], dtype=np.float64)
    baseline = answer is turn.answers[0]
    return LaneActivity(
        _name(answer),
        palette.BASELINE if baseline else _colour(answer),
        answer.token_texts if with_answers else [""] * len(answer.pieces),
        activity,
        None if baseline else divergence,
        None if baseline else answer.parts_from(turn.answers[0]),
    )


def _colour(answer: Answer) -> str:
    return palette.RANDOM if answer.kind == "random" else palette.METHOD_COLOURS[method(answer.method).colour]


def _name(answer: Answer) -> str:
    if answer.kind == "baseline":
        return "Unsteered"
    twin = "random twin of " if answer.kind == "random" else ""
    where = "" if answer.steers == "both" else f", in the {answer.steers} only"
    return f"{twin}{label_of(answer.method)}, strength {answer.strength:g}{where}"


def _figures(answer: Answer) -> str:
    verdict = UNFINISHED if answer.in_thought else detect_refusal(answer.text)
    words = [verdict.outcome, f"{len(answer.token_ids)} tokens"]
    words += [f"{answer.thought_tokens} of them thought"] if answer.thought_tokens else []
    words += [f"quality {quality(answer.text):.2f}"] if answer.text.strip() else []
    known = [value for value in answer.activity if value is not None]
    words += [f"mean circuit activity {np.mean(known):.3g}"] if known else []
    return ", ".join(words)


def _generate_commands(conversation: Conversation, circuit: Circuit) -> list[str]:
    if not conversation.turns:
        return []
    strengths = sorted({answer.strength for answer in conversation.turns[-1].answers})
    options = " ".join(f"--strength {strength:g}" for strength in strengths)
    return [f"refusal-gate generate {circuit.model.name} --circuit circuit.json --prompt TEXT {options}"]
