"""A chat request: the lanes that answer a message, each with its method and strength, and the sampling settings.

All settings are read from the browser session here, before a background thread takes over. That thread fits the
methods once it holds the model (`Request.decoded_lanes`).
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
from pages.chatting import meter, thinking
from pages.chatting.methods import chosen_method, fitted
from pages.common import findings, jobs, session

THIRD_LANES: dict[str, LaneKind | None] = {
    "none": None,
    "random twin": "random",
    "another strength": "other",
    "another method": "method",
}


@dataclass
class AskedLane:
    """One lane of a turn: the messages it reads, and its answer, which holds its method and strength.

    Args:
        begun: ids of the tokens that its answer begins with.
    """

    messages: list[Message]
    answer: Answer
    begun: tuple[int, ...] = ()


@dataclass(frozen=True)
class Request:
    """What to decode, and on which model.

    Args:
        lanes: the baseline first.
        circuit: used by every lane; its activity is shown.
        contrast, activations: what the methods are fitted on.
        measure: measure activity and divergence even where that takes extra time. In 16-bit formats an extra row costs
            nothing, so they are always measured there.
        thinking: whether the model is asked to think before it answers; None: as its template decides.
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
    thinking: bool | None = None
    settings: dict[str, Any] = field(default_factory=dict)

    def decoded_lanes(self, model: LoadedModel, job: jobs.Job | None = None) -> list[Lane]:
        """The lanes for the decode; methods that were not fitted before are fitted now."""
        lanes = []
        for lane in self.lanes:
            answer = lane.answer
            thinks, answer.steers = thinking.settled(model, self.thinking, answer.steers)
            if answer.kind == "baseline":
                lanes.append(Lane(lane.messages, begun=lane.begun, thinking=thinks))
                continue
            method = fitted(model, answer.method, self.circuit, self.contrast, self.activations, job)
            if answer.kind == "random":
                method = method.twin(self.sampling.seed)
            begun, steers = lane.begun, answer.steers
            lanes.append(Lane(lane.messages, answer.strength, method, begun=begun, thinking=thinks, steers=steers))
        return lanes


def request(message: str, circuit: Circuit, conversation: Conversation) -> Request:
    """The request that the session's settings describe.

    Raises:
        StrengthError: a strength is above this installation's limit.
        PromptError: a sampling setting is out of range.
    """
    strength, third = meter.strength(), THIRD_LANES[setting("chat-third", "none")]
    system, shared = setting("chat-system", ""), bool(setting("chat-shared", False))
    chosen, lanes = chosen_method(), list[AskedLane]()

    def add(kind: LaneKind, at: float, method: str = chosen) -> None:
        require_allowed(at)
        history = conversation.history("baseline" if shared else kind, system=system)
        steers = "both" if kind == "baseline" else thinking.steered_part()
        answer = Answer(kind, at, method=method, steers=steers)
        lanes.append(AskedLane([*history, {"role": "user", "content": message}], answer))

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
        "thinking": thinking.wanted(),
        "steers": thinking.steered_part(),
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
        thinking.wanted(),
        about,
    )


def setting(key: str, default: Any) -> Any:
    """The value of a widget of the Chat page, or the default if it has none."""
    value = st.session_state.get(key, default)
    return default if value is None else value
