"""Words for progress, counts, sizes and durations, used by the command line and the pages."""

from cna_core.progress import BYTES, Progress, Stage

_DOING = {
    Stage.STARTING: "Starting",
    Stage.IMPORTING: "Loading the libraries (PyTorch, transformers), once after each start",
    Stage.WAITING_FOR_LOADING: "Waiting: another model is being loaded",
    Stage.WAITING_FOR_FILE: "Waiting: another process is preparing {subject}",
    Stage.FETCHING: "Downloading {subject}",
    Stage.CHECKING_FILE: "Checking {subject}",
    Stage.CONVERTING: "Converting {subject} (only the first time)",
    Stage.CONVERTING_HEADER: "Converting {subject}: reading the file",
    Stage.CONVERTING_WEIGHTS: "Converting {subject}: unpacking the weights",
    Stage.CONVERTING_TOKENIZER: "Converting {subject}: converting the tokenizer",
    Stage.CONVERTING_WRITE: "Converting {subject}: writing the result",
    Stage.CONVERTING_AGAIN: "Converting {subject} again, because the converted copy is damaged",
    Stage.LOADING: "Loading {subject}",
    Stage.PACKING_WEIGHTS: "Packing the weights of {subject} for this CPU",
    Stage.CAPTURING: "Recording activations",
    Stage.CAPTURING_IN_HALVES: "Recording activations in smaller batches, because memory is short",
    Stage.READING_KEPT: "Reading saved results",
    Stage.MEASURING_EFFECTS: "Measuring effects",
    Stage.READING_FIRST_WORDS: "Reading the first words of answers",
    Stage.FITTING_METHOD: "Preparing the method {subject}",
    Stage.SWEEP_ANSWERS: "Measuring answers to {prompts}",
    Stage.SWEEP_FIRST_TOKENS: "Measuring first tokens on {prompts}",
    Stage.WORKING_POINT_DIVERGENCES: "Working point: measuring KL on benign prompts",
    Stage.WORKING_POINT_SETTINGS: "Working point: trying settings, gentlest first",
    Stage.LAYER_PROFILE: "Measuring the layer profile",
    Stage.HOW_FEW: "Measuring how few neurons it takes",
    Stage.CHECKING_SHUFFLED_LABELS: "Comparing with shuffled labels",
    Stage.CHECKING_RANDOM_HALVES: "Comparing random halves of the prompts",
    Stage.CHECKING_CLAIM: "Checking the claim: {subject}",
    Stage.TIMING: "Timing one batch",
    Stage.READING_MESSAGE: "Reading the message",
    Stage.FIRST_SETTING: "Looking for the gentlest setting that halves refusals",
    Stage.WRITING_ANSWERS: "Generating answers",
    Stage.ASKING_LOCAL_JUDGE: "Asking the local judge",
    Stage.STOPPING: "Stopping …",
}

_QUESTIONS = {"knowledge": "knowledge questions", "problems": "word problems"}


def counted(count: int, noun: str) -> str:
    """A count with its noun, such as "1 neuron" or "1,024 neurons"; for nouns that take an s."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def progress_in_words(progress: Progress) -> str:
    """Progress in words, such as "Recording activations: 32 of 224 prompts, about 20 s left"."""
    if progress.stage is Stage.WAITING_FOR_MODEL:
        return _waiting(progress.place)
    prompts = _QUESTIONS.get(progress.subject, f"{progress.subject} prompts")
    doing = _DOING[progress.stage].format(subject=progress.subject, prompts=prompts)
    amount = _amount(progress)
    return f"{doing}: {amount}" if amount else doing


def _amount(progress: Progress) -> str:
    if progress.unit == BYTES and not progress.total:
        return size_in_words(progress.done) if progress.done else ""
    if not progress.total:
        return ""
    if progress.unit == BYTES:
        amount = f"{size_in_words(progress.done)} of {size_in_words(progress.total)}"
    elif progress.unit:
        amount = f"{progress.done:,} of {progress.total:,} {progress.unit}"
    else:
        amount = f"{100 * progress.done // progress.total} %"
    left = progress.seconds_left
    return amount if left is None or left < 1 else f"{amount}, about {duration_in_words(left)} left"


def _waiting(place: int | None) -> str:
    if place is None or place <= 1:
        return "Another session is using the model. You are next."
    return f"Other sessions are using the model. You are number {place} in the queue."


def duration_in_words(seconds: float) -> str:
    """A duration, such as "8 s", "3 min" or "2.0 h"."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    return f"{round(seconds / 60)} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def size_in_words(size_bytes: float) -> str:
    """A size in decimal units, such as "93 MB" or "1.3 GB"."""
    return f"{size_bytes / 1e9:.1f} GB" if size_bytes >= 1e9 else f"{size_bytes / 1e6:.0f} MB"
