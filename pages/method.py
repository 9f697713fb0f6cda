"""Method: what is computed, what the paper reports beside what was measured here, where it may mislead, how to cite."""

import streamlit as st

from cna_core.evaluation.published import published
from pages.common import session
from pages.inspecting import panes, reported


def draw() -> None:
    paper = published().paper
    panes.apply()
    st.title("How the gate is found")
    st.markdown(
        "**In one sentence:** run prompts that a model refuses and matched ones that it does not, take the MLP neurons "
        "whose activation differs most, and multiply just those at inference. The method is *Contrastive Neuron "
        f"Attribution* ([{', '.join(paper.authors)}, *{paper.title}*, {paper.year}]({paper.address})); this app "
        "computes it live and sets a control beside every claim."
    )
    text, figures = panes.side_by_side("definition", [1, 1], gap="large")
    with text:
        _definition()
    with figures:
        reported.draw_measured(session.model_name())
    _limits()
    reported.draw_tables()
    _relatives()
    _use_and_citation(paper.citation)


def _definition() -> None:
    st.subheader("Definition", anchor=False)
    st.markdown("A **neuron** is one coordinate of a layer's MLP activation: an input of the down projection.")
    st.latex(r"\delta_{\ell,j}=\frac{1}{|P|}\sum_{p\in P}a_{\ell,j}(p)\;-\;\frac{1}{|N|}\sum_{n\in N}a_{\ell,j}(n)")
    st.markdown(
        "with *a* the activation at the **last token** of the chat-formatted prompt, *P* the positive prompts "
        "(refused) and *N* the negative ones. The **circuit** is the top 0.1 % of all neurons by |δ|, ranked over all "
        "layers together. **Universal** neurons, among the top 0.1 % by |a| on at least 80 % of all prompts, fire "
        "whatever is asked and are left out first."
    )
    st.latex(r"a_{\ell,j}\;\leftarrow\;(1-s)\,a_{\ell,j}")
    st.markdown(
        "for every neuron of the circuit, at every token position. Strength *s* = 0 is the model as it is, "
        "1 ablates the circuit, 2 inverts it, −1 "
        "doubles it. No weight changes."
    )


def _relatives() -> None:
    st.subheader("How it differs from its relatives", anchor=False)
    st.markdown(
        "| method | what is changed | what it needs | what it leaves open |\n"
        "| --- | --- | --- | --- |\n"
        "| **CNA** (here) | 0.1 % of the MLP neurons, scaled at inference | forward passes on about 100 + 100 prompts "
        "| why these neurons: δ is a difference of means |\n"
        "| Fine-tuning | all weights, or a low-rank part | labelled answers, gradients, hours | where in the model the "
        "change took place |\n"
        "| Sparse autoencoders | learnt features of one layer | a dictionary trained on millions of tokens | what the "
        "dictionary does not reconstruct |\n"
        "| CAA | a mean difference added to the residual stream | the same prompts | which neurons carry it; the paper "
        "sees quality fall |\n"
        "| Single-direction ablation | one direction projected out everywhere | the same prompts, and a search for "
        "layer and token | which neurons write the direction |\n"
    )
    st.caption("CAA runs here as a control: on the Evaluate page, beside CNA and random neurons of the same layers.")


def _limits() -> None:
    st.subheader("What may mislead", anchor=False)
    first, second = panes.side_by_side("limits", [1, 1], gap="large")
    first.markdown(
        "- **δ is correlation.** Steering is the causal test, and random neurons of the same layers are its control.\n"
        "- **Late, or just large?** Later layers have larger activations, so shuffled labels give a late circuit too. "
        "The Gate page shows that null beside the circuit.\n"
        "- **Where they sit is not where they act.** A layer can hold much of the circuit and change nothing, or the "
        "opposite, when its part is ablated: measure it on the Gate page."
    )
    second.markdown(
        "- **A detector of refusals is no judge.** It reads the words of the answer: it can miss soft refusals and "
        "count a preamble. Every answer it judged can be read on the Evaluate page.\n"
        "- **Small models need more.** On the default model 0.1 % at strength 1 does little; 0.4 %, or a strength "
        "past 1, does a lot. A hundred prompts give wide intervals, which are shown.\n"
        "- **4-gram quality misses word salad.** Perplexity under the unsteered model stands beside it."
    )


def _use_and_citation(citation: str) -> None:
    use, cite = panes.side_by_side("use", [1, 1], gap="large")
    with use:
        st.subheader("Responsible use", anchor=False)
        st.markdown(
            "Taking refusals out of a model makes it answer what its makers chose not to have answered. This is a tool "
            "for understanding how refusals work, how easily they are undone, and how they could be made sturdier: "
            "for research on models that you may study. The prompts that come with it are requests only, without "
            "operational detail; do not serve a steered model to others, and mind your model's license."
        )
    with cite:
        st.subheader("Cite", anchor=False)
        st.code(citation.strip(), language="bibtex", wrap_lines=True)


draw()
