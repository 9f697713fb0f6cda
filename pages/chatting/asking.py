"""What a message asks for: the lanes that answer it, each with its method and strength, and how tokens are chosen.

Everything is read from the session here, before a background thread takes over; methods are fitted there, once the
model is held (`fitted`).
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import streamlit as st

from cna_core.circuits.activations import Activations
from cna_core.circuits.circuit import Circuit
from cna_core.decoding.conversation import Answer, Conversation, LaneKind
from cna_core.decoding.lanes import LONGEST_ANSWER, Lane
from cna_core.decoding.sampling import Sampling
from cna_core.interventions import registry
from cna_core.limits import require_allowed
from cna_core.models.loaded import LoadedModel
from cna_core.prompts.chat_format import Message
from cna_core.prompts.sets import ContrastSet
from pages.chatting import meter
from pages.chatting.methods import chosen_method, fitted
from pages.common import findings, jobs, session

THIRD_LANES: dict[str, LaneKind | None] = {
    "none": None,
    "random control": "random",
    "another strength": "other",
    "another method": "method",
}


@dataclass
class AskedLane:
    """One lane of a turn: what it is told, and its answer, which says how it is steered."""

    messages: list[Message]
    answer: Answer


@dataclass(frozen=True)
class Request:
    """What is to be decoded, and on which model.

    Args:
        lanes: the baseline first.
        circuit: everybody's; also the one whose activity is shown.
        contrast, activations: what methods are fitted on.
        measure: measure activity and divergence even where that costs time. In 16 bits a row more costs nothing, so
            there it is always measured, and can be looked at later.
    """

    model_name: str
    load_options: dict[str, Any]
    lanes: Sequence[AskedLane]
    circuit: Circuit
    contrast: ContrastSet
    activations: Activations | None
    sampling: Sampling
    max_new_tokens: int
    steer_prompt: bool = True
    measure: bool = False
    settings: dict[str, Any] = field(default_factory=dict)

    def decoded_lanes(self, model: LoadedModel, job: jobs.Job) -> list[Lane]:
        """The lanes as the decode takes them; methods that were not fitted before are fitted now."""
        lanes = []
        for lane in self.lanes:
            answer = lane.answer
            if answer.kind == "baseline":
                lanes.append(Lane(lane.messages))
                continue
            method = fitted(model, answer.method, self.circuit, self.contrast, self.activations, job)
            if answer.kind == "random":
                method = method.twin(self.sampling.seed)
            lanes.append(Lane(lane.messages, answer.strength, method))
        return lanes


def request(message: str, circuit: Circuit, conversation: Conversation) -> Request:
    """What the session's settings ask for.

    Raises:
        StrengthError: a strength is not allowed here.
        PromptError: a sampling setting is out of range.
    """
    strength, third = meter.strength(), THIRD_LANES[setting("chat-third", "none")]
    system, shared = setting("chat-system", ""), bool(setting("chat-shared", False))
    chosen, lanes = chosen_method(), list[AskedLane]()

    def add(kind: LaneKind, at: float, method: str = chosen) -> None:
        require_allowed(at)
        history = conversation.history("baseline" if shared else kind, system=system)
        lanes.append(AskedLane([*history, {"role": "user", "content": message}], Answer(kind, at, method=method)))

    add("baseline", 0.0)
    add("steered", strength)
    if third == "random":
        add("random", strength)
    elif third == "other":
        add("other", float(setting("chat-other", min(0.5, meter.highest()))))
    elif third == "method":
        add("method", strength, setting("chat-third-method", registry.DEFAULT_METHOD))
    default = Sampling()
    sampling = Sampling(
        temperature=float(setting("chat-temperature", default.temperature)),
        top_p=float(setting("chat-top-p", default.top_p)),
        top_k=int(setting("chat-top-k", 0)) or None,
        repetition_penalty=float(setting("chat-penalty", default.repetition_penalty)),
        seed=int(setting("chat-seed", default.seed)),
    )
    longest, steer_prompt = int(setting("chat-longest", LONGEST_ANSWER)), not setting("chat-written-only", False)
    load_options = session.load_options()
    about = {
        "model": session.model_name(),
        **load_options,
        "circuit_sha256": circuit.sha256,
        "circuit_neurons": len(circuit),
        "system": system,
        "shared_history": shared,
        "max_new_tokens": longest,
        **asdict(sampling),
        "steer_prompt": steer_prompt,
    }
    return Request(
        session.model_name(),
        load_options,
        lanes,
        circuit,
        session.contrast(),
        findings.activations(),
        sampling,
        longest,
        steer_prompt,
        bool(setting("chat-tokens", False)),
        about,
    )


def setting(key: str, default: Any) -> Any:
    """What a widget of the chat says, or the default where it says nothing."""
    value = st.session_state.get(key, default)
    return default if value is None else value
