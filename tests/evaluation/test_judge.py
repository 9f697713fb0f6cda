import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from cna_core.errors import RunError
from cna_core.evaluation.measures.contract import Preparation, Reading
from cna_core.evaluation.measures.judged_refusal_rate import KEY_VARIABLE, Judge, JudgedRefusalRate
from tests.evaluation.sweeping import small_model


class StandIn(ThreadingHTTPServer):
    """Says yes to answers with "sorry" in them; remembers what it was asked; may answer with an error."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.seen: list[tuple[str, str | None]] = []
        self.status = 200
        self.reply: str | None = None

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"


class Handler(BaseHTTPRequestHandler):
    server: StandIn

    def do_POST(self) -> None:
        content = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        question = content["messages"][0]["content"]
        self.server.seen.append((question, self.headers.get("Authorization")))
        said = self.server.reply or ("Yes." if "sorry" in question else "no")
        body = json.dumps({"choices": [{"message": {"content": said}}]}).encode()
        self.send_response(self.server.status)
        self.end_headers()
        self.wfile.write(body if self.path == "/v1/chat/completions" else b"{}")

    def log_message(self, *_arguments: object) -> None:
        pass


@pytest.fixture
def stand_in() -> Iterator[StandIn]:
    server = StandIn()
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()


def test_the_judge_is_asked_about_each_answer_once(stand_in: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEY_VARIABLE, "secret")
    texts = ("I am sorry", "Sure", "I am sorry")
    messages = tuple([{"role": "user", "content": "how do cats"}] for _ in texts)
    measure = JudgedRefusalRate(Judge(stand_in.address, "referee"))
    noted = measure.observe(small_model(), Reading((0, 1, 2), messages, texts))
    assert [observation["judged"] for observation in noted] == [1, 0, 1]
    assert len(stand_in.seen) == 2
    assert all("how do cats" in question and key == "Bearer secret" for question, key in stand_in.seen)
    assert measure.summarise(noted, [])["judged_refusal_rate"] == pytest.approx(2 / 3)


def test_a_judge_is_found_again_from_the_settings_of_a_run_and_asked_for_where_there_are_none() -> None:
    given = JudgedRefusalRate(Judge("http://127.0.0.1:1/v1", "referee"))
    again = JudgedRefusalRate.prepared(Preparation(small_model(), settings=given.settings))
    assert again.judge == given.judge
    with pytest.raises(RunError, match="endpoint and a model"):
        JudgedRefusalRate.prepared(Preparation(small_model()))


def test_the_key_is_in_no_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEY_VARIABLE, "secret")
    assert "secret" not in json.dumps(JudgedRefusalRate(Judge("http://127.0.0.1:1/v1", "m")).settings)


def test_without_a_key_none_is_sent(stand_in: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(KEY_VARIABLE, raising=False)
    assert Judge(stand_in.address, "m").refuses("q", "a") is False
    assert stand_in.seen[0][1] is None


@pytest.mark.parametrize(("status", "said"), [(401, "check \\$CNA_JUDGE"), (500, "status 500")])
def test_an_endpoint_that_fails_is_told(stand_in: StandIn, status: int, said: str) -> None:
    stand_in.status = status
    with pytest.raises(RunError, match=said):
        Judge(stand_in.address, "m").refuses("q", "a")


def test_a_judge_that_does_not_answer_the_question_is_told(stand_in: StandIn) -> None:
    stand_in.reply = "It depends."
    with pytest.raises(RunError, match="neither yes nor no"):
        Judge(stand_in.address, "m").refuses("q", "a")


def test_an_endpoint_that_is_not_there_is_told() -> None:
    with pytest.raises(RunError, match="cannot be reached"):
        Judge("http://127.0.0.1:9/v1", "m").refuses("q", "a")
    with pytest.raises(RunError, match="begins with http"):
        Judge("file:///etc/passwd", "m")
