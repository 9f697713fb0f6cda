"""Evaluate: does turning the gate off do what is claimed? What to run, what came out, and every run so far."""

import streamlit as st

from cna_core.circuits.circuit import Circuit
from cna_core.errors import CnaError
from cna_core.evaluation.dials import fraction_of
from cna_core.evaluation.profile import CausalProfile
from cna_core.evaluation.resume import run_so_far
from cna_core.evaluation.runs import Run
from cna_core.evaluation.sweep_settings import SweepSettings
from cna_core.figures.causal_profile import causal_profile
from cna_core.progress_words import duration_in_words
from pages.common import charts, chosen_circuit, findings, first_steps, jobs, keys, layer_profile, style
from pages.common.watching import this_session
from pages.evaluating import order, results, shelf, summary, work
from pages.inspecting import panes


def draw() -> None:
    panes.apply()
    st.title("Does turning the gate off do what is claimed?")
    left, main = panes.side_by_side("runs", [5, 18])
    _follow_started()
    with left:
        shelf.draw()
    with main:
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
            "Refusal should fall while quality and knowledge stay, and a random circuit of the same size should do "
            "nothing. **It needs the circuit first**; a run file opens without one."
        )
        first_steps.offer()
        return
    st.markdown(
        f"Refusal should fall while quality and knowledge stay, and a random circuit should do nothing: measure it for "
        f"**{circuit.model.name}** and its circuit of **{len(circuit):,} neurons**."
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
    # No callback: it would be given the order of the run before, without what was chosen a moment ago.
    if row.button("Measure", type="primary", icon=":material/play_arrow:", key="evaluate-start"):
        st.session_state[keys.EVALUATION_STARTED] = work.start(ordered, circuit, findings.activations()).key
        st.rerun()
    pace = work.pace(circuit)
    about = f"{settings} settings × {answers} prompts"
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
    row.caption(f"{about} · the time is known once the model is in memory")


@st.fragment(run_every=1.0)
def _await(job: jobs.Job) -> None:
    """Draw the page again when the job has ended."""
    if job.finished:
        st.rerun()
    job.stop.look(this_session())


def _follow_started() -> None:
    """Once the run that was started here is known, look at it."""
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
        st.error(str(error))
        return
    row = st.container(horizontal=True, vertical_alignment="center")
    named = f"**{run.name}** · {run.layers_and_size}" if run.name else f"**{run.layers_and_size}**"
    row.markdown(f"{named} · {run.created[:16].replace('T', ' ')}")
    if not run.finished:
        row.button(
            "Go on",
            icon=":material/play_arrow:",
            key="evaluate-resume",
            type="primary",
            on_click=_go_on,
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


def _go_on(identity: str, run: Run) -> None:
    work.go_on(identity, run)


def _draw_so_far(job: jobs.Job) -> None:
    if isinstance(job.preview, work.SoFar):
        run = job.preview.run
        results.draw_dose_response(run)
        st.caption(f"{len(run.answers)} answers so far.")
    else:
        st.caption("The chart fills as prompts pass.")


def _search(circuit: Circuit) -> None:
    with st.expander("Working point: the gentlest setting that at least halves refusal", icon=":material/target:"):
        st.caption(
            "Gentlest: the least KL divergence of the first token on benign prompts. All sizes and strengths are "
            "ranked by it, then answers are written, gentlest first, until refusals are halved."
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
            st.info("No setting of this grid halves refusal; try a larger circuit.")
        elif found is not None and found.point is not None:
            st.markdown(summary.describe(found.point))
            if st.button("Use it in Chat", icon=":material/forum:", key="evaluate-use-found", type="primary"):
                results.use_in_chat(circuit, found.point.setting)


def _profile(circuit: Circuit) -> None:
    with st.expander("Which layers do it?", icon=":material/layers:"):
        st.caption(
            "Where a circuit lies does not say which layers act. For each layer, only the circuit's neurons in it are "
            "ablated, and the change of the chance that the answer opens as a refusal is measured; nothing is written."
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
        f"Over {profile.prompts} harmful prompts. A filled mark below 0: ablating that layer's neurons alone lowers "
        "the chance of a refusal. Open marks: all but that layer. Grey: as many random neurons of the layer.",
    )


def _write_address() -> None:
    """A link opens the run that is looked at."""
    identity = shelf.chosen()
    if identity is None:
        st.query_params.pop(keys.IN_ADDRESS_RUN, None)
    elif st.query_params.get(keys.IN_ADDRESS_RUN) != identity:
        st.query_params[keys.IN_ADDRESS_RUN] = identity


draw()
