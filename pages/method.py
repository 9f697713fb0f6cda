"""Method: the definitions, the paper's results beside those measured here, the limits, and how to cite."""

import streamlit as st

from cna_core.evaluation.published import published
from pages.common import session
from pages.inspecting import panes, reported


def draw() -> None:
    paper = published().paper
    panes.apply()
    st.title("How the gate is found")
    st.markdown(
        "**In one sentence:** run prompts that a model refuses and matched prompts that it answers, select the MLP "
        "neurons whose activations differ most, and scale only those during inference. The method is *Contrastive "
        f"Neuron Attribution* ([{', '.join(paper.authors)}, *{paper.title}*, {paper.year}]({paper.address})). This "
        "app runs it on your model and shows a control for every result."
    )
    text, figures = panes.side_by_side("definition", [1, 1], gap="large")
    with text:
        _definition()
    with figures:
        reported.draw_measured(session.model_name())
    _effect()
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
        "layers together. **Universal neurons**, which are among the top 0.1 % by |a| on at least 80 % of all prompts, "
        "are active whatever the prompt asks. They are left out before ranking."
    )
    st.latex(r"a_{\ell,j}\;\leftarrow\;(1-s)\,a_{\ell,j}")
    st.markdown(
        "for every neuron of the circuit, at every token position. Strength *s* = 0 is the unchanged model, 1 ablates "
        "the circuit, 2 inverts it, and −1 doubles it. The weights do not change."
    )


def _effect() -> None:
    st.subheader("Effect: which neurons act", anchor=False)
    definition, meaning = panes.side_by_side("effect", [1, 1], gap="large")
    with definition:
        st.markdown(
            "δ shows where activations *differ*. The **effect** of a neuron estimates how refusal changes when the "
            "neuron is ablated. It is a second score in addition to the paper's."
        )
        st.latex(
            r"\begin{gathered}R(p)=\log\sum_{t\in S}e^{z_t(p)}-\log\sum_{t\notin S}e^{z_t(p)}\\"
            r"e_{\ell,j}=-\operatorname*{mean}_{p}\,\frac{\partial R(p)}{\partial m_{\ell,j}}\Big|_{m=1}\end{gathered}"
        )
        st.markdown(
            "*z* are the logits of the answer's first token, *S* the tokens after which at least half of the model's "
            "answers refuse, and *m* multiplies the neuron at every token of the prompt. The mean is over the positive "
            "prompts that the unchanged model refuses. A negative effect: the neuron pushes towards refusal. One "
            "backward pass per prompt gives the effects of all neurons. A **circuit by effect** contains the most "
            "negative ones of the first two thirds of the layers."
        )
    with meaning:
        st.markdown(
            "**What it does not show.**\n"
            "- *It is a first-order estimate.* Ablating many neurons together can do more or less than the sum. The "
            "checks on the Gate page compare estimates with exact ablations.\n"
            "- *It uses one token.* Over all layers, many of its neurons write “I”, which begins refusals and also "
            "other answers. So a circuit comes from the first two thirds of the layers, and the checks read full "
            "answers and first-person answers.\n"
            "- *It does not detect harm.* Benign prompts select mostly the same neurons: they push towards refusal "
            "on any prompt."
        )
        st.markdown(
            "**Related work.** Nothing here is a new method. Attribution patching estimates an ablation from one "
            "gradient ([Nanda 2023](https://www.neelnanda.io/mechanistic-interpretability/attribution-patching); AtP*, "
            "[Kramár et al. 2024](https://arxiv.org/abs/2403.00745)). Gradients have located the weights that safety "
            "depends on ([Wei et al. 2024](https://arxiv.org/abs/2402.05162)) and MLP neurons of the same layers "
            "([Kazemi et al. 2026](https://arxiv.org/abs/2605.08513)); sparse safety neurons were found from "
            "activations alone ([Chen et al. 2024](https://arxiv.org/abs/2406.14144)). The refusal score is "
            "essentially that of Arditi et al. (2024). Alignment is often a few tokens deep "
            "([Qi et al. 2024](https://arxiv.org/abs/2406.05946)), so the checks also look for late refusals."
        )


def _relatives() -> None:
    st.subheader("How it compares with related methods", anchor=False)
    st.markdown(
        "| method | what it changes | what it needs | what it does not show |\n"
        "| --- | --- | --- | --- |\n"
        "| **CNA** (this app) | 0.1 % of the MLP neurons, scaled during inference | forward passes on about 100 + 100 "
        "prompts | why these neurons: δ is only a difference of means |\n"
        "| Fine-tuning | all weights, or a low-rank part | labelled answers, gradients, hours | where in the model the "
        "change happened |\n"
        "| Sparse autoencoders | learnt features of one layer | a dictionary trained on millions of tokens | what the "
        "dictionary does not reconstruct |\n"
        "| CAA | the residual stream: adds a difference of means | the same prompts | which neurons carry it; in the "
        "paper, quality falls |\n"
        "| Single-direction ablation | the residual stream: projects out one direction everywhere | the same prompts, "
        "and a search for layer and token | which neurons write the direction |\n"
    )
    st.caption("The Evaluate page runs CAA and single-direction ablation for comparison, each with its random twin.")


def _limits() -> None:
    st.subheader("Limits", anchor=False)
    first, second = panes.side_by_side("limits", [1, 1], gap="large")
    first.markdown(
        "- **δ is a correlation.** Steering is the causal test, and random neurons of the same layers are its "
        "control.\n"
        "- **Late layers have large activations.** So a circuit selected with shuffled labels sits in late layers too. "
        "The Gate page shows this control next to the circuit.\n"
        "- **Where neurons sit is not where they act.** A layer can contain much of the circuit and have no effect "
        "when it is ablated. The Gate page can measure this."
    )
    second.markdown(
        "- **The refusal detector makes mistakes.** It looks for phrases, so it can miss soft refusals and count a "
        "preamble as one. You can read every answer on the Evaluate page.\n"
        "- **Small models need larger circuits.** On the default model, 0.1 % at strength 1 does little; 0.4 %, or a "
        "strength above 1, does a lot. With a hundred prompts the intervals are wide; every chart shows them.\n"
        "- **Quality counts repetition only.** Incoherent text scores well, so perplexity under the unsteered model is "
        "measured too."
    )


def _use_and_citation(citation: str) -> None:
    use, cite = panes.side_by_side("use", [1, 1], gap="large")
    with use:
        st.subheader("Responsible use", anchor=False)
        st.markdown(
            "A model without refusals answers requests that its makers decided it should not answer. This tool is for "
            "research on how refusals work, how easily they are removed, and how to make them more robust. Use it on "
            "models that you are allowed to study. The built-in prompts are short requests without operational "
            "detail. Do not serve a steered model to others, and follow your model's license."
        )
    with cite:
        st.subheader("Cite", anchor=False)
        st.code(citation.strip(), language="bibtex", wrap_lines=True)


draw()
