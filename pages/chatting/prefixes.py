"""The prefix caches of the models in memory, shared by chats and the gate meter."""

import threading
import weakref

from cna_core.decoding.prefix_cache import PrefixCaches
from cna_core.models.loaded import LoadedModel

_prefixes: "weakref.WeakKeyDictionary[LoadedModel, PrefixCaches]" = weakref.WeakKeyDictionary()
_lock = threading.Lock()


def prefixes_of(model: LoadedModel) -> PrefixCaches:
    """The prefix caches of a model in memory, for all sessions. Use them only while holding the model."""
    with _lock:
        return _prefixes.setdefault(model, PrefixCaches(model))
