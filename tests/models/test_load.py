import json
import shutil
import sys
import threading
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import MambaConfig, MambaForCausalLM

from cna_core.errors import ModelError, StoppedError
from cna_core.models import load as loading
from cna_core.models.fetch import Source
from cna_core.models.load import choose_dtype, load_model
from cna_core.progress import Progress, Stage
from tests.models.stand_in import save_tiny_model
from tests.tiny import tiny_tokenizer


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("models") / "tiny", dtype=torch.bfloat16)


def logits(model) -> torch.Tensor:
    with torch.inference_mode():
        return model.network(torch.arange(4, 20)[None]).logits


def test_a_folder_is_loaded_ready_to_use(folder: Path) -> None:
    told: list[tuple[Stage, str]] = []

    def tell(progress: Progress) -> None:
        told.append((progress.stage, progress.subject))

    model = load_model(str(folder), device="cpu", dtype="float32", progress=tell)
    assert model.identity.name == str(folder)
    assert model.identity.revision.startswith("local-")
    assert (model.identity.layers, model.identity.neurons_per_layer, model.identity.dtype) == (2, 24, "float32")
    assert not model.network.training
    assert not any(parameter.requires_grad for parameter in model.network.parameters())
    assert model.has_chat_template
    assert told == [(Stage.LOADING, str(folder)), (Stage.PACKING_WEIGHTS, str(folder))]


def test_auto_takes_the_chosen_dtype_of_the_device(folder: Path) -> None:
    assert load_model(str(folder), device="cpu").dtype == choose_dtype(torch.device("cpu"))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_a_dtype_that_is_named_is_taken(folder: Path, dtype: str) -> None:
    assert load_model(str(folder), device="cpu", dtype=dtype).dtype == getattr(torch, dtype)


def test_the_weights_are_those_of_the_file(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    loaded = load_model(str(folder), device="cpu", dtype="bfloat16").network.state_dict()
    assert all(torch.equal(loaded[name], weight) for name, weight in weights.items())


def test_a_model_without_a_chat_template_works(tmp_path: Path) -> None:
    model = load_model(str(save_tiny_model(tmp_path / "base", chat_template=None)), device="cpu")
    assert not model.has_chat_template
    assert logits(model).isfinite().all()


def test_a_tokenizer_without_padding_gets_some(tmp_path: Path) -> None:
    folder = save_tiny_model(tmp_path / "tiny")
    tokenizer = tiny_tokenizer()
    tokenizer.pad_token = None
    tokenizer.save_pretrained(folder)
    assert load_model(str(folder), device="cpu").tokenizer.pad_token == "</s>"


def test_spread_over_cpu_and_disk_it_computes_the_same(tmp_path: Path, empty_cache: Path) -> None:
    folder = save_tiny_model(tmp_path / "tiny")
    whole = load_model(str(folder), device="cpu", dtype="float32")
    spread = load_model(str(folder), device="cpu", dtype="float32", device_map="auto", max_memory={"cpu": 12_000})
    assert "disk" in set(spread.network.hf_device_map.values())
    assert torch.allclose(logits(spread), logits(whole), atol=1e-6)
    assert spread.device == torch.device("cpu")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"device": "tpu"}, "no device called 'tpu': use auto, cuda, mps or cpu"),
        ({"device": "cuda:99"}, "no CUDA device 'cuda:99': use auto or cpu"),
        ({"dtype": "float8"}, "no dtype called 'float8': use auto, bfloat16, float16, float32"),
        ({"quantization": "2bit"}, "no quantization called '2bit': use 4bit or 8bit"),
    ],
)
def test_options_that_do_not_exist_are_told(folder: Path, options: dict[str, str], words: str) -> None:
    with pytest.raises(ModelError, match=words):
        load_model(str(folder), **options)


@pytest.mark.parametrize("quantization", ["4bit", "8bit"])
def test_without_bitsandbytes_quantisation_says_what_to_install(
    folder: Path, quantization: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    with pytest.raises(ModelError, match=f"{quantization} needs bitsandbytes.*pip install bitsandbytes"):
        load_model(str(folder), device="cpu", quantization=quantization)


def with_code_of_its_own(folder: Path) -> Path:
    """Make the model one that transformers does not know and that brings its own code."""
    config = json.loads((folder / "config.json").read_text())
    config |= {
        "model_type": "mystery",
        "architectures": ["MysteryForCausalLM"],
        "auto_map": {"AutoConfig": "mystery.MysteryConfig", "AutoModelForCausalLM": "mystery.MysteryForCausalLM"},
    }
    (folder / "config.json").write_text(json.dumps(config))
    code = "raise SystemExit('this code was run')\n"
    (folder / "mystery.py").write_text(code)
    return folder


def test_code_that_comes_with_a_model_is_not_run_unless_asked_for(tmp_path: Path) -> None:
    folder = with_code_of_its_own(save_tiny_model(tmp_path / "tiny"))
    with pytest.raises(ModelError, match=r"its own Python code, .* trust_remote_code=True \(--trust-remote-code\)"):
        load_model(str(folder), device="cpu")


def test_code_that_comes_with_a_model_is_run_when_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    folder = with_code_of_its_own(save_tiny_model(tmp_path / "tiny"))
    with pytest.raises(SystemExit, match="this code was run"):
        load_model(str(folder), device="cpu", trust_remote_code=True)


def test_an_unknown_architecture_is_told(tmp_path: Path) -> None:
    folder = save_tiny_model(tmp_path / "tiny")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"model_type": "mystery", "architectures": ["Mystery"]}))
    with pytest.raises(ModelError, match="does not know the architecture"):
        load_model(str(folder), device="cpu")


def test_an_architecture_without_a_down_projection_is_told(tmp_path: Path) -> None:
    tokenizer = tiny_tokenizer()
    config = MambaConfig(vocab_size=len(tokenizer), hidden_size=16, state_size=4, num_hidden_layers=2)
    MambaForCausalLM(config).save_pretrained(tmp_path / "mamba")
    tokenizer.save_pretrained(tmp_path / "mamba")
    with pytest.raises(ModelError, match="down projection"):
        load_model(str(tmp_path / "mamba"), device="cpu")


@pytest.mark.parametrize("kept_bytes", [4, 100, 3000])
def test_a_truncated_weight_file_is_told(tmp_path: Path, kept_bytes: int) -> None:
    folder = save_tiny_model(tmp_path / "tiny")
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:kept_bytes])
    with pytest.raises(ModelError, match=r"could not be loaded because its files are damaged .* download it again"):
        load_model(str(folder), device="cpu")


@pytest.mark.parametrize("content", ["{", "[]", "{}"])
def test_a_damaged_configuration_is_told(tmp_path: Path, content: str) -> None:
    folder = save_tiny_model(tmp_path / "tiny")
    (folder / "config.json").write_text(content)
    with pytest.raises(ModelError):
        load_model(str(folder), device="cpu")


def test_a_missing_tokenizer_is_told(tmp_path: Path) -> None:
    folder = save_tiny_model(tmp_path / "tiny")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).unlink()
    with pytest.raises(ModelError, match="has no tokenizer that can be read"):
        load_model(str(folder), device="cpu")


def test_a_damaged_conversion_is_made_again(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cached = tmp_path / "converted"

    def locate(name: str, **_: object) -> Source:
        if not cached.exists():
            shutil.copytree(folder, cached)
        return Source(cached, "ab" * 32, made_here=True)

    monkeypatch.setattr(loading, "locate", locate)
    locate("tiny")
    (cached / "model.safetensors").write_bytes(b"half")
    told: list[Stage] = []
    model = load_model("tiny", device="cpu", progress=lambda progress: told.append(progress.stage))
    assert logits(model).isfinite().all()
    assert told == [Stage.LOADING, Stage.CONVERTING_AGAIN, Stage.PACKING_WEIGHTS]


def test_a_model_that_does_not_fit_is_told_before_it_is_loaded(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cna_core.models.needs.free_memory_bytes", lambda device: 1000)
    with pytest.raises(ModelError, match=r"does not fit into memory: it takes .* in float32, and 0 MB are free"):
        load_model(str(folder), device="cpu", dtype="float32")


def test_a_stopped_load_says_so(folder: Path) -> None:
    stop = threading.Event()
    stop.set()
    with pytest.raises(StoppedError):
        load_model(str(folder), stop=stop)


@pytest.mark.small_model
def test_the_small_embedded_model_is_the_one_of_the_catalog(small_model) -> None:
    from cna_core.models.catalog import SMALL_MODEL, catalog

    entry = catalog()[SMALL_MODEL]
    identity, network = small_model.identity, small_model.network
    assert (identity.layers, identity.neurons_per_layer) == (entry.layers, entry.neurons_per_layer)
    assert identity.revision == entry.embedded.sha256
    assert small_model.tokenizer.convert_tokens_to_ids("<|im_end|>") == network.generation_config.eos_token_id


@pytest.mark.default_model
def test_the_default_model_keeps_its_two_matrices_apart_and_ends_its_turns(default_model) -> None:
    from cna_core.models.catalog import DEFAULT_MODEL, catalog

    entry = catalog()[DEFAULT_MODEL]
    network = default_model.network
    assert (default_model.identity.layers, default_model.identity.neurons_per_layer) == (24, 4864)
    assert default_model.identity.revision == entry.embedded.sha256
    assert not torch.equal(network.get_input_embeddings().weight, network.get_output_embeddings().weight)
    assert default_model.tokenizer.convert_tokens_to_ids("<|im_end|>") == network.generation_config.eos_token_id
