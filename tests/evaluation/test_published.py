"""The paper's figures: complete, of the right size, and found by the names people use."""

import pytest
from pydantic import ValidationError

from cna_core.evaluation.published import Published, PublishedModel, published, published_model
from cna_core.models.catalog import catalog


def test_all_sixteen_models_of_the_paper_are_there_eight_of_each_kind() -> None:
    kinds = [model.kind for model in published().models]
    assert kinds.count("instruct") == kinds.count("base") == 8


def test_every_instruct_model_has_both_tables_and_every_base_model_has_its_pair() -> None:
    titles = {model.title for model in published().models}
    for model in published().models:
        if model.kind == "instruct":
            assert model.full_ablation and model.comparison
            assert model.title.removesuffix("-Instruct") in titles


@pytest.mark.parametrize("name", ["Qwen/Qwen2.5-3B-Instruct", "qwen/qwen2.5-3b-instruct", "qwen2.5-3b-instruct"])
def test_a_model_is_found_by_hub_id_and_by_catalog_id_in_any_case(name: str) -> None:
    model = published_model(name)
    assert model is not None and model.title == "Qwen2.5-3B-Instruct"
    assert model.full_ablation is not None and model.full_ablation.refusal_ablated == 0.58
    assert model.base_against_instruct is not None and model.base_against_instruct.quality == 0.984
    assert model.final_three_layers is not None and model.final_three_layers.share == 0.58


def test_a_model_that_the_paper_does_not_report_is_not_found() -> None:
    assert published_model("qwen2.5-coder-0.5b-instruct") is None
    assert published_model("Qwen/Qwen2.5-3B-Instruct-GGUF") is None


def test_no_two_models_share_a_name() -> None:
    names = [name.lower() for model in published().models for name in (model.catalog_id, *model.hub_ids)]
    assert len(names) == len(set(names))


def test_the_two_tables_agree_where_they_report_the_same_experiment() -> None:
    for model in published().models:
        if model.comparison and model.base_against_instruct:
            assert model.comparison.cna_refusal == model.base_against_instruct.refusal_ablated
            assert model.comparison.cna_quality == model.base_against_instruct.quality


def test_a_rate_above_one_is_refused() -> None:
    with pytest.raises(ValidationError):
        PublishedModel.model_validate(
            {"title": "x", "kind": "base", "hub_ids": [], "layers": 1, "final_three_layers": {"share": 84.5}}
        )


def test_an_unknown_field_is_refused() -> None:
    with pytest.raises(ValidationError):
        Published.model_validate({**published().model_dump(), "remark": ""})


def test_the_citation_names_every_author_and_the_paper() -> None:
    paper = published().paper
    for part in (*(author.split()[-1] for author in paper.authors), paper.title, paper.arxiv, str(paper.year)):
        assert part in paper.citation
    assert paper.address.endswith(paper.arxiv)


def test_the_catalog_knows_every_published_model_by_the_same_names_and_layers() -> None:
    entries = catalog()
    for model in published().models:
        entry = entries[model.catalog_id]
        assert entry.hub_id in model.hub_ids
        assert (entry.layers, entry.kind) == (model.layers, model.kind)
