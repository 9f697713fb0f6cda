"""Requests to the endpoint that somebody made to do harm: an error in OpenAI's shape, and the server goes on."""

import json
from collections.abc import Iterator
from typing import Any

import httpx2 as httpx
import pytest

from cna_core.models.loaded import LoadedModel
from tests.circuits.samples import circuit_of
from tests.hostile.inputs import shortly
from tests.hostile.outcome import checked
from tests.serving.models import Served, served

CHAT: dict[str, Any] = {"model": "baseline", "messages": [{"role": "user", "content": "how"}], "max_tokens": 1}
BODIES = (
    b"",
    b"null",
    b"[]",
    b"\xff",
    b"{" * 10,
    b"[" * 100_000,
    b'{"a":' * 100_000,
    b"9" * 100_000,
    b'{"model": "baseline", "messages": 1e999}',
    b'{"model": "\\ud800", "messages": []}',
)
FIELDS: tuple[tuple[str, Any], ...] = (
    ("model", "gate@1e999"),
    ("model", "gate@nan"),
    ("model", "gate@-101"),
    ("model", "gate@"),
    ("model", "../gate@1"),
    ("model", "<script>\x00\u202e"),
    ("model", "a" * 10_000),
    ("messages", []),
    ("messages", [{"role": "root", "content": "x"}]),
    ("messages", [{"role": "user", "content": ""}]),
    ("messages", [{"role": "user", "content": ["x"]}]),
    ("messages", [{"role": "user", "content": "how " * 5_000}]),
    ("messages", [{"role": "assistant"}]),
    ("max_tokens", -1),
    ("temperature", -1),
    ("temperature", 1e300),
    ("top_p", 0),
    ("seed", 2**70),
    ("n", 10**9),
    ("n", 0),
    ("stop", [""]),
    ("stop", ["x" * 1000]),
    ("stop", ["x"] * 100),
    ("top_logprobs", 10**6),
    ("stream", "maybe"),
    ("stream_options", 1),
    ("presence_penalty", 2),
)


@pytest.fixture(scope="module")
def server(tiny_model: LoadedModel) -> Iterator[Served]:
    with served(tiny_model, {"gate": circuit_of([(0, 1), (3, 2)], tiny_model.identity)}) as running:
        yield running


def told(answer: httpx.Response) -> str:
    """The message of an error in OpenAI's shape."""
    assert 400 <= answer.status_code < 500, answer.text[:200]
    return checked(answer.json()["error"]["message"])


@pytest.mark.parametrize("body", BODIES, ids=shortly)
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions", "/v1/gate"])
def test_a_body_that_is_no_request_is_refused_in_one_sentence(server: Served, path: str, body: bytes) -> None:
    told(httpx.post(f"{server.address}{path}", content=body, timeout=60))


@pytest.mark.parametrize(("field", "value"), FIELDS, ids=shortly)
def test_a_field_with_such_a_value_is_refused_in_one_sentence(server: Served, field: str, value: Any) -> None:
    told(httpx.post(f"{server.address}/v1/chat/completions", content=json.dumps(CHAT | {field: value}), timeout=60))


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "evil.example"},
        {"Host": "127.0.0.1.evil.example"},
        {"Host": "127.0.0.1@evil.example"},
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1.evil.example"},
    ],
    ids=shortly,
)
def test_a_request_for_or_from_another_site_is_refused(server: Served, headers: dict[str, str]) -> None:
    told(httpx.post(f"{server.address}/v1/chat/completions", json=CHAT, headers=headers, timeout=60))


@pytest.mark.parametrize("path", ["/../../etc/passwd", "/v1/..%2f..%2fetc", "/v1/models/../x", "//v1", "/%00"])
def test_a_path_that_is_no_route_is_refused(server: Served, path: str) -> None:
    told(httpx.get(f"{server.address}{path}", timeout=60))


def test_the_server_answers_after_all_of_that(server: Served) -> None:
    assert server.post("/v1/chat/completions", CHAT).status_code == 200
