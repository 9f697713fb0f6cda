"""Claims about conversations: whose history a lane continues, where lanes part, and what the files hold."""

import json

import pytest

from cna_core.decoding.conversation import Answer, Branch, Conversation, LaneKind, Turn
from cna_core.decoding.lanes import Step


def answered(kind: LaneKind, text: str, tokens: list[int] | None = None, reason: str | None = "stop") -> Answer:
    answer = Answer(kind, 0.0 if kind == "baseline" else 1.0)
    for place, word in enumerate(text.split(" ")):
        piece = word if place == 0 else f" {word}"
        token = tokens[place] if tokens else place
        answer.add(Step(answer.strength != 0, piece, token, False, None, (0.25, 0.25), None), 1.0 + place / 10)
    answer.finish_reason = reason
    return answer


@pytest.fixture
def conversation() -> Conversation:
    first = Turn("hello", [answered("baseline", "hi there"), answered("steered", "good day to you")])
    return Conversation([first, Turn("too long", [answered("baseline", "")], error="It is too long.")])


def test_each_lane_continues_its_own_history(conversation: Conversation) -> None:
    assert conversation.history("baseline")[-1] == {"role": "assistant", "content": "hi there"}
    assert conversation.history("steered")[-1] == {"role": "assistant", "content": "good day to you"}


def test_a_lane_that_joins_later_continues_from_the_baseline(conversation: Conversation) -> None:
    assert conversation.history("random") == conversation.history("baseline")


def test_turns_without_an_answer_are_not_told(conversation: Conversation) -> None:
    assert len(conversation.history("baseline")) == 2


def test_a_regenerated_turn_sees_only_what_came_before(conversation: Conversation) -> None:
    assert conversation.history("baseline", before=0) == []
    assert conversation.history("baseline", before=0, system="Be kind.") == [{"role": "system", "content": "Be kind."}]


@pytest.mark.parametrize(
    ("mine", "theirs", "expected"),
    [([1, 2, 3], [1, 2, 3], None), ([1, 5, 3], [1, 2, 3], 1), ([1, 2], [1, 2, 3], 2), ([4], [1], 0)],
)
def test_answers_part_at_their_first_differing_token(mine: list[int], theirs: list[int], expected: int | None) -> None:
    one, other = (answered("steered", " ".join("x" * len(ids)), ids) for ids in (mine, theirs))
    assert one.parts_from(other) == expected


def test_an_answer_that_was_cut_short_has_not_parted() -> None:
    shorter = answered("steered", "a b", [1, 2], reason=None)
    longer = answered("baseline", "a b c", [1, 2, 3], reason=None)
    assert shorter.parts_from(longer) is None


def test_speed_is_counted_from_the_first_token() -> None:
    answer = answered("baseline", "one two three four five")
    assert answer.seconds_to_first == 1.0
    assert answer.tokens_per_second == pytest.approx(10.0)
    assert Answer("baseline", 0.0).tokens_per_second is None


def test_the_json_file_holds_every_setting_and_token(conversation: Conversation) -> None:
    conversation.turns[0].settings = {"temperature": 0.7, "seed": 3}
    read = json.loads(conversation.to_json({"model": {"name": "tiny"}}))
    assert read["format"] == "cna-conversation/1" and read["model"]["name"] == "tiny"
    assert read["turns"][0]["settings"] == {"temperature": 0.7, "seed": 3}
    steered = read["turns"][0]["answers"][1]
    assert steered["text"] == "good day to you" and steered["multiplier"] == 0.0
    assert len(steered["activity"]) == len(steered["token_ids"]) == 4
    assert read["turns"][1]["error"] == "It is too long."


def test_no_text_breaks_out_of_the_markdown_file() -> None:
    message = "```\n# not a heading\n````"
    conversation = Conversation([Turn(message, [answered("baseline", "<script>alert(1)</script>")])])
    written = conversation.to_markdown({"model": "a`b"})
    assert f"`````text\n{message}\n`````" in written
    assert "```text\n<script>alert(1)</script>\n```" in written
    assert "a`b" not in written


def test_a_branch_is_shown_and_the_turn_it_came_from_is_kept(conversation: Conversation) -> None:
    origin = conversation.turns[-1]
    other = Turn("too long", [answered("baseline", "well then")], branch=Branch("baseline", 0, 7, "well"))
    conversation.branch_last(other)
    assert conversation.turns[-1] is other and conversation.last_versions == [origin, other]
    assert conversation.history("baseline")[-1]["content"] == "well then"
    conversation.show_last(0)
    assert conversation.turns[-1] is origin and conversation.last_versions == [origin, other]
    told = json.loads(conversation.to_json({}))["turns"][-1]
    assert [version["branch"]["text"] for version in told["other_versions"]] == ["well"]
    assert conversation.drop_last() is origin and conversation.last_versions == [conversation.turns[-1]]


def test_speed_counts_the_tokens_that_the_lane_wrote(conversation: Conversation) -> None:
    answer = Answer("baseline", 0.0)
    answer.begin([Step(0, "I", 1, False), Step(0, " am", 2, False)])
    assert answer.tokens_per_second is None and answer.text == "I am"
    for place in range(3):
        answer.add(Step(0, ".", 3, False), 1.0 + place)
    assert answer.tokens_per_second == 1.0 and answer.begun == 2
