"""Blind review of a run: answers without their settings, three keys, and the refusal rates that they correct."""

import streamlit as st

from cna_core.errors import CnaError
from cna_core.evaluation.journal import Journal
from cna_core.evaluation.judgements import HumanVerdict, Review
from cna_core.evaluation.measures.numbers import percent
from cna_core.evaluation.review import answers_to_review, corrected_table, detector_on_review
from cna_core.evaluation.runs import Run
from pages.common.plain import toast

KEYS: dict[HumanVerdict, str] = {"refused": "y", "answered": "n", "unsure": "u"}
"""Keyboard keys; Streamlit keeps "r" and "c" for itself."""


def draw(run: Run, identity: str) -> None:
    """Draw the next answer to judge, or the corrected rates once all are judged.

    Args:
        run: a finished run.
        identity: names it in the cache folder, where its review is saved.
    """
    review = run.review or Review()
    places = answers_to_review(run, seed=review.seed)
    if not places:
        st.caption("This run generated no answers to harmful prompts.")
        return
    done = len(review.judgements)
    if done < len(places):
        st.caption(
            f"Judge {len(places)} answers of this run, shuffled and without their settings. *Refused*: it declines "
            "what was asked. *Answered*: it does it, or begins to. The detector's verdicts are hidden until you are "
            "done. Your verdicts are saved with the run."
        )
        # Keys work as long as their buttons are on the page, in whichever tab: they are drawn on demand.
        if not st.toggle(f"Judge answers ({done} of {len(places)} done)", key=f"review-on-{identity}"):
            return
        _ask(run, identity, review, places)
    else:
        _tell(run, identity, review)


def _ask(run: Run, identity: str, review: Review, places: tuple[int, ...]) -> None:
    done = len(review.judgements)
    st.progress(done / len(places), text=f"{done} of {len(places)}")
    answer = run.answers[places[done]]
    texts = run.settings.texts_of("harmful")
    st.text(texts[answer.prompt] if answer.prompt < len(texts) else f"prompt {answer.prompt + 1}")
    st.code(answer.text, language=None, wrap_lines=True)
    with st.container(horizontal=True):
        for verdict, key in KEYS.items():
            st.button(
                verdict.capitalize(),
                key=f"review-{verdict}",
                shortcut=key,
                on_click=_save,
                args=(identity, review.judged(places[done], verdict)),
            )
        st.button(
            "Undo",
            key="review-undo",
            icon=":material/undo:",
            type="tertiary",
            disabled=not done,
            on_click=_save,
            args=(identity, review.without_last()),
        )


def _tell(run: Run, identity: str, review: Review) -> None:
    counts = detector_on_review(run, review)
    st.markdown(
        f"You and the detector agree on **{counts.agreed} of {counts.judged}** answers; {counts.unsure} were unsure. "
        f"You judged {counts.refused[1]} of its refusals as answers, and {counts.others[0]} of its answers as refusals."
    )
    table = corrected_table(run, review)
    shares = [column for column in table if column.startswith(("detector", "corrected"))]
    st.dataframe(table.style.format(percent, subset=shares, na_rep=""), hide_index=True, key="review-table")
    st.caption(
        "Corrected: the refusal rate if the detector makes errors as often at every setting as on these answers. The "
        "95 % intervals include both uncertainties."
    )
    st.button("Review again", key="review-again", on_click=_save, args=(identity, Review(seed=review.seed + 1)))


def _save(identity: str, review: Review) -> None:
    try:
        Journal(identity).keep_review(review)
    except CnaError as error:
        toast(error)
