"""The token inspector on the Chat page without a browser: cards, maps, branches."""

import json
from collections.abc import Callable

import pytest
from streamlit.testing.v1 import AppTest

from cna_core.decoding.conversation import Turn
from pages.common import keys
from tests.pages.test_chat import answered, chat, hosted, model, press, send, shown, turns

__all__ = ["chat", "hosted", "model"]
PLACE = 3


@pytest.fixture
def inspected(chat: Callable[..., AppTest]) -> AppTest:
    """A chat with one turn, token by token."""
    return send(chat(chat_tokens=True), "tell me about cats")


def pick(app: AppTest, lane: int, place: int) -> AppTest:
    """What a click on a token does."""
    app.session_state[keys.TOKEN_PICKED] = (last(app).sent_at, lane, place)
    return app.run()


def last(app: AppTest) -> Turn:
    return turns(app)[-1]


def specs(app: AppTest) -> list[str]:
    return [chart.proto.spec for chart in app.get("plotly_chart")]


def alternatives(app: AppTest) -> list[str]:
    return [button.label for button in app.button if str(button.key).startswith("token-go-on")]


def test_answers_are_recorded_by_layer_and_drawn_on_one_map(inspected: AppTest) -> None:
    assert not inspected.exception
    for answer in last(inspected).answers:
        assert len(answer.layer_activity) == 12 and None not in answer.layer_activity
        assert None not in answer.logprobs
    (spec,) = (spec for spec in specs(inspected) if "when each token was chosen" in spec)
    drawn = [trace["meta"] for trace in json.loads(spec)["data"]]
    assert drawn.count("map") == 2 and drawn.count("divergence") == 1


def test_a_token_opens_its_card_and_the_button_closes_it(inspected: AppTest) -> None:
    app = pick(inspected, 1, PLACE)
    assert not app.exception
    assert 'data-testid="token-card">Steered, token 4' in shown(app)
    assert any("Probability of each token" in spec for spec in specs(app))
    (neurons,) = app.dataframe
    assert list(neurons.value.columns[:2]) == ["layer", "neuron"] and len(neurons.value) == 8
    assert alternatives(app)
    app = app.button(key="token-close").click().run()
    assert 'data-testid="token-card"' not in shown(app) and not alternatives(app)


@pytest.mark.parametrize("lane", [0, 1])
def test_going_on_from_an_alternative_is_a_branch_that_can_be_left_again(inspected: AppTest, lane: int) -> None:
    origin = last(inspected)
    source = origin.answers[lane].token_ids
    app = press(pick(inspected, lane, PLACE), alternatives(pick(inspected, lane, PLACE))[0])
    assert not app.exception
    branch = last(app)
    assert branch is not origin and branch.branch.kind == origin.answers[lane].kind and branch.branch.place == PLACE
    for answer in branch.answers:
        assert answer.token_ids[:PLACE] == source[:PLACE] and answer.token_ids[PLACE] == branch.branch.token
        assert answer.token_ids[PLACE] != source[PLACE] and len(answer.token_ids) == PLACE + 1 + 12
        assert answer.begun == PLACE + 1 and None not in answer.layer_activity
    assert len(turns(app)) == 1
    offered = [[option.content for option in group.proto.options] for group in app.get("button_group")]
    (versions,) = (names for names in offered if "First answers" in names)
    assert len(versions) == 2 and versions[1].startswith(f"{('Baseline', 'Steered')[lane]}, token 4")
    app.session_state["conversation"].show_last(0)
    assert last(app.run()) is origin and last(app).answers[0].token_ids == origin.answers[0].token_ids


def test_a_card_in_a_branch_knows_what_stands_before_the_token(inspected: AppTest) -> None:
    app = press(pick(inspected, 1, PLACE), alternatives(pick(inspected, 1, PLACE))[0])
    for place in (PLACE - 1, PLACE + 2):
        app = pick(app, 1, place)
        assert not app.exception and not app.error
        card = app.session_state[keys.TOKEN_CARDS].get((last(app).sent_at, 1, place))
        assert card.place == place
        assert card.surprise == pytest.approx(-last(app).answers[1].logprobs[place], abs=1e-3)


def test_the_next_message_continues_from_the_branch_that_is_shown(inspected: AppTest) -> None:
    app = press(pick(inspected, 1, PLACE), alternatives(pick(inspected, 1, PLACE))[0])
    text = last(app).answers[1].text
    app = send(app, "why")
    assert len(turns(app)) == 2
    assert app.session_state["conversation"].history("steered", before=1)[-1]["content"] == text


def test_the_prompts_tokens_are_read_again_on_demand(inspected: AppTest) -> None:
    before = len(specs(inspected))
    app = answered(inspected.button(key="chat-read-prompt").click().run())
    assert not app.exception
    assert len(specs(app)) == before + 1
    assert any("each token of the prompt was read" in spec for spec in specs(app))


def test_regenerating_leaves_no_branch_behind(inspected: AppTest) -> None:
    app = press(pick(inspected, 1, PLACE), alternatives(pick(inspected, 1, PLACE))[0])
    app = press(app, "Regenerate")
    assert app.session_state["conversation"].last_versions == [last(app)]
