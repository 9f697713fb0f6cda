"""What the models in memory have read: the prefix caches that chats and the gate meter share."""

import threading
import weakref

from cna_core.decoding.prefix_cache import PrefixCaches
from cna_core.models.loaded import LoadedModel

_prefixes: "weakref.WeakKeyDictionary[LoadedModel, PrefixCaches]" = weakref.WeakKeyDictionary()
_lock = threading.Lock()


def prefixes_of(model: LoadedModel) -> PrefixCaches:
    """What a model in memory has read, for all sessions; to be used while holding the model."""
    with _lock:
        return _prefixes.setdefault(model, PrefixCaches(model))
