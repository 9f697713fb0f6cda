"""Inspect against the real server."""

from pathlib import Path

import pytest

from tests.decoding.models import loud_model, spread_circuit, text_of
from tests.serving.models import served

inspect_ai = pytest.importorskip("inspect_ai", reason="Inspect is not installed: pip install -e '.[evaltools]'")

QUESTIONS = ["tell me about cats", "how do i bake the bread"]


@pytest.mark.parametrize(("name", "strength"), [("baseline", 0.0), ("gate@1", 1.0)])
def test_inspect_gets_the_librarys_answers(name: str, strength: float, tmp_path: Path) -> None:
    from inspect_ai.dataset import Sample
    from inspect_ai.model import GenerateConfig, get_model
    from inspect_ai.scorer import includes

    from cna_core.decoding.lanes import Lane, generate

    model = loud_model()
    circuit = spread_circuit(model, size=40)
    with served(model, {"gate": circuit}) as server:
        asked = get_model(f"openai-api/gate/{name}", base_url=f"{server.address}/v1", api_key="none")
        task = inspect_ai.Task(
            dataset=[Sample(input=question, target="cats") for question in QUESTIONS], scorer=includes()
        )
        config = GenerateConfig(temperature=0, max_tokens=10).model_dump(exclude_none=True)
        (log,) = inspect_ai.eval(task, asked, display="none", log_dir=str(tmp_path), **config)
    assert log.status == "success"
    for sample in log.samples:
        expected = text_of(list(generate(model, [Lane(sample.input, strength)], circuit, max_new_tokens=10)))
        assert sample.output.completion == expected
