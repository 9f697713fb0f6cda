"""Small stand-ins for what models come from: a hub on 127.0.0.1, model folders, GGUF files, wheels."""

import hashlib
import http.server
import json
import threading
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import gguf
import huggingface_hub.constants
import numpy as np
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from cna_core.models import hub as hub_client
from tests.tiny import CHAT_TEMPLATE, tiny_tokenizer

COMMIT = "c" * 40


def save_tiny_model(
    folder: Path, *, chat_template: str | None = CHAT_TEMPLATE, dtype: torch.dtype = torch.float32
) -> Path:
    """A random 2-layer Llama with tokenizer, as `save_pretrained` writes it."""
    torch.manual_seed(1)
    tokenizer = tiny_tokenizer(chat_template)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        eos_token_id=tokenizer.eos_token_id,
    )
    LlamaForCausalLM(config).to(dtype).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def write_tiny_gguf(path: Path, architecture: str = "llama") -> Path:
    """A random 2-layer Llama as Q8_0 GGUF with a byte-level tokenizer; 24 kB."""
    random = np.random.default_rng(0)
    tokens = ["<unk>", "<s>", "</s>", *(chr(code) for code in range(ord("!"), ord("~") + 1)), "Ġ", "th", "the"]
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_block_count(2)
    writer.add_context_length(64)
    writer.add_embedding_length(32)
    writer.add_feed_forward_length(64)
    writer.add_head_count(4)
    writer.add_head_count_kv(2)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(10000.0)
    writer.add_vocab_size(len(tokens))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("llama-bpe")
    writer.add_token_list(tokens)
    writer.add_token_types([3, 3, 3] + [1] * (len(tokens) - 3))
    writer.add_token_merges(["t h", "th e"])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_chat_template("{% for m in messages %}{{ m['content'] }}{% endfor %}")

    def packed(name: str, rows: int, columns: int) -> None:
        weights = random.normal(0, 0.1, (rows, columns)).astype(np.float32)
        kind = gguf.GGMLQuantizationType.Q8_0
        writer.add_tensor(name, gguf.quantize(weights, kind), raw_dtype=kind)

    packed("token_embd.weight", len(tokens), 32)
    packed("output.weight", len(tokens), 32)
    writer.add_tensor("output_norm.weight", np.ones(32, dtype=np.float32))
    for layer in range(2):
        for norm in ("attn_norm", "ffn_norm"):
            writer.add_tensor(f"blk.{layer}.{norm}.weight", np.ones(32, dtype=np.float32))
        for name, rows, columns in (
            ("attn_q", 32, 32),
            ("attn_k", 16, 32),
            ("attn_v", 16, 32),
            ("attn_output", 32, 32),
            ("ffn_gate", 64, 32),
            ("ffn_up", 64, 32),
            ("ffn_down", 32, 64),
        ):
            packed(f"blk.{layer}.{name}.weight", rows, columns)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def write_wheel(folder: Path, package: str, member: str, data: bytes) -> Path:
    """A wheel `package==1.0` that holds `data` as `member`."""
    path = folder / f"{package.replace('-', '_')}-1.0-py3-none-any.whl"
    information = f"{package.replace('-', '_')}-1.0.dist-info"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as wheel:
        wheel.writestr(member, data)
        wheel.writestr(f"{information}/METADATA", f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
        wheel.writestr(f"{information}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{information}/RECORD", "")
    return path


@dataclass
class StandInHub:
    """Repositories that the server offers, a data set as "datasets/organisation/name", and what was asked of it."""

    address: str
    repositories: dict[str, Path] = field(default_factory=dict)
    gated: set[str] = field(default_factory=set)
    lying: set[str] = field(default_factory=set)  # repositories that promise other hashes than their bytes have
    troubled: dict[str, str] = field(
        default_factory=dict
    )  # how a file is sent: "hangs", "drips", "breaks off", "fails"
    given_up: threading.Event = field(default_factory=threading.Event)  # ends what hangs
    requests: list[str] = field(default_factory=list)


@contextmanager
def stand_in_hub() -> Iterator[StandInHub]:
    """A hub's endpoints that huggingface_hub asks for: facts of repositories, HEAD and GET of files, 401, 404."""

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self._answer(with_body=True)

        def do_HEAD(self) -> None:
            self._answer(with_body=False)

        def log_message(self, *_: object) -> None:
            pass

        def _answer(self, with_body: bool) -> None:
            path = urlsplit(self.path).path.strip("/")
            hub.requests.append(f"{self.command} {path}")
            if path == "api/models":
                self._send(200, b"[]", with_body)
            elif path.startswith("api/models/"):
                self._send_facts("/".join(path.split("/")[2:4]), with_body)
            elif path.startswith("api/datasets/"):
                self._send_facts("/".join(path.split("/")[1:4]), with_body)
            else:
                self._send_file(path, with_body)

        def _send_facts(self, repository: str, with_body: bool) -> None:
            folder = hub.repositories.get(repository)
            if folder is None:
                self._send(401, b"{}", with_body, {"X-Error-Code": "RepoNotFound"})
                return
            files = []
            for file in sorted(path for path in folder.rglob("*") if path.is_file()):
                sha256 = hashlib.sha256(file.read_bytes()).hexdigest()
                facts: dict[str, object] = {"rfilename": str(file.relative_to(folder)), "size": file.stat().st_size}
                if file.suffix in {".safetensors", ".gguf", ".bin"}:
                    promised = "0" * 64 if repository in hub.lying else sha256
                    facts["lfs"] = {"sha256": promised, "size": file.stat().st_size, "pointerSize": 130}
                files.append(facts)
            gated = "manual" if repository in hub.gated else False
            answer = {"_id": "1", "id": repository, "sha": COMMIT, "gated": gated, "siblings": files, "tags": []}
            self._send(200, json.dumps(answer).encode(), with_body)

        def _send_file(self, path: str, with_body: bool) -> None:
            repository, _, rest = path.partition("/resolve/")
            folder = hub.repositories.get(repository)
            if folder is None:
                self._send(404, b"", with_body, {"X-Error-Code": "RepoNotFound"})
                return
            if repository in hub.gated and self.headers.get("Authorization") != "Bearer hf_good":
                self._send(401, b"", with_body, {"X-Error-Code": "GatedRepo"})
                return
            file = folder / rest.partition("/")[2]
            if not file.is_file():
                self._send(404, b"", with_body, {"X-Error-Code": "EntryNotFound"})
                return
            data = file.read_bytes()
            etag = f'"{hashlib.sha256(data).hexdigest()}"'
            headers = {"ETag": etag, "X-Repo-Commit": COMMIT, "X-Linked-Size": str(len(data))}
            trouble = hub.troubled.get(file.name) if with_body else None
            if trouble is None:
                self._send(200, data, with_body, headers)
            else:
                self._send_troubled(trouble, data, headers)

        def _send_troubled(self, trouble: str, data: bytes, headers: dict[str, str]) -> None:
            if trouble == "fails":
                self._send(500, b"", True)
                return
            self._send(200, data[:0], False, headers | {"Content-Length": str(len(data))})
            half = len(data) // 2
            for start in range(0, len(data), 64) if trouble == "drips" else (0,):
                self.wfile.write(data[start : start + 64] if trouble == "drips" else data[:half])
                self.wfile.flush()
            if trouble == "hangs":
                hub.given_up.wait(60)
            if trouble != "drips":
                self.close_connection = True

        def _send(self, status: int, body: bytes, with_body: bool, headers: dict[str, str] | None = None) -> None:
            self.send_response(status)
            for name, value in ({"Content-Length": str(len(body))} | (headers or {})).items():
                self.send_header(name, value)
            self.end_headers()
            if with_body:
                self.wfile.write(body)

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hub = StandInHub(f"http://127.0.0.1:{server.server_port}")
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        hub.given_up.set()
        server.shutdown()
        server.server_close()
        thread.join()


def use_hub(monkeypatch: pytest.MonkeyPatch, address: str, cache: Path) -> None:
    """Let this process and its children take `address` for the Hub, with an empty cache at `cache`."""
    for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_ENDPOINT", address)
    monkeypatch.setenv("HF_HOME", str(cache))
    monkeypatch.setenv("HF_HUB_CACHE", str(cache))
    monkeypatch.setenv("HF_HUB_DISABLE_XET", "1")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub.constants, "HF_TOKEN_PATH", str(cache / "no-token"))
    monkeypatch.setattr(hub_client, "_answers", {})
