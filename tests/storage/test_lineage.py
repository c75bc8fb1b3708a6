"""Lineage over a few manifests by hand: a LoRA, a DPO that continues it, and a LoRA of other data."""

from pathlib import Path

import polars as pl
import pytest

from synth_assets.schemas.tables import RECALLS
from synth_assets.storage.lineage import (
    LineageError,
    ModelVersion,
    fates_of,
    find_rows,
    one_row,
    recalled_rows_of,
    training_rows,
)

LORA = ModelVersion("1", "lora_adapter", "l1", {"sft_dataset": "s1"})
DPO = ModelVersion(
    "2", "dpo_adapter", "d1", {"sft_dataset": "s1", "lora_adapter": "l1", "preference_pairs": "p1"}, ("champion",)
)
OTHER = ModelVersion("3", "lora_adapter", "l2", {"sft_dataset": "s2"})


@pytest.fixture
def manifests(tmp_path: Path) -> Path:
    leave(tmp_path, "sft_dataset/s1", {"a1": "train", "a2": "train", "b1": "validation"})
    leave(tmp_path, "filtered_instructions/f1", {"a1": "kept", "a2": "kept", "b1": "kept", "c1": "echo"})
    leave(tmp_path, "lora_adapter/l1", {"a1": "train", "a2": "train", "b1": "validation"}, score=0.5)
    leave(tmp_path, "dpo_adapter/d1", {"a2": "train"}, margin=2.0)
    leave(tmp_path, "lora_adapter/l2", {"a1": "train"})
    return tmp_path


def leave(folder: Path, name: str, fates: dict[str, str], **columns: float) -> None:
    path = folder / f"{name}.parquet"
    path.parent.mkdir(exist_ok=True)
    rows = pl.DataFrame({"row_id": [*fates], "fate": [*fates.values()]})
    rows.with_columns(pl.lit(value).alias(key) for key, value in columns.items()).write_parquet(path)


def recalls(*row_ids: str) -> pl.DataFrame:
    return pl.DataFrame([(row, "wrong", "ada", "2026-11-20") for row in row_ids], schema=RECALLS, orient="row")


def test_a_version_has_the_rows_of_the_adapter_it_continues(manifests: Path) -> None:
    rows = training_rows(manifests, DPO).select("trained", "row_id", "fate", "score", "margin").rows()
    assert rows == [
        ("lora_adapter", "a1", "train", 0.5, None),
        ("lora_adapter", "a2", "train", 0.5, None),
        ("lora_adapter", "b1", "validation", 0.5, None),
        ("dpo_adapter", "a2", "train", None, 2.0),
    ]


@pytest.mark.parametrize(
    ("row", "versions"), [("a1", ["1", "2", "3"]), ("a2", ["1", "2"]), ("b1", ["1", "2"]), ("c1", [])]
)
def test_recall_taints_versions_trained_on_the_row(manifests: Path, row: str, versions: list[str]) -> None:
    everything = (LORA, DPO, OTHER)
    assert [v.version for v in everything if not recalled_rows_of(manifests, v, recalls(row)).is_empty()] == versions


def test_a_version_without_manifest_cannot_be_cleared(manifests: Path) -> None:
    (manifests / "lora_adapter/l1.parquet").unlink()
    assert recalled_rows_of(manifests, DPO, recalls()).is_empty(), "nothing was recalled"
    with pytest.raises(LineageError, match="lora_adapter l1 has no row manifest"):
        recalled_rows_of(manifests, DPO, recalls("z"))


def test_two_paths_to_different_adapters_count_both(manifests: Path) -> None:
    both = ModelVersion("4", "dpo_adapter", "d1", {"lora_adapter": "l2", "lora_adapter@l1": "l1"})
    assert both.trainings() == [("lora_adapter", "l2"), ("lora_adapter", "l1"), ("dpo_adapter", "d1")]


def test_outcomes_in_every_version_of_every_table(manifests: Path) -> None:
    (manifests / "sft_dataset" / ".half.parquet").write_bytes(b"PAR1")  # of a killed writer
    assert sorted(fates_of(manifests, ["a2", "c1"]).rows()) == [
        ("a2", "dpo_adapter", "d1", "train"),
        ("a2", "filtered_instructions", "f1", "kept"),
        ("a2", "lora_adapter", "l1", "train"),
        ("a2", "sft_dataset", "s1", "train"),
        ("c1", "filtered_instructions", "f1", "echo"),
    ]


def test_row_is_found_by_id_prefix(manifests: Path) -> None:
    assert find_rows(manifests, "a") == ["a1", "a2"]
    assert one_row(manifests, "c") == "c1"
    assert one_row(manifests, "a1") == "a1"
    leave(manifests, "sft_dataset/s3", {"a": "train"})
    assert one_row(manifests, "a") == "a", "a whole id wins"
    for given, told in (("b2", "no row"), ("", "no row"), ("a", "")):
        if told:
            with pytest.raises(LineageError, match=told):
                one_row(manifests, given)
    leave(manifests, "sft_dataset/s4", {"x1": "train", "x2": "train"})
    with pytest.raises(LineageError, match="2 rows start with"):
        one_row(manifests, "x")


def test_a_title_names_aliases() -> None:
    assert (DPO.title, LORA.title) == ("2 (dpo_adapter, @champion)", "1 (lora_adapter)")
