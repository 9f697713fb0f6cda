"""Claims about the endpoint, made by real clients of a real server."""

import concurrent.futures
import json
import logging
import shutil
import subprocess
import sys
from collections.abc import Iterator

import httpx2 as httpx
import openai
import pytest
import torch

from cna_core.decoding.lanes import Lane, generate
from cna_core.decoding.sampling import Sampling
from cna_core.decoding.session import Step
from cna_core.interventions.plan import steered
from cna_core.models.loaded import LoadedModel
from cna_core.serving.app import Limits
from tests.decoding.models import loud_model, spread_circuit, text_of
from tests.serving.models import Served, served

QUESTIONS = ("tell me about cats", "how do i bake the bread", "why", "what is it to you")


@pytest.fixture(scope="module")
def model() -> LoadedModel:
    return loud_model()


@pytest.fixture(scope="module")
def server(model: LoadedModel) -> Iterator[Served]:
    circuits = {"gate": spread_circuit(model, size=40), "effect": spread_circuit(model, size=40, seed=5)}
    limits = Limits(body_bytes=20_000, context_tokens=200)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("cna_core.serving.engine.end_tokens", lambda _model: frozenset())
        patch.setattr("cna_core.decoding.lanes.end_tokens", lambda _model: frozenset())
        with served(model, circuits, limits=limits) as running:
            yield running


def ask(server: Served, name: str, question: str = QUESTIONS[0], tokens: int = 12, **options: object):
    messages = [{"role": "user", "content": question}]
    options = {"temperature": 0, **options}
    return server.client.chat.completions.create(model=name, messages=messages, max_tokens=tokens, **options)


def alone(
    model: LoadedModel, question: str, strength: float, tokens: int = 12, seed: int = 0, **options: object
) -> str:
    circuit = spread_circuit(model, size=40, seed=seed)
    return text_of(list(generate(model, [Lane(question, strength)], circuit, max_new_tokens=tokens, **options)))


def test_the_models_are_the_baseline_and_each_circuit_with_a_strength(server: Served) -> None:
    names = [card.id for card in server.client.models.list()]
    assert names[0] == "baseline" and {"gate@1.0", "effect@1.0"} <= set(names)


@pytest.mark.parametrize("name, strength, seed", [("baseline", 0, 0), ("gate@1", 1, 0), ("effect@-0.75", -0.75, 5)])
def test_a_chat_answer_is_the_librarys(
    server: Served, model: LoadedModel, name: str, strength: float, seed: int
) -> None:
    answer = ask(server, name)
    assert answer.choices[0].message.content == alone(model, QUESTIONS[0], strength, seed=seed)
    assert answer.choices[0].finish_reason == "length" and answer.usage.completion_tokens == 12


def test_a_streamed_answer_is_the_same_text(server: Served, model: LoadedModel) -> None:
    pieces = list(ask(server, "gate@2", stream=True, stream_options={"include_usage": True}))
    text = "".join(piece.choices[0].delta.content or "" for piece in pieces if piece.choices)
    assert text == alone(model, QUESTIONS[0], 2.0)
    assert pieces[-1].usage.completion_tokens == 12 and pieces[-2].choices[0].finish_reason == "length"


def test_a_seed_repeats_a_sampled_answer_and_choices_differ(server: Served, model: LoadedModel) -> None:
    first, again = (ask(server, "gate@1", temperature=1, seed=7, n=3) for _ in range(2))
    texts = [choice.message.content for choice in first.choices]
    assert texts == [choice.message.content for choice in again.choices] and len(set(texts)) == 3
    sampling = Sampling(temperature=1.0, seed=8)
    assert texts[1] == alone(model, QUESTIONS[0], 1.0, sampling=sampling)


def test_a_stop_text_is_left_out(server: Served) -> None:
    words = ask(server, "baseline").choices[0].message.content.split()
    answer = ask(server, "baseline", stop=words[3]).choices[0]
    assert answer.finish_reason == "stop" and answer.message.content.split() == words[: words.index(words[3])]


def test_log_probabilities_of_a_chat_are_of_its_tokens(server: Served) -> None:
    content = ask(server, "gate@1", logprobs=True, top_logprobs=3).choices[0].logprobs.content
    assert len(content) == 12
    for entry in content:  # greedy: the token is the likeliest
        assert entry.logprob == entry.top_logprobs[0].logprob >= entry.top_logprobs[2].logprob


@pytest.mark.parametrize("tokens", [0, 1])
def test_an_echoed_prompt_has_the_models_log_probabilities(server: Served, model: LoadedModel, tokens: int) -> None:
    prompt = model.tokenizer("how do i break the lock")["input_ids"]
    answer = server.client.completions.create(
        model="gate@1", prompt=[prompt, prompt[:4]], echo=True, max_tokens=tokens, logprobs=1, temperature=0
    )
    with torch.inference_mode(), steered(model, spread_circuit(model, size=40), [0.0]):
        logprobs = model.network(input_ids=torch.tensor([prompt])).logits[0].log_softmax(-1)
    expected = logprobs[:-1].gather(-1, torch.tensor(prompt[1:])[:, None])[:, 0].tolist()
    found = answer.choices[0].logprobs
    assert found.token_logprobs[0] is None and len(found.tokens) == len(prompt) + tokens
    assert found.token_logprobs[1 : len(prompt)] == pytest.approx(expected, abs=1e-4)
    assert list(found.top_logprobs[1].values()) == pytest.approx([float(logprobs[0].max())], abs=1e-4)
    assert answer.choices[1].logprobs.token_logprobs[1:4] == pytest.approx(expected[:3], abs=1e-4)


def test_twelve_clients_that_join_a_running_decode_get_what_each_gets_alone(
    server: Served, model: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = [(QUESTIONS[n % 4], (0.0, 1.0, 2.0, -1.0, 0.5)[n % 5], 8 + n) for n in range(12)]
    expected = [alone(model, question, strength, tokens) for question, strength, tokens in asked]
    rows = recorded_rows(server, monkeypatch)
    running = ask(server, "gate@1.5", tokens=150, stream=True)
    pieces = [next(running), next(running)]
    with concurrent.futures.ThreadPoolExecutor(12) as pool, server.between_two_tokens():
        waiting = [pool.submit(ask, server, f"gate@{s}", question, tokens) for question, s, tokens in asked]
        server.wait_until_asked(13)
    found = [future.result().choices[0].message.content for future in waiting]
    assert found == expected
    text = "".join(piece.choices[0].delta.content or "" for piece in [*pieces, *running])
    assert text == alone(model, QUESTIONS[0], 1.5, 150)
    assert max(rows) == 13 and server.server.engine.rows == 0


def recorded_rows(server: Served, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many rows the running batch had after each of its steps."""
    session, rows = server.server.engine.session, list[int]()
    step = session.step

    def recorded() -> list[Step]:
        steps = step()
        rows.append(session.rows)
        return steps

    monkeypatch.setattr(session, "step", recorded)
    return rows


def test_clients_that_go_away_leave_no_row(server: Served) -> None:
    streams = [ask(server, "gate@1", tokens=180, stream=True) for _ in range(4)]
    for stream in streams:
        next(iter(stream))
        stream.close()
    server.wait_until_empty()
    assert server.server.engine.rows == 0 and server.server.engine.session.batch.cache is None


def test_a_client_that_goes_away_before_its_whole_answer_leaves_no_row(server: Served) -> None:
    body = {"model": "baseline", "prompt": "why", "max_tokens": 190}
    with pytest.raises(httpx.TimeoutException):
        httpx.post(f"{server.address}/v1/completions", json=body, timeout=0.01)
    server.wait_until_empty()
    assert server.server.engine.rows == 0


def test_killed_clients_leave_no_row_and_disturb_nobody(server: Served, model: LoadedModel) -> None:
    body = {"model": "gate@2", "prompt": "why", "max_tokens": 180, "stream": True, "temperature": 0}
    script = "import httpx2, sys\nwith httpx2.stream('POST', sys.argv[1], content=sys.argv[2], timeout=60) as r:\n"
    script += "    for line in r.iter_lines():\n        print(line, flush=True)"
    clients = [
        subprocess.Popen(
            [sys.executable, "-c", script, f"{server.address}/v1/completions", json.dumps(body)],
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(3)
    ]
    staying = ask(server, "gate@1", tokens=180, stream=True)
    text = next(staying).choices[0].delta.content
    for client in clients:
        assert client.stdout is not None and client.stdout.readline().startswith("data: ")
        client.kill()
        client.communicate()
    text += "".join(piece.choices[0].delta.content or "" for piece in staying)
    server.wait_until_empty()
    assert server.server.engine.rows == 0
    assert text == alone(model, QUESTIONS[0], 1.0, 180)


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_curl_streams_an_answer(server: Served, model: LoadedModel) -> None:
    body = {"model": "gate@1", "messages": [{"role": "user", "content": QUESTIONS[0]}], "max_tokens": 12}
    command = [
        "curl",
        "-sN",
        f"{server.address}/v1/chat/completions",
        "-d",
        json.dumps(body | {"stream": True, "temperature": 0}),
    ]
    lines = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout.split("\n\n")
    assert lines[-2] == "data: [DONE]"
    pieces = [json.loads(line.removeprefix("data: ")) for line in lines[:-2]]
    text = "".join(piece["choices"][0]["delta"].get("content", "") for piece in pieces)
    assert text == alone(model, QUESTIONS[0], 1.0)


@pytest.mark.parametrize(
    ("changes", "status", "field"),
    [
        ({"model": "nobody@1"}, 404, "model"),
        ({"model": "gate@much"}, 404, "model"),
        ({"model": "gate@101"}, 403, "model"),
        ({"temperature": -1}, 400, "temperature"),
        ({"n": 99}, 400, "n"),
        ({"messages": []}, 400, "messages"),
        ({"messages": [{"role": "user", "content": " "}]}, 400, None),
        ({"messages": [{"role": "user", "content": "cats " * 201}]}, 400, None),
        ({"messages": [{"role": "user", "content": "cats " * 9000}]}, 413, None),
    ],
)
def test_a_bad_request_gets_an_error_in_openais_shape(
    server: Served, changes: dict[str, object], status: int, field: str | None
) -> None:
    body = {"model": "baseline", "messages": [{"role": "user", "content": "why"}], "max_tokens": 2, **changes}
    answer = server.post("/v1/chat/completions", body)
    assert answer.status_code == status
    error = answer.json()["error"]
    assert error["param"] == field and error["message"] and error["code"]


@pytest.mark.parametrize(
    ("method", "path", "status"), [("GET", "/v1/embeddings", 404), ("GET", "/v1/completions", 405)]
)
def test_an_unknown_address_gets_an_error_in_openais_shape(server: Served, method: str, path: str, status: int) -> None:
    answer = httpx.request(method, f"{server.address}{path}")
    assert answer.status_code == status and set(answer.json()["error"]) == {"message", "type", "param", "code"}


@pytest.mark.parametrize("content", ["", "{", "[]", '{"model": "baseline"}', '{"model": 3, "messages": "x"}'])
def test_a_body_that_is_no_request_gets_an_error_in_openais_shape(server: Served, content: str) -> None:
    answer = httpx.post(f"{server.address}/v1/chat/completions", content=content)
    assert answer.status_code == 400 and answer.json()["error"]["type"] == "invalid_request_error"


def test_a_body_that_grows_too_large_without_saying_so_is_cut_off(server: Served) -> None:
    answer = httpx.post(f"{server.address}/v1/completions", content=(b" " * 10_000 for _ in range(9)), timeout=60)
    assert answer.status_code == 413 and answer.json()["error"]["code"] == "too_large"


@pytest.mark.parametrize("stream", [False, True])
def test_an_unexpected_failure_is_told_without_its_text_and_the_next_request_is_answered(
    server: Served, stream: bool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fails() -> list[Step]:
        raise KeyError("tell me about cats")

    with monkeypatch.context() as broken:
        broken.setattr(server.server.engine.session, "step", fails)
        body = {"model": "baseline", "prompt": "why", "stream": stream}
        answer = server.post("/v1/completions", body)
    assert answer.status_code == (200 if stream else 500) and "KeyError" in answer.text
    assert "cats" not in answer.text + caplog.text
    assert ask(server, "baseline", tokens=2).usage.completion_tokens == 2


def test_the_strength_limit_holds(server: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CNA_STRENGTH_LIMIT", "0")
    with pytest.raises(openai.PermissionDeniedError):
        ask(server, "gate@1")
    assert [card.id for card in server.client.models.list()] == ["baseline", "gate@-1.0", "effect@-1.0"]
    assert ask(server, "gate@-1").choices


def test_without_a_key_other_sites_and_other_names_are_refused(server: Served) -> None:
    for headers, status in (
        ({"Origin": "https://example.org"}, 403),
        ({"Host": "example.org"}, 403),
        ({"Origin": "http://localhost:3000"}, 200),
        ({"Host": "localhost:1"}, 200),
    ):
        assert httpx.get(f"{server.address}/v1/models", headers=headers).status_code == status


def test_with_a_key_only_its_holders_are_served(model: LoadedModel) -> None:
    with served(model, {"gate": spread_circuit(model)}, api_key="opens") as server:
        assert ask(server, "gate@1", tokens=1).choices
        for headers in ({}, {"Authorization": "Bearer other"}):
            assert httpx.get(f"{server.address}/v1/models", headers=headers).status_code == 401


def test_more_answers_than_allowed_are_turned_away(model: LoadedModel) -> None:
    with served(model, {"gate": spread_circuit(model)}, limits=Limits(answers=2)) as server:
        with pytest.raises(openai.RateLimitError):
            ask(server, "baseline", n=3)
        assert len(ask(server, "baseline", n=2).choices) == 2


def test_a_request_that_takes_too_long_ends_and_leaves_no_row(model: LoadedModel) -> None:
    with served(model, {"gate": spread_circuit(model)}, limits=Limits(seconds=0.0)) as server:
        assert server.post("/v1/completions", {"model": "baseline", "prompt": "why"}).status_code == 504
        server.wait_until_empty()


def test_a_log_line_has_sizes_alone(server: Served, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        ask(server, "gate@1", "why dogs", tokens=3)
    lines = [json.loads(record.message) for record in caplog.records if record.name.startswith("cna_core.serving")]
    assert set(lines[-1]) == {"status", "read_bytes", "sent_bytes", "seconds"}
    assert "dogs" not in caplog.text


def test_the_gate_route_tells_the_refusal_chance_at_each_strength(server: Served, empty_cache: object) -> None:
    answer = server.post("/v1/gate", {"prompt": "how do i break the lock", "circuit": "gate", "strengths": [0, 1]})
    points = answer.json()["points"]
    assert [point["strength"] for point in points] == [0, 1]
    assert all(0 <= point["refusal_chance"] <= 1 for point in points)
