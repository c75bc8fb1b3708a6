from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest

from resources.hardware import TIERS, Hardware
from resources.inference import Inference
from synth_assets.schemas.records import ModelRecord
from synth_assets.schemas.serialization import from_json, to_json
from synth_assets.schemas.tables import BENCHMARK_ITEMS, SFT_ROWS
from synth_assets.stages.efficiency import variants
from synth_assets.stages.efficiency.grid import cell_of
from synth_assets.stages.efficiency.variants import (
    StudySpec,
    Variant,
    data_version_of,
    held_out_losses,
    missing_support,
    study_items,
    study_of,
    study_rows,
)
from synth_assets.training.specs import LoraSpec

BASE = ModelRecord("base", "owner/base", "0" * 40, "llama", 256)
CPU = TIERS["cpu"]


def sft(train: int, groups: list[int]) -> pl.DataFrame:
    """Train rows of their own groups, and validation groups of these sizes."""
    held_out = [f"g{number}" for number, size in enumerate(groups) for _ in range(size)]
    numbers = range(train + len(held_out))
    columns = {
        "row_id": [f"r{i}" for i in numbers],
        "history": [[] for _ in numbers],
        "instruction": [f"What is {i} plus 1?" for i in numbers],
        "response": [f"It is {i + 1}." for i in numbers],
        "group": [*(f"t{i}" for i in range(train)), *held_out],
        "split": ["train"] * train + ["validation"] * len(held_out),
    }
    empty = [None] * len(numbers)
    return pl.DataFrame({name: columns.get(name, empty) for name in SFT_ROWS}, schema=SFT_ROWS)


def items(*places: tuple[str, str]) -> pl.DataFrame:
    rows = [{"item_id": str(i), "suite": suite, "split": split} for i, (suite, split) in enumerate(places)]
    return pl.DataFrame(rows, schema={name: BENCHMARK_ITEMS[name] for name in ("item_id", "suite", "split")})


def test_test_rows_share_no_group_with_those_that_select() -> None:
    found = study_rows(sft(10, [1, 2, 3, 1, 4, 1]), StudySpec())
    sides = found.group_by("group").agg(pl.col("split").n_unique())
    assert sides["split"].to_list() == [1] * sides.height
    sizes = dict(found["split"].value_counts().iter_rows())
    assert sizes["train"] == 10
    assert sizes["validation"] + sizes["test"] == 12
    assert min(sizes["validation"], sizes["test"]) >= 2


def test_the_halves_do_not_depend_on_the_order_of_the_rows() -> None:
    rows = sft(10, [1] * 9)
    shuffled = rows.sample(fraction=1.0, shuffle=True, seed=1)
    for spec in (StudySpec(), StudySpec(train_rows=4)):
        one, other = (study_rows(table, spec).select("row_id", "split").sort("row_id") for table in (rows, shuffled))
        assert one.equals(other)
    assert study_rows(rows, StudySpec(train_rows=4)).filter(split="train").height == 4
    assert study_rows(rows, StudySpec(train_rows=40)).filter(split="train").height == 10


def test_one_group_cannot_be_divided() -> None:
    with pytest.raises(ValueError, match="at least 2 groups of validation rows, got 1 of 5 rows"):
        study_rows(sft(10, [5]), StudySpec())


def test_settings_are_scored_on_validation_items_of_the_deciding_suite() -> None:
    table = items(("first", "validation"), ("first", "test"), ("second", "validation"), ("first", "validation"))
    assert study_items(table)["item_id"].to_list() == ["0", "3"]
    with pytest.raises(ValueError, match="no validation item"):
        study_items(items(("first", "test")))
    with pytest.raises(ValueError, match="no validation item"):
        study_items(items())


def test_the_basis_changes_with_data_settings_and_code() -> None:
    rows, asked, specs = sft(10, [1, 1]), items(("first", "validation")), (StudySpec(), LoraSpec())
    basis = study_of(BASE, (rows, asked), specs, CPU).basis
    others = [
        study_of(replace(BASE, revision="1" * 40), (rows, asked), specs, CPU),
        study_of(BASE, (rows.tail(-1), asked), specs, CPU),
        study_of(BASE, (rows, pl.concat([asked, asked])), specs, CPU),
        study_of(BASE, (rows, asked), (StudySpec(items=1), LoraSpec()), CPU),
        study_of(BASE, (rows, asked), (StudySpec(), LoraSpec(learning_rate=1e-3)), CPU),
        study_of(BASE, (rows, asked), specs, replace(CPU, dtype="bfloat16")),
    ]
    assert len({basis, *(other.basis for other in others)}) == 7
    assert study_of(BASE, (rows, asked), specs, CPU).basis == basis


def test_a_cell_changes_its_factors_alone() -> None:
    study = study_of(
        BASE,
        (sft(10, [1, 1]), items(("first", "validation"))),
        (StudySpec(epochs=2.0), LoraSpec(learning_rate=5e-3)),
        CPU,
    )
    spec = study.training_of(cell_of(16, "qv", "nf4"), 43)
    assert (spec.rank, spec.alpha, spec.target_modules, spec.seed) == (16, 32, ("q_proj", "v_proj"), 43)
    assert (spec.epochs, spec.learning_rate, spec.dropout) == (2.0, 5e-3, LoraSpec().dropout)


@pytest.mark.parametrize("wrong", [{"train_rows": -1}, {"items": -1}, {"epochs": 0.0}])
def test_an_invalid_study_is_an_error(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        StudySpec(**wrong)  # pyright: ignore[reportArgumentType]


def test_quantisation_without_its_library_gives_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(variants, "find_spec", lambda _: None)
    assert missing_support("none") == ""
    assert "bitsandbytes" in missing_support("nf4")
    monkeypatch.setattr(variants, "find_spec", lambda _: object())
    assert missing_support("int8") == ""


def test_losses_are_of_each_half_and_measured_once(tmp_path: Path) -> None:
    inference = Inference(hardware=Hardware(tier="cpu"))
    base = inference.resolve("base")
    rows = study_rows(sft(2, [1, 1, 1, 1]), StudySpec())
    loads = []

    def load() -> object:
        loads.append(1)
        return inference.load_base(base)

    def measure(weights: str, table: pl.DataFrame) -> pl.DataFrame:
        subject = (load, weights)
        return held_out_losses(subject, table, 256, 2, folder=tmp_path, progress=lambda _: None)  # pyright: ignore[reportArgumentType]

    found = measure("w", rows)
    assert found["split"].to_list() == ["validation", "test"]
    assert (found["loss"] > 0).all()
    assert found["perplexity"].to_list() == pytest.approx(found["loss"].exp().to_list())
    assert measure("w", rows).equals(found)
    assert len(loads) == 1
    measure("v", rows)
    assert len(loads) == 2


def test_a_variant_survives_its_storage(made: Callable[..., Variant]) -> None:
    variant = made("r8-qkvo-nf4-s42")
    assert from_json(Variant, to_json(variant)) == variant
    assert data_version_of(replace(variant, mlflow_run_id="another")) == data_version_of(variant)
    assert data_version_of(made("r8-qkvo-nf4-s42", test_loss=0.4)) != data_version_of(variant)
    assert variant.cell == "r8-qkvo-nf4"
