"""Evaluate: measure what steering changes. The form for a new run, its results, and the list of all runs."""

import streamlit as st

from cna_core.circuits.circuit import Circuit
from cna_core.errors import CnaError
from cna_core.evaluation.dials import fraction_of
from cna_core.evaluation.profile import CausalProfile
from cna_core.evaluation.resume import run_so_far
from cna_core.evaluation.runs import Run
from cna_core.evaluation.sweep_settings import SweepSettings
from cna_core.figures.causal_profile import causal_profile
from cna_core.progress_words import counted, duration_in_words
from pages.common import charts, chosen_circuit, findings, first_steps, jobs, keys, layer_profile, style
from pages.common.plain import plain, tell_error
from pages.common.watching import this_session
from pages.evaluating import order, results, shelf, summary, work
from pages.inspecting import panes


def draw() -> None:
    panes.apply()
    st.title("Does steering do what is claimed?")
    _follow_started()
    shelf.draw()
    identity = shelf.chosen()
    if identity is None:
        _set_up()
    else:
        _look_at(identity)
    _write_address()


def _set_up() -> None:
    circuit, activations = chosen_circuit.current(), findings.activations()
    job = jobs.get(st.session_state.get(keys.EVALUATION_STARTED, ""))
    if job is not None and not job.finished:
        jobs.watch(job.key, _draw_so_far, every_seconds=1.0)
        return
    jobs.tell_outcome(job)
    if circuit is None:
        st.markdown(
            "If the circuit is the cause, ablating it lowers the refusal rate, leaves quality and knowledge as they "
            "are, and its random twin changes nothing. **Find the circuit first.** Run files open without one."
        )
        first_steps.offer()
        return
    st.markdown(
        "If the circuit is the cause, ablating it lowers the refusal rate, leaves quality and knowledge as they are, "
        f"and its random twin changes nothing. Measure this for **{plain(circuit.model.name)}** and its circuit of "
        f"**{counted(len(circuit), 'neuron')}**."
    )
    with st.container(border=True):
        ordered = order.ask(circuit, activations)
        if ordered is not None:
            _offer_start(ordered, circuit)
    _search(circuit)
    _profile(circuit)


def _offer_start(ordered: SweepSettings, circuit: Circuit) -> None:
    answers = sum(len(prompts) for prompts in ordered.sets.values())
    settings = len(ordered.settings(ordered.fractions or ()))
    row = st.container(horizontal=True, vertical_alignment="center")
    # No callback: it would get the settings of the previous script run, without the latest choices.
    if row.button("Measure", type="primary", icon=":material/play_arrow:", key="evaluate-start"):
        st.session_state[keys.EVALUATION_STARTED] = work.start(ordered, circuit, findings.activations()).key
        st.rerun()
    pace = work.pace(circuit)
    about = f"{counted(settings, 'setting')} × {counted(answers, 'prompt')}"
    if pace is not None:
        about += f" · about {duration_in_words(pace.seconds_of(ordered, settings))}"
        row.caption(about)
        return
    timing = work.pace_job()
    if timing is not None:
        with row:
            st.caption(f"{about} · timing one batch …")
            _await(timing)
        return
    row.caption(f"{about} · time estimate once the model is in memory")


@st.fragment(run_every=1.0)
def _await(job: jobs.Job) -> None:
    """Redraw the page when the job has ended."""
    if job.finished:
        st.rerun()
    job.stop.look(this_session())


def _follow_started() -> None:
    """Show the run that was started here, once its identity is known."""
    job = jobs.get(st.session_state.get(keys.EVALUATION_STARTED, ""))
    if job is not None and isinstance(job.preview, work.SoFar):
        shelf.choose(job.preview.identity)
        st.session_state.pop(keys.EVALUATION_STARTED)


def _look_at(identity: str) -> None:
    job = work.job_of(identity)
    if job is not None and not job.finished:
        jobs.watch(job.key, _draw_so_far, every_seconds=1.5)
        return
    try:
        run = run_so_far(identity)
    except CnaError as error:
        tell_error(error)
        return
    row = st.container(horizontal=True, vertical_alignment="center")
    about = plain(run.layers_and_size)
    named = f"**{plain(run.name)}** · {about}" if run.name else f"**{about}**"
    row.markdown(f"{named} · {plain(run.created[:16].replace('T', ' '))}")
    if not run.finished:
        row.button(
            "Resume",
            icon=":material/play_arrow:",
            key="evaluate-resume",
            type="primary",
            on_click=_resume,
            args=(identity, run),
        )
    row.download_button(
        "JSON",
        run.to_json,
        f"run-{identity}.json",
        "application/json",
        icon=":material/download:",
        key="evaluate-json",
        on_click="ignore",
        help="Download the run",
    )
    jobs.tell_outcome(job)
    results.draw(run, identity)


def _resume(identity: str, run: Run) -> None:
    work.resume_run(identity, run)


def _draw_so_far(job: jobs.Job) -> None:
    if isinstance(job.preview, work.SoFar):
        run = job.preview.run
        results.draw_dose_response(run)
        st.caption(f"{counted(len(run.answers), 'answer')} so far.")
    else:
        st.caption("The chart fills as prompts are evaluated.")


def _search(circuit: Circuit) -> None:
    with st.expander("Working point: the gentlest setting that at least halves refusal", icon=":material/target:"):
        st.caption(
            "The gentlest setting has the lowest KL divergence of the first token on benign prompts. The search ranks "
            "all sizes and strengths by it, then generates answers for each, gentlest first, until one halves the "
            "refusal rate."
        )
        key = work.search_key(circuit)
        if jobs.running(key):
            jobs.watch(key)
            return
        job = jobs.get(key)
        activations = findings.activations()
        own = fraction_of(circuit)
        sizes = tuple(size for size in (*order.OTHER_SIZES, own) if activations is not None or size <= own)
        st.button(
            "Search",
            icon=":material/search:",
            key="evaluate-search",
            on_click=work.start_search,
            args=(circuit, activations, sizes),
        )
        jobs.tell_outcome(job)
        found = work.found_by_search(circuit)
        if found is not None and found.point is None:
            st.info("No setting of this grid halves the refusal rate. Try a larger circuit.")
        elif found is not None and found.point is not None:
            st.markdown(summary.describe(found.point))
            if st.button("Use it in Chat", icon=":material/forum:", key="evaluate-use-found", type="primary"):
                results.use_in_chat(circuit, found.point.setting)


def _profile(circuit: Circuit) -> None:
    with st.expander("Which layers have an effect?", icon=":material/layers:"):
        st.caption(
            "The layers that hold most of the circuit need not be those that act. This ablates the circuit's neurons "
            "one layer at a time and measures how the chance of a refusal changes. No answers are generated."
        )
        layer_profile.offer(circuit, _draw_profile)


def _draw_profile(profile: CausalProfile) -> None:
    whole = profile.whole_change
    figure = causal_profile(
        profile.layers,
        profile.alone_changes,
        profile.others_changes,
        profile.random_band if profile.random.size else None,
        whole=(whole.value, whole.low, whole.high),
        model_layers=profile.model_layers,
        dark=style.is_dark(),
    )
    charts.show(
        figure,
        "evaluate-profile-chart",
        f"Over {profile.prompts} harmful prompts. Filled marks: only this layer's neurons are ablated; below 0 the "
        "chance of a refusal falls. Open marks: all layers but this one. Grey: the same number of random neurons of "
        "the layer.",
    )


def _write_address() -> None:
    """Write the run's identity to the address, so that a link opens it."""
    identity = shelf.chosen()
    if identity is None:
        st.query_params.pop(keys.IN_ADDRESS_RUN, None)
    elif st.query_params.get(keys.IN_ADDRESS_RUN) != identity:
        st.query_params[keys.IN_ADDRESS_RUN] = identity


draw()
