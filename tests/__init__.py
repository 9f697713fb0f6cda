"""Whatever runs tests shares the cores as the app does, before torch is imported."""

from cna_core.threads import share_cores

share_cores()
