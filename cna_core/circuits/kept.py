"""Activations that were recorded before, found without loading the model: `kept_activations`.

capture.py finds them too, by everything that they depend on, the tokens and a sample of the weights among them; for
that, the model must be in memory. This module remembers where they are by what is known of a model that is not loaded:
its name, the hash of its file or folder, and its number format. Whoever shows them before the model is loaded checks
afterwards that `file` is `capture.file_of` of the loaded model.
"""

import json
from dataclasses import dataclass
from pathlib import Path

from cna_core.cached import ResultCache
from cna_core.circuits.activations import CACHE, FORMAT, Activations
from cna_core.circuits.capture import file_of
from cna_core.models.fetch import revision_here
from cna_core.models.layout import ModelIdentity
from cna_core.models.loaded import LoadedModel
from cna_core.models.precision import as_device, as_dtype
from cna_core.paths import cache_folder
from cna_core.prompts.sets import ContrastSet


@dataclass(frozen=True)
class Kept:
    """Activations from the cache folder.

    Args:
        activations: as they were recorded.
        file: their file in the cache folder.
        has_chat_template: whether the model's prompts were formatted with a chat template.
    """

    activations: Activations
    file: Path
    has_chat_template: bool


def remember(model: LoadedModel, contrast: ContrastSet) -> None:
    """Remember where the activations of this model on this set are, which `capture` has stored.

    Args:
        model: as `load_model` returned it.
    """
    note = {"file": file_of(model, contrast).name, "has_chat_template": model.has_chat_template}
    _NOTES.keep(note, *_known_before(model.identity, contrast))


def kept_activations(name: str, contrast: ContrastSet, dtype: str = "auto") -> Kept | None:
    """The activations of a model on a set, if they were recorded and remembered before; does not load the model.

    Args:
        name, dtype: as for `load_model`. None is returned for models of the Hub, whose files may have changed there.

    Raises:
        ModelError: there is no such dtype.
    """
    revision = revision_here(name)
    if revision is None:
        return None
    number_format = str(as_dtype(dtype, as_device("auto"))).removeprefix("torch.")
    note = _NOTES.find(*_known(name, revision, number_format, contrast))
    if note is None:
        return None
    file = cache_folder(CACHE.kind, create=False) / str(note["file"])
    found = CACHE.find_file(file)
    return None if found is None else Kept(found, file, bool(note["has_chat_template"]))


def _known_before(identity: ModelIdentity, contrast: ContrastSet) -> tuple[str, ...]:
    return _known(identity.name, identity.revision, identity.dtype, contrast)


def _known(name: str, revision: str, number_format: str, contrast: ContrastSet) -> tuple[str, ...]:
    return FORMAT, name, revision, number_format, contrast.sha256


def _read(path: Path) -> dict[str, object]:
    note = json.loads(path.read_text(encoding="utf-8"))
    if Path(note["file"]).name != note["file"]:
        raise ValueError("not a file's name")
    return {"file": note["file"], "has_chat_template": bool(note["has_chat_template"])}


_NOTES = ResultCache("kept", ".json", _read, lambda note, path: path.write_text(json.dumps(note)), limit_bytes=1 << 20)
