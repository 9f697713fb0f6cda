from cna_core.evaluation.category_table import category_markdown, category_table
from cna_core.evaluation.journal import run_identity
from cna_core.evaluation.runs import PromptsUsed, Run, RunAnswer
from tests.evaluation.test_runs import a_run


def with_categories(*categories: str) -> Run:
    prompts = PromptsUsed(name="p", count=3, sha256="ab", texts=("one", "two", "three"), categories=categories)
    answers = [
        RunAnswer(prompt=place, set="harmful", strength=strength, method="caa", text="", refused=refused)
        for strength, verdicts in ((0.0, (True, True, True)), (1.0, (True, False, False)))
        for place, refused in enumerate(verdicts)
    ]
    run = a_run(answers=tuple(answers))
    return run.model_copy(update={"settings": run.settings.model_copy(update={"prompts": {"harmful": prompts}})})


def test_refusals_are_counted_by_category_with_wilsons_interval() -> None:
    table = category_table(with_categories("locks", "locks", "bread"))
    steered = table[table["strength"] == 1].set_index("category")
    assert steered["refused"].to_dict() == {"locks": 0.5, "bread": 0.0}
    assert steered["prompts"].to_dict() == {"locks": 2, "bread": 1}
    assert 0 < steered.loc["locks", "refused, low"] < 0.5 < steered.loc["locks", "refused, high"] < 1


def test_the_markdown_table_has_a_column_a_category() -> None:
    lines = category_markdown(with_categories("locks", "locks", "bread")).splitlines()
    assert lines[0] == "| method | circuit | strength | locks (2) | bread (1) |"
    assert lines[2].startswith("| baseline |  | 0 | 100 % (")
    assert lines[3].startswith("| CAA |  | 1 | 50 % (")


def test_prompts_without_categories_have_no_table_and_categories_make_no_other_run() -> None:
    plain, named = with_categories(), with_categories("locks", "locks", "bread")
    assert category_table(plain).empty
    assert category_markdown(plain) == ""
    identities = {run_identity(run.model, run.circuit_sha256, run.settings) for run in (plain, named)}
    assert len(identities) == 1
