"""The sidebar of every page: the model, the prompts, whether the gate is found, and the circuit's settings.

Its widgets are bound to the address, so a link or a reload restores the choices.
"""

from typing import Any

import streamlit as st

from cna_core.circuits import library
from cna_core.circuits.circuit import Circuit
from cna_core.errors import CnaError
from cna_core.limits import remote_code_allowed
from cna_core.models.catalog import DEFAULT_MODEL, CatalogEntry, catalog
from cna_core.models.host import host
from cna_core.progress_words import counted
from cna_core.prompts.public_catalog import PREFIX
from cna_core.prompts.sets import PromptSet
from pages.common import address, chosen_circuit, findings, jobs, keys, own_prompts, public_sets, session
from pages.common.plain import plain, tell_error, toast

SIZES = [0.01, 0.02, 0.03, 0.05, 0.07, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.7, 1.0, 1.5, 2.0]
"""Circuit sizes that the slider offers, in percent of all neurons."""
DEFAULT_SCORE = "delta"
SCORES = {"delta": "δ", "effect-size": "effect size", "attribution-patching": "effect"}


def draw() -> None:
    """Draw the sidebar. Read its choices through `session`."""
    with st.sidebar:
        _model()
        problem = _prompts()
    if problem is not None:
        tell_error(problem, icon=":material/error:")
        st.stop()  # without prompts there is nothing to show
    with st.sidebar:
        address.restore()
        _find()
        _open_at()
        st.divider()
        _circuit()
        _files()
    address.write()


def catch_up() -> None:
    """Rerun if the gate was found after the sidebar was drawn, while the page was being drawn."""
    if findings.finding() is not None and not st.session_state.get(keys.DRAWN_AS_FOUND):
        st.rerun()


def _model() -> None:
    """The model's widget, bound to the address by hand: `bind` would write the title there, and links need the id."""
    entries = catalog()
    chosen = st.session_state.setdefault(keys.MODEL, st.query_params.get(keys.MODEL) or DEFAULT_MODEL)
    options = list(entries)
    if chosen not in entries:
        options.append(chosen)  # a Hub id, folder or file, typed here or given by a link
    st.selectbox(
        "Model",
        options,
        key=keys.MODEL,
        format_func=_short_title,
        accept_new_options=True,
        persist_state="session",
        help="Choose a model of the catalog, or type a Hub id, a folder or a .gguf file.",
    )
    entry = entries.get(session.model_name())
    st.caption(_facts(entry) if entry else "Not in the catalog: read as a folder, a file or a Hub id.")


def _short_title(name: str) -> str:
    """A model's title without "Instruct"; base models are marked "(base)"."""
    entry = catalog().get(name)
    if entry is None:
        return name
    return entry.title.removesuffix(" Instruct") + (" (base)" if entry.kind == "base" else "")


def _facts(entry: CatalogEntry) -> str:
    facts = [f"{entry.layers} layers × {entry.neurons_per_layer:,} neurons", f"{entry.memory_bfloat16_gib:.1f} GiB"]
    facts += ["instruct"] if entry.kind == "instruct" else []
    facts += ["gated: needs a Hub token"] if entry.gated else []
    facts += ["in memory"] if entry.id in host.loaded() else []
    return " · ".join(facts)


def _prompts() -> str | None:
    """The prompts' widget, bound to the address by hand like the model's. Returns an error message, or None."""
    public = public_sets.contrast_titles()
    options = [session.BUILT_IN, *public, *own_prompts.names()]
    chosen = st.session_state.setdefault(keys.PROMPTS, st.query_params.get(keys.PROMPTS) or session.BUILT_IN)
    if chosen not in options:
        options.append(chosen)
    st.selectbox(
        "Prompts",
        options,
        key=keys.PROMPTS,
        format_func=lambda name: public.get(name, name),
        on_change=lambda: public_sets.pick(str(st.session_state[keys.PROMPTS])),
        persist_state="session",
        help="δ is measured on these: positive prompts, which the model refuses, and matched negative ones, which it "
        "answers.",
    )
    problem = None
    try:
        if str(chosen).startswith(PREFIX):
            public_sets.show_contrast(str(chosen))
        session.contrast()
    except CnaError as error:
        problem = str(error)
    st.checkbox(
        "Only prompts that behave as labelled",
        key=keys.TRIGGERED,
        bind="query-params",
        help="Leaves out positive prompts that this model answers and negative prompts that it refuses, because they "
        "dilute δ. Takes about a minute longer the first time.",
    )
    with st.popover("Use your own prompts", width="stretch", icon=":material/edit_note:", type="tertiary"):
        _own_prompts()
    return problem


def _own_prompts() -> None:
    st.caption(
        "Two sets: prompts that the model refuses and prompts that it answers. Type one prompt per line, or upload a "
        ".txt, .csv or .jsonl file."
    )
    sides = {}
    for side, hint in (("positive", "requests that the model refuses"), ("negative", "benign requests")):
        text = st.text_area(f"{side.capitalize()}: {hint}", key=f"own-{side}", height=110, persist_state="session")
        upload = st.file_uploader(f"Or a file of {side} prompts", type=["txt", "csv", "jsonl"], key=f"own-{side}-file")
        sides[side] = (text, upload)
    st.button("Use these prompts", width="stretch", on_click=_use_own_prompts, args=(sides,))
    if refused := st.session_state.pop(keys.PROMPTS_REFUSED, None):
        tell_error(refused)


def _use_own_prompts(sides: dict[str, tuple[str, Any]]) -> None:
    try:
        positive, negative = (_prompt_set(side, text, upload) for side, (text, upload) in sides.items())
        st.session_state[keys.PROMPTS] = own_prompts.keep(positive, negative)
    except CnaError as error:
        st.session_state[keys.PROMPTS_REFUSED] = str(error)


def _prompt_set(side: str, text: str, upload: Any) -> PromptSet:
    if upload is not None:
        kind = upload.name.rsplit(".", 1)[-1].lower()
        return PromptSet.from_bytes(upload.getvalue(), kind=kind, name=upload.name)
    return PromptSet.from_text(text, kind="txt", name=f"the {side} prompts")


def _find() -> None:
    """Say whether the gate is found. The page has the button that finds it."""
    job = jobs.running(findings.finding_key())
    running = job is not None and not job.stop.is_set()
    found = findings.finding()
    st.session_state[keys.DRAWN_AS_FOUND] = found is not None
    with st.container(key="find-state"):
        if running or found is not None:
            st.button(
                f"Gate found {found.when}" if found else "Finding the gate …",
                width="stretch",
                icon=":material/check:" if found else ":material/search:",
                disabled=True,
                key="find",
                help="The prompts were run once, and the neurons of every layer recorded." if found else None,
            )


def _open_at() -> None:
    """Set the size and the strength that a page asked for; it must happen before their widgets are drawn."""
    size, strength = st.session_state.pop(keys.OPEN_AT, None) or (None, None)
    if size is not None:
        st.session_state[keys.SIZE] = size
    if strength is not None:
        st.session_state[keys.STRENGTH] = strength


def _circuit() -> None:
    opened = chosen_circuit.opened()
    if opened is not None:
        st.info(
            f"Showing the opened circuit: {counted(len(opened), 'neuron')} of {plain(opened.model.name)}.",
            icon=":material/folder_open:",
        )
        st.button("Back to the selected circuit", on_click=chosen_circuit.open_circuit, args=(None,), width="stretch")
    st.select_slider(
        "Circuit size, % of all neurons",
        SIZES,
        value=0.1,
        key=keys.SIZE,
        bind="query-params",
        disabled=opened is not None,
        help="The paper uses 0.1 %. Small models often need more, such as 0.4 %, or a strength above 1.",
    )
    st.checkbox(
        "Leave out universal neurons",
        value=True,
        key=keys.LEAVE_OUT,
        bind="query-params",
        disabled=opened is not None,
        help="Universal neurons are among the most active 0.1 % on most prompts, whatever the prompt asks. The share "
        "of prompts is under More settings.",
    )
    linked = st.query_params.get(keys.SCORE)  # bound by hand: `bind` would put the label there that is shown
    st.session_state.setdefault(keys.SCORE, linked if linked in SCORES else DEFAULT_SCORE)
    with st.expander("More settings", icon=":material/tune:"):
        st.segmented_control(
            "Rank by",
            list(SCORES),
            format_func=SCORES.__getitem__,
            key=keys.SCORE,
            persist_state="session",
            required=True,
            help="δ and effect size: where activations differ. Effect: which neurons act on refusal, estimated from "
            "one backward pass per prompt.",
        )
        st.checkbox(
            "Effect: select from all layers",
            key=keys.EFFECT_IN_ALL_LAYERS,
            bind="query-params",
            help="By default, a circuit by effect comes from the first two thirds of the layers. Later neurons mostly "
            "write the next token itself, such as the “I” that begins refusals and many other answers.",
        )
        # A float, because Streamlit fails on skip=1e999 in the address of a whole number.
        label = "Leave out the first layers"
        st.number_input(label, 0.0, 100.0, 0.0, 1.0, "%.0f", key=keys.SKIP, bind="query-params")
        st.slider(
            "Universal: active on this share of prompts", 0.5, 1.0, 0.8, 0.05, key=keys.THRESHOLD, bind="query-params"
        )
        st.selectbox("Number format", ["auto", "bfloat16", "float32"], key=keys.DTYPE, bind="query-params")
        st.selectbox("Quantization", ["none", "8bit", "4bit"], key=keys.QUANTIZATION, bind="query-params")
        st.checkbox(
            "Run the model's own code",
            key=keys.TRUST_REMOTE_CODE,
            disabled=not remote_code_allowed(),
            help="Some models come with Python code (trust_remote_code). Allow it only for sources that you trust.",
        )


def _files() -> None:
    try:
        circuit = chosen_circuit.current()
    except CnaError:
        circuit = None  # these settings select no circuit; the page says why
    with st.popover("Save, open or download a circuit", icon=":material/save:", width="stretch"):
        if refused := st.session_state.pop(keys.CIRCUIT_REFUSED, None):
            tell_error(refused)
        if circuit is not None:
            name = st.text_input("Save this circuit as", placeholder="refusal 0.1 %", key="save_name")
            save, download = st.columns(2)
            save.button("Save", on_click=_save, args=(circuit, name), disabled=not name.strip(), width="stretch")
            download.download_button(
                "Download",
                data=circuit.to_json,
                file_name="circuit.json",
                mime="application/json",
                on_click="ignore",
                width="stretch",
            )
        _open()
    if words := st.session_state.pop(keys.FILES_SAY, None):
        toast(words)


def _save(circuit: Circuit, name: str) -> None:
    try:
        there = name.strip() in (saved.name for saved in library.saved_circuits())
        library.save_circuit(circuit, name, replace=True)
        st.session_state[keys.FILES_SAY] = f"Saved as “{name}”" + (", replacing the old one." if there else ".")
    except CnaError as error:
        st.session_state[keys.FILES_SAY] = str(error)


def _delete(name: str) -> None:
    library.delete_circuit(name)
    if st.session_state.get(keys.OPENED_CIRCUIT_NAME) == name:
        chosen_circuit.open_circuit(None)
    st.session_state[keys.FILES_SAY] = f"Deleted “{name}”."


def _open() -> None:
    for saved in library.saved_circuits():
        title, use, delete = st.columns([5, 2, 1], vertical_alignment="center")
        title.markdown(f"{plain(saved.name)}  \n:gray[{plain(_what(saved))}]")
        use.button(
            "Open", key=f"open-{saved.name}", on_click=_open_saved, args=(saved.name,), disabled=not saved.circuit
        )
        delete.button(
            "",
            icon=":material/delete:",
            key=f"delete-{saved.name}",
            on_click=_delete,
            args=(saved.name,),
            help="Delete",
        )
    st.file_uploader("Open a circuit file", type=["json"], key=keys.CIRCUIT_FILE, on_change=_open_upload)


def _what(saved: library.SavedCircuit) -> str:
    return f"{counted(len(saved.circuit), 'neuron')} · {saved.circuit.model.name}" if saved.circuit else saved.problem


def _open_saved(name: str) -> None:
    try:
        chosen_circuit.open_circuit(library.load_circuit(name), name)
    except CnaError as error:
        st.session_state[keys.CIRCUIT_REFUSED] = str(error)


def _open_upload() -> None:
    upload = st.session_state.get(keys.CIRCUIT_FILE)
    if upload is None:
        return
    try:
        chosen_circuit.open_circuit(chosen_circuit.from_upload(upload.getvalue(), upload.name))
    except CnaError as error:
        st.session_state[keys.CIRCUIT_REFUSED] = str(error)
