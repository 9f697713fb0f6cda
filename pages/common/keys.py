"""Keys of the session state and of the page's address that are used in more than one place.

A widget stores its value under its key. A key that only its own widget needs is written at the widget. A leading
underscore marks keys that belong to no widget.
"""

# --- the sidebar: widgets, and in the address under the same name ---

MODEL = "model"
PROMPTS = "prompts"
TRIGGERED = "triggered"
SIZE = "size"
LEAVE_OUT = "leave_out"
SCORE = "score"
SKIP = "skip"
THRESHOLD = "threshold"
EFFECT_IN_ALL_LAYERS = "effect_in_all_layers"
DTYPE = "dtype"
QUANTIZATION = "quantization"

# --- the sidebar: not in the address ---

TRUST_REMOTE_CODE = "trust_remote_code"
CIRCUIT_FILE = "circuit_file"
OPENED_CIRCUIT = "opened_circuit"
OPENED_CIRCUIT_NAME = "opened_circuit_name"
SELECTED_NEURON = "selected_neuron"
SELECTED_CIRCUIT = "_circuit"
"""The circuit selected last, and a key of what it was selected from: (key, circuit)."""
CIRCUITS_OF_SIZES = "_circuits_of_sizes"
"""Circuits of several sizes, selected last: (key, circuits by size)."""
OPEN_AT = "_open_at"
"""A size in per cent and a strength that the sidebar sets before its widgets are drawn, once."""
OPENED_AT = "_opened_at"
"""The circuits, by key, for which Chat has opened at the setting that was found."""
RESTORED = "_restored"
DRAWN_AS_FOUND = "_drawn_as_found"
PROMPTS_PICKED = "_prompts_picked"
"""The prompts that this session chose itself; a link may only choose what needs no download."""
PROMPTS_REFUSED = "_prompts_refused"
CIRCUIT_REFUSED = "_circuit_refused"
FILES_SAY = "_files_say"

# --- the tour ---

TOUR = "tour"
"""The number of the tour's step, from 1, while the tour is on; in the address too."""
TOUR_GOES = "_tour_goes"
"""Whether the tour changes to its step's page when it is drawn next."""

TOUR_SAW = "_tour_saw"
"""The answer of Chat, and whether it had ended, when the tour's card was drawn."""

# --- only in the address ---

IN_ADDRESS_NEURON = "neuron"
IN_ADDRESS_CIRCUIT = "circuit"
IN_ADDRESS_FOUND = "found"
IN_ADDRESS_RUN = "run"

# --- Gate and Neurons ---

WHY_PROMPT = "why_prompt"
WHY_SHOWN = "_why_shown"
"""The prompt whose explanation is shown."""
NEURON_TOKENS = "_neuron_tokens"
WRITERS = "_writers"
GALLERY_TOKENS = "_gallery_tokens"
GALLERY_PAGE = "_gallery_page"
ALIKE = "_alike"
PICKED_BELOW = "_picked_below"
"""Whether a neuron was picked in a part of the page that is redrawn alone, so that its card must be drawn, too."""
NEURON_TEXT_VALUES = "_neuron_text_values"
HELD_OUT = "_held_out"
CAMERA_FORMAT = "camera_format"

# --- Chat ---

STRENGTH = "strength"
"""The slider; in the address too."""
METHOD = "method"
"""The steered answer's method; in the address too."""
CHAT_MESSAGE = "_chat_message"
"""A message that another page asks Chat to send, once."""
CHAT_AGAIN = "_chat_again"
"""Whether Chat answers its last message again, once, in place of the answers that are there."""
METER_MESSAGE = "_meter_message"
"""A message that the gate meter shows before the first one is sent."""
METER_CURVES = "meter_curves"
TOKEN_PICKED = "_token_picked"
"""(Turn.sent_at, lane, token) of the token whose card is open."""
TOKEN_CARDS = "_token_cards"
PROMPT_READINGS = "_prompt_readings"
REQUESTS = "_chat_requests"
"""What each turn asked for, by Turn.sent_at."""
CALIBRATION_JOB = "openings-calibration"
FIRST_SETTING_PAUSED = "_first_setting_paused"
"""The search that an answer has stopped, and that starts again behind it."""
CALIBRATION_PAUSED = "openings-paused"

# --- Evaluate and Compare ---

EVALUATION_STARTED = "evaluate-started"
RUN_CHOSEN = "evaluate-chosen"
RUN_FILE = "evaluate-file"
RUN_REFUSED = "_run_refused"
OWN_EVALUATION_PROMPTS = "evaluate-own-prompts"
RUNS_COMPARED = "compare-runs"
COMPARE_FILES = "compare-files"
COMPARE_REFUSED = "_compare_refused"
