"""Validation of batch names, and removal of batches."""

from pathlib import Path

import dagster as dg
import polars as pl
import pytest

from resources.check_results import REMOVED, upstream_versions
from resources.hardware import Hardware
from resources.inference import Inference
from resources.partitions import BATCHES, BATCHES_NAME, BatchNameError, check_batch, usable_batches
from resources.storage import AssetIOManager, SynthHome
from synth_assets.cli.batches import batches_text, removal_text, remove_batches, unusable_batches
from synth_assets.cli.run import batch_name, choose_batch
from synth_assets.cli.session import Session, open_session
from synth_assets.orchestration.run_queue import run_slot
from synth_assets.stages.generation.assets import raw_instructions
from synth_assets.stages.generation.config import MagpieConfig

UNUSABLE = [
    "Woche-ü",
    "my batch",
    "-x",
    "x" * 300,
    "",
    "..",
    "../../etc",
    ".hidden",
    "a/b",
    "a\nb",
    "\x1b[31m",
    "imported",
]
USABLE = ["first", "2026-W47", "v1.2", "x" * 128, "0", "A_b"]


@pytest.fixture
def session() -> Session:
    return open_session("cpu")


@pytest.mark.parametrize("name", UNUSABLE)
def test_an_invalid_name_is_refused_in_one_printable_line(name: str) -> None:
    with pytest.raises(BatchNameError) as refused:
        check_batch(name)
    assert str(refused.value).isprintable()
    assert len(str(refused.value)) < 300


@pytest.mark.parametrize("name", USABLE)
def test_a_usable_name_is_returned(name: str) -> None:
    assert check_batch(name, stored=["other"]) == name


def test_a_name_that_differs_only_in_letter_case_is_refused() -> None:
    with pytest.raises(BatchNameError, match="letter case"):
        check_batch("First", stored=["first"])
    assert check_batch("first", stored=["first", "First"]) == "first"


def test_readers_skip_invalid_names_that_were_added_in_the_ui(session: Session) -> None:
    session.instance.add_dynamic_partitions(BATCHES_NAME, ["first", *filter(None, UNUSABLE)])
    assert usable_batches(session.instance.get_dynamic_partitions(BATCHES_NAME)) == ["first"]
    assert batch_name(session, None) == "first"  # the newest one with a valid name
    with pytest.raises(BatchNameError):
        choose_batch(session, "my batch")


def read_batches(session: Session, keys: list[str]) -> list[str]:
    """Return the batches that an unpartitioned asset reads, after one run per key."""
    tables = session.storage.tables()
    read: list[str] = []

    @dg.asset(partitions_def=BATCHES)
    def raw_instructions(context: dg.AssetExecutionContext) -> pl.DataFrame:
        check_batch(context.partition_key)
        return pl.DataFrame({"row_id": [context.partition_key]})

    @dg.asset
    def filtered(context: dg.AssetExecutionContext, raw_instructions: dict[str, pl.LazyFrame]) -> None:
        read[:] = sorted(raw_instructions)
        versions = upstream_versions(context)
        read.extend(f"{name} {version}" for name, version in versions.items() if version == REMOVED)

    definitions = dg.Definitions([raw_instructions, filtered], resources={"io_manager": AssetIOManager(tables)})
    job = definitions.resolve_implicit_global_asset_job_def()
    for key in keys:
        job.execute_in_process(instance=session.instance, partition_key=key, raise_on_error=False, asset_selection=None)
    return read


def test_the_asset_refuses_a_bad_name_before_a_model_is_loaded(own_home: Path) -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        inference = Inference(hardware=Hardware(tier="cpu"))
        context = dg.build_asset_context(partition_key="my batch", instance=instance)
        with pytest.raises(BatchNameError, match="'my batch'"):
            raw_instructions(
                context,
                MagpieConfig(),
                inference.resolve("teacher"),
                hardware=inference.hardware,
                inference=inference,
                home=SynthHome(folder=str(own_home)),
            )
        assert not instance.get_dynamic_partitions(BATCHES_NAME)


def test_a_bad_name_fails_its_own_run_and_no_other(session: Session) -> None:
    session.instance.add_dynamic_partitions(BATCHES_NAME, ["first", "my batch", "Woche-ü", "second"])
    assert read_batches(session, ["first", "my batch", "second"]) == ["first", "second"]


def blocks(home: Path, *batches: str) -> None:
    folder = home / "shards" / "generation"
    folder.mkdir(parents=True)
    for number, batch in enumerate(batches):
        pl.DataFrame({"row_id": ["r"], "batch": [batch]}).write_parquet(folder / f"k{number}-d.parquet")


def test_later_runs_do_not_read_a_removed_batch(session: Session) -> None:
    session.instance.add_dynamic_partitions(BATCHES_NAME, ["first", "second", "my batch"])
    assert read_batches(session, ["first", "second"]) == ["first", "second"]
    blocks(session.home, "first", "second", "second")
    listed = batches_text(session)
    assert "first " in listed
    assert "1 rows" in listed
    assert "'my batch'" in listed
    assert "2 blocks" in removal_text(session, ["second"])
    assert unusable_batches(session) == ["my batch"]
    remove_batches(session, ["second", "my batch"])
    assert list(session.instance.get_dynamic_partitions(BATCHES_NAME)) == ["first"]
    assert [p.name for p in (session.home / "shards" / "generation").iterdir()] == ["k0-d.parquet"]
    assert [p.name for p in (session.home / "tables" / "raw_instructions").iterdir()] == ["first.parquet"]
    assert read_batches(session, ["first"]) == ["first"]


def test_earlier_materialisations_keep_their_lineage_after_a_removal(session: Session) -> None:
    session.instance.add_dynamic_partitions(BATCHES_NAME, ["first", "second"])
    read_batches(session, ["first", "second"])
    before = session.instance.fetch_materializations(dg.AssetKey("raw_instructions"), limit=9).records
    remove_batches(session, ["second"])
    after = session.instance.fetch_materializations(dg.AssetKey("raw_instructions"), limit=9).records
    assert after[1:] == before
    assert after[0].partition_key == "second"


def test_removal_needs_an_existing_batch_and_no_active_run(session: Session) -> None:
    session.instance.add_dynamic_partitions(BATCHES_NAME, ["first"])
    with pytest.raises(ValueError, match=r"batch 'frist' does not exist; the batches are 'first'"):
        remove_batches(session, ["frist"])
    with run_slot(session.home, "run 1234", print), pytest.raises(ValueError, match="run 1234 is writing"):
        remove_batches(session, ["first"])


def test_a_home_without_tables_is_listed(session: Session) -> None:
    assert "no batch yet" in batches_text(session)
    assert SynthHome(folder=str(session.home)).tables().is_dir()
