"""Messages and answers as HTML. Text from a person or a model is always escaped."""

from collections.abc import Sequence

from cna_core.decoding.conversation import Answer, LaneKind, Turn
from cna_core.evaluation.quality import quality
from cna_core.evaluation.refusal import UNFINISHED, Outcome, Verdict, detect_refusal
from cna_core.figures import palette
from cna_core.interventions.registry import label_of, method
from cna_core.progress_words import counted
from pages.chatting.prose import escaped, prose_markup

_NAMES: dict[LaneKind, str] = {
    "baseline": "Baseline",
    "steered": "Steered",
    "random": "Random twin",
    "other": "Another strength",
    "method": "Another method",
}
_BADGES: dict[Outcome, str] = {
    "refused": "refused",
    "answered": "answered",
    "neither": "no access or opinion",
    "unfinished": "no answer",
}
NO_ANSWER = "No answer: the thought did not end."


def name_of(answer: Answer) -> str:
    """The lane's name."""
    return _NAMES[answer.kind]


def colour_of(answer: Answer) -> str:
    """The lane's colour: its method's colour, blue for the baseline, grey for a random twin."""
    if answer.kind == "baseline":
        return palette.BASELINE
    return palette.RANDOM if answer.kind == "random" else palette.METHOD_COLOURS[method(answer.method).colour]


def message_markup(turn: Turn) -> str:
    """The user's message; a very long one scrolls in its own box."""
    return f'<div class="chat-message" data-testid="message" dir="auto">{escaped(turn.message)}</div>'


def answer_markup(answer: Answer, turn: Turn, waits_for: str | None = None) -> str:
    """One lane's answer with its name, badge and numbers; the first differing token is marked.

    Args:
        waits_for: the progress line shown until the first token is there. None once the answer has ended.
    """
    ended = answer.finish_reason is not None or waits_for is None
    begun = bool(answer.token_ids) or ended
    parted = parted_at(answer, turn)
    text = _answer_text(answer, parted, ended) if begun else f"<i>{escaped(waits_for or '')}</i>"
    return (
        f'<section class="chat-answer" style="--lane: {colour_of(answer)}" aria-label="{name_of(answer)}">'
        f'<header><span class="lane-name">{name_of(answer)}</span>'
        f'<span class="lane-how">{_how(answer)}</span>{_badge(answer) if ended else ""}</header>'
        f"{thought_markup(answer, parted, ended)}"
        f'<div class="answer-text" data-testid="{"answer" if begun else "waiting"}" dir="auto">{text}</div>'
        f"<footer>{_figures(answer, turn, ended)}</footer></section>"
    )


def header_markup(answer: Answer) -> str:
    """An ended answer's name and badge alone, for a text that is drawn token by token."""
    return (
        f'<section class="chat-answer" style="--lane: {colour_of(answer)}">'
        f'<header><span class="lane-name">{name_of(answer)}</span>'
        f'<span class="lane-how">{_how(answer)}</span>{_badge(answer)}</header></section>'
    )


def footer_markup(answer: Answer, turn: Turn) -> str:
    """An ended answer's figures alone."""
    return f'<div class="chat-answer-figures">{_figures(answer, turn, True)}</div>'


def parted_at(answer: Answer, turn: Turn) -> int | None:
    """The first token that differs from the baseline's; for the baseline, from any other lane's."""
    if answer is not turn.answers[0]:
        return answer.parts_from(turn.answers[0])
    theirs = [other.parts_from(answer) for other in turn.answers[1:]]
    return min((place for place in theirs if place is not None), default=None)


def _how(answer: Answer) -> str:
    if answer.kind == "baseline":
        return "× 1"
    where = "" if answer.steers == "both" else f" · {answer.steers} only"
    return f"{label_of(answer.method)} · strength {answer.strength:g}".replace("-", "−") + where


def _badge(answer: Answer) -> str:
    verdict = _verdict(answer)
    if verdict is None:
        return ""
    name = _BADGES[verdict.outcome]
    return f'<span class="badge {verdict.outcome}" data-testid="badge" title="{escaped(verdict.reason)}">{name}</span>'


def outcome_of(answer: Answer) -> str:
    """What its badge says of an ended answer, such as "refused"; "" for an empty one."""
    verdict = _verdict(answer)
    return "" if verdict is None else _BADGES[verdict.outcome]


def _verdict(answer: Answer) -> Verdict | None:
    if not answer.text.strip() and not answer.in_thought:
        return None
    return UNFINISHED if answer.in_thought else detect_refusal(answer.text)


def thought_markup(answer: Answer, parted: int | None, ended: bool) -> str:
    """The thought before the answer, folded as soon as it has ended; "" if there is none."""
    if not answer.thought_tokens:
        return ""
    name = "Thought" if ended or not answer.in_thought else "Thinking …"
    inside = parted if parted is not None and parted < answer.thought_tokens else None
    text = _text(answer.thoughts, inside)
    return (
        f'<details class="thought" data-testid="thought"{" open" if name != "Thought" else ""}>'
        f"<summary>{name} · {counted(answer.thought_tokens, 'token')}</summary>"
        f'<div class="thought-text" dir="auto">{text}</div></details>'
    )


def _answer_text(answer: Answer, parted: int | None, ended: bool) -> str:
    if answer.in_thought:
        return f"<i>{NO_ANSWER}</i>" if ended else ""
    return _text(answer.pieces, parted if parted is not None and parted >= answer.thought_tokens else None)


def _text(given: Sequence[str], parted: int | None) -> str:
    pieces = list(given)
    if parted is None or parted > len(pieces):
        return prose_markup("".join(pieces))
    # A token that only begins a character has no text yet; mark the piece that completes it.
    place = next((n for n in range(parted, len(pieces)) if pieces[n]), None)
    if place is None:
        return (
            prose_markup("".join(pieces))
            + '<span class="parting ended" title="the other answer continues here">▏</span>'
        )
    start = len("".join(pieces[:place]))
    return prose_markup("".join(pieces), (start, start + len(pieces[place])), "the first token that differs")


def _figures(answer: Answer, turn: Turn, ended: bool) -> str:
    words = []
    if ended and answer.text.strip():
        words.append(f'<span title="1 − the share of repeated word 4-grams">quality {quality(answer.text):.2f}</span>')
    if answer.token_ids:
        words.append(counted(len(answer.token_ids), "token"))
    if answer.tokens_per_second is not None:
        words.append(f"{answer.tokens_per_second:.1f} tokens/s")
    if answer.finish_reason == "length":
        words.append('<span title="The maximum answer length is in Settings">length limit</span>')
    elif turn.stopped and answer.finish_reason is None:
        words.append("stopped")
    return " · ".join(words)
