from collections.abc import Callable, Sequence
from pathlib import Path

import dagster as dg
import polars as pl
import pytest

from resources.embeddings import Embeddings
from resources.hardware import Hardware
from resources.inference import Inference
from resources.partitions import BATCHES
from resources.storage import AssetStorage, SynthHome
from synth_assets.schemas.records import ModelRecord
from synth_assets.schemas.tables import INSTRUCTIONS
from synth_assets.stages.filtering.assets import filtered_instructions, recalled_rows, reviewed_rows, sft_dataset
from synth_assets.storage.retractions import Recall, add_recalls
from synth_assets.storage.reviews import Review, add_review
from synth_assets.text.embeddings import TextEmbedder
from tests.filtering.conftest import WordEmbedder

Rows = Callable[..., pl.DataFrame]
SUBJECTS = ("Jupiter", "Paris", "iron", "whales", "Mozart", "chess", "coffee", "bees", "glass", "paper", "rain", "salt")
SAME_WORDS = {"semantic_duplicate_similarity": 0.99, "semantic_item_similarity": 0.99}
REJECTS = "rejected_instructions"
ATTACK = "<img src=x onerror=alert(1)> ![a](http://x) \x1b[31m " + "y" * 39_000


class WordCounts(Inference):
    """Counts words instead of tokens and accepts all turns, so that no model is loaded."""

    def count_tokens(self, model: ModelRecord) -> Callable[[Sequence[str]], list[int]]:
        return lambda texts: [len(text.split()) for text in texts]

    def template_refusal(self, model: ModelRecord) -> Callable[..., str]:
        return lambda *_: ""


class WordMeanings(Embeddings):
    """The embedding model that knows no word order, instead of a real one."""

    def embedder(self) -> TextEmbedder:
        return WordEmbedder()


def facts(rows_of: Rows, batch: str, *more: tuple[str, str]) -> pl.DataFrame:
    rows = rows_of(*((f"Tell me one fact about {name}.", f"{name} is old.") for name in SUBJECTS), *more, batch=batch)
    return rows.with_columns(row_id=pl.lit(batch) + pl.col("row_id"))


def upstream(rows_of: Rows, items: pl.DataFrame) -> list[dg.AssetsDefinition]:
    @dg.asset(partitions_def=BATCHES)
    def raw_instructions(context: dg.AssetExecutionContext) -> pl.DataFrame:
        return facts(rows_of, context.partition_key, ("Name a bird.", "A crow.</s>"), ("Draw a bird.", ATTACK))

    @dg.asset
    def imported_instructions() -> pl.DataFrame:
        return pl.DataFrame(schema=INSTRUCTIONS)

    @dg.asset
    def benchmark_items() -> pl.DataFrame:
        return items

    @dg.asset
    def base_model() -> ModelRecord:
        return ModelRecord("base", "folder", "revision", "llama", 4096)

    return [raw_instructions, imported_instructions, benchmark_items, base_model]


@pytest.fixture
def home(tmp_path: Path) -> SynthHome:
    return SynthHome(folder=str(tmp_path / "home"))


def materialise(
    home: SynthHome, sources: list[dg.AssetsDefinition], config: dict[str, object], *, by_meaning: bool = False
) -> dg.ExecuteInProcessResult:
    embeddings = WordMeanings(home=home) if by_meaning else Embeddings(home=home)
    resources = {"inference": WordCounts(hardware=Hardware(tier="cpu")), "home": home, "embeddings": embeddings}
    resources["io_manager"] = AssetStorage(home=home)
    assets = [*sources, recalled_rows, reviewed_rows, filtered_instructions, sft_dataset]
    with dg.DagsterInstance.ephemeral() as instance:
        instance.add_dynamic_partitions("batches", ["2026-W47", "2026-W46"])
        for batch in ("2026-W46", "2026-W47"):
            assert dg.materialize(
                assets, selection=sources[:1], partition_key=batch, instance=instance, resources=resources
            )
        return dg.materialize(
            assets,
            selection=[*sources[1:], recalled_rows, reviewed_rows, filtered_instructions, sft_dataset],
            instance=instance,
            resources=resources,
            run_config={"ops": {"filtered_instructions": {"config": config}}},
            raise_on_error=False,
        )


def test_all_batches_are_filtered_together_and_split(
    home: SynthHome, rows_of: Rows, items_of: Callable[..., pl.DataFrame], capsys: pytest.CaptureFixture[str]
) -> None:
    result = materialise(home, upstream(rows_of, items_of("Tell me one fact about rain.")), {})
    assert result.success
    assert "Rejected 17 of 28 rows: exact_duplicate 11, " in capsys.readouterr().err
    metadata = {
        event.asset_key.to_user_string(): event.step_materialization_data.materialization.metadata
        for event in result.get_asset_materialization_events()
        if event.asset_key
    }
    # two batches of 14 rows: one kept copy of 11 facts, 11 later copies, 2 benchmark facts, 2 marks, 2 attacks
    assert metadata["filtered_instructions"]["dagster/row_count"].value == 11
    assert metadata["rejected_instructions"]["dagster/row_count"].value == 17
    assert metadata["filtered_instructions"]["pass_rate"].value == pytest.approx(11 / 28, rel=1e-3)
    table = str(metadata["rejected_instructions"]["rejected_by_reason"].value)
    assert "| exact_duplicate | duplicates and benchmarks | 11 | 39.29% |" in table
    assert "| benchmark_item | duplicates and benchmarks | 2 | 7.14% |" in table
    kept = pl.read_parquet(home.tables() / "sft_dataset.parquet")
    assert set(kept["batch"]) == {"2026-W46"}
    assert kept["split"].value_counts(sort=True).rows() == [("train", 10), ("validation", 1)]


def test_with_an_embedder_paraphrases_are_rejected_and_the_thresholds_recorded(
    home: SynthHome, rows_of: Rows, items_of: Callable[..., pl.DataFrame]
) -> None:
    items = items_of("About one rain fact tell me.")
    assert materialise(home, upstream(rows_of, items), {}, by_meaning=False).success
    assert "semantic_benchmark_item" not in set(rejected_rows(home)["reason"])
    result = materialise(home, upstream(rows_of, items), {**SAME_WORDS}, by_meaning=True)
    assert result.success
    caught = rejected_rows(home).filter(reason="semantic_benchmark_item")
    assert caught["instruction"].to_list() == ["Tell me one fact about rain."] * 2
    assert caught["detail"].to_list() == ["i0: similarity 1.00"] * 2
    [event] = [e for e in result.get_asset_materialization_events() if e.asset_key and e.asset_key.path[-1] == REJECTS]
    spec = event.step_materialization_data.materialization.metadata["spec"].value
    assert isinstance(spec, dict)
    assert (spec["embedder"], spec["semantic_duplicate_similarity"]) == ("words@1", 0.99)


def rejected_rows(home: SynthHome) -> pl.DataFrame:
    return pl.read_parquet(home.tables() / f"{REJECTS}.parquet")


def test_samples_are_escaped_and_short(home: SynthHome, rows_of: Rows, items_of: Callable[..., pl.DataFrame]) -> None:
    result = materialise(home, upstream(rows_of, items_of("An item.")), {"max_characters": 1000})  # fault 12
    events = [event for event in result.get_asset_materialization_events() if event.asset_key]
    rejected = next(event for event in events if event.asset_key.path == ["rejected_instructions"])
    sample = str(rejected.step_materialization_data.materialization.metadata["sample"].value)
    assert "too" in sample
    assert "<img" not in sample
    assert "\x1b" not in sample
    assert len(sample.encode()) <= 4_000


def test_the_manifest_has_the_outcome_of_every_row(
    home: SynthHome, rows_of: Rows, items_of: Callable[..., pl.DataFrame]
) -> None:
    materialise(home, upstream(rows_of, items_of("An item.")), {})
    (manifest,) = (home.manifests() / "filtered_instructions").glob("*.parquet")
    fates = pl.read_parquet(manifest)
    assert fates.height == 28
    assert fates.filter(fate="kept").height == 12


def test_a_recalled_row_is_rejected_with_its_duplicates(
    home: SynthHome, rows_of: Rows, items_of: Callable[..., pl.DataFrame]
) -> None:
    row = "2026-W46r000"  # kept, and repeated by the same row of the later batch
    add_recalls(home.recalls(), [Recall(row, "recalled", "names a person", "ada", "2026-11-20T12:00:00+00:00")])
    assert materialise(home, upstream(rows_of, items_of("An item.")), {}).success
    rejected = pl.read_parquet(home.tables() / "rejected_instructions.parquet")
    outcomes = {
        row_id: (reason, detail) for row_id, reason, detail in rejected.select("row_id", "reason", "detail").rows()
    }
    assert outcomes[row] == ("recalled", "recalled by ada on 2026-11-20: names a person")
    assert outcomes["2026-W47r000"] == ("exact_duplicate", f"repeats {row}, similarity 1.0")
    assert row not in pl.read_parquet(home.tables() / "sft_dataset.parquet")["row_id"].to_list()


def test_if_no_row_is_left_nothing_is_stored_and_the_reasons_are_listed(
    home: SynthHome, rows_of: Rows, items_of: Callable[..., pl.DataFrame]
) -> None:  # fault 8
    result = materialise(home, upstream(rows_of, items_of("An item.")), {"max_instruction_words": 1})
    failure = result.failure_data_for_node("filtered_instructions")
    assert failure is not None
    assert "no instruction row is left of 28" in str(failure.error)
    assert "instruction_too_long: " in str(failure.error)
    materialised = {
        event.asset_key.to_user_string() for event in result.get_asset_materialization_events() if event.asset_key
    }
    assert not materialised & {"filtered_instructions", "rejected_instructions", "sft_dataset"}
    assert not list(home.tables().glob("filtered_instructions*"))


def test_an_invalid_threshold_names_its_field(
    home: SynthHome, rows_of: Rows, items_of: Callable[..., pl.DataFrame]
) -> None:
    result = materialise(home, upstream(rows_of, items_of("An item.")), {"max_echo_similarity": 2.0})  # fault 27
    assert not result.success
    failure = result.failure_data_for_node("filtered_instructions")
    assert failure is not None
    assert "FilterSpec.max_echo_similarity" in str(failure.error)


def test_the_filter_reads_the_decisions_of_reviewers(
    home: SynthHome, rows_of: Rows, items_of: Callable[..., pl.DataFrame]
) -> None:
    row, at = "2026-W46r000", "2026-11-28T06:00:00+00:00"
    for by in ("ada", "ben"):
        add_review(home.reviews(), Review(row, "reject", by, at, "wrong"))
    result = materialise(home, upstream(rows_of, items_of("An item.")), {})
    assert result.success
    (metadata,) = (
        event.step_materialization_data.materialization.metadata
        for event in result.get_asset_materialization_events()
        if event.asset_key == dg.AssetKey("reviewed_rows")
    )
    assert (metadata["dagster/row_count"].value, metadata["reject_rows"].value) == (1, 1)
    assert "ada and ben: kappa undefined" in str(metadata["agreement"].value)
    rejected = pl.read_parquet(home.tables() / "rejected_instructions.parquet")
    assert rejected.filter(row_id=row)["detail"].to_list() == ["rejected by ben on 2026-11-28: wrong"]
