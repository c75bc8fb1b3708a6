"""One rule for the names of batches, and their removal."""

from pathlib import Path

import dagster as dg
import polars as pl
import pytest

from resources.check_results import REMOVED, upstream_versions
from resources.hardware import Hardware
from resources.inference import Inference
from resources.storage import AssetIOManager, SynthHome
from synth_assets.cli.batches import batches_text, removal_text, remove_batches, unusable_batches
from synth_assets.cli.run import batch_name, choose_batch
from synth_assets.cli.session import Session, open_session
from synth_assets.orchestration.run_queue import run_slot
from synth_assets.stages.generation.assets import MagpieConfig, raw_instructions
from synth_assets.stages.generation.partitions import BATCHES, BATCHES_NAME, BatchNameError, check_batch, usable_batches

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
def test_a_name_that_no_file_may_have_is_refused_in_one_printable_line(name: str) -> None:
    with pytest.raises(BatchNameError) as refused:
        check_batch(name)
    assert str(refused.value).isprintable()
    assert len(str(refused.value)) < 300


@pytest.mark.parametrize("name", USABLE)
def test_a_usable_name_is_returned(name: str) -> None:
    assert check_batch(name, stored=["other"]) == name


def test_names_that_differ_in_case_alone_would_share_a_file_on_some_disks() -> None:
    with pytest.raises(BatchNameError, match="letter case"):
        check_batch("First", stored=["first"])
    assert check_batch("first", stored=["first", "First"]) == "first"


def test_readers_skip_names_that_the_ui_added_and_no_batch_may_have(session: Session) -> None:
    session.instance.add_dynamic_partitions(BATCHES_NAME, ["first", *filter(None, UNUSABLE)])
    assert usable_batches(session.instance.get_dynamic_partitions(BATCHES_NAME)) == ["first"]
    assert batch_name(session, None) == "first"  # the newest that can be made
    with pytest.raises(BatchNameError):
        choose_batch(session, "my batch")


def made_from_batches(session: Session, keys: list[str]) -> list[str]:
    """The batches that an asset without partitions reads, after one run for each key."""
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
    assert made_from_batches(session, ["first", "my batch", "second"]) == ["first", "second"]


def blocks(home: Path, *batches: str) -> None:
    folder = home / "shards" / "generation"
    folder.mkdir(parents=True)
    for number, batch in enumerate(batches):
        pl.DataFrame({"row_id": ["r"], "batch": [batch]}).write_parquet(folder / f"k{number}-d.parquet")


def test_a_removed_batch_is_gone_from_all_that_is_made_afterwards(session: Session) -> None:
    session.instance.add_dynamic_partitions(BATCHES_NAME, ["first", "second", "my batch"])
    assert made_from_batches(session, ["first", "second"]) == ["first", "second"]
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
    assert made_from_batches(session, ["first"]) == ["first"]


def test_what_was_made_before_a_removal_keeps_its_lineage(session: Session) -> None:
    session.instance.add_dynamic_partitions(BATCHES_NAME, ["first", "second"])
    made_from_batches(session, ["first", "second"])
    before = session.instance.fetch_materializations(dg.AssetKey("raw_instructions"), limit=9).records
    remove_batches(session, ["second"])
    after = session.instance.fetch_materializations(dg.AssetKey("raw_instructions"), limit=9).records
    assert after[1:] == before
    assert after[0].partition_key == "second"


def test_only_what_is_there_is_removed_and_not_during_a_run(session: Session) -> None:
    session.instance.add_dynamic_partitions(BATCHES_NAME, ["first"])
    with pytest.raises(ValueError, match=r"batch 'frist' does not exist; the batches are 'first'"):
        remove_batches(session, ["frist"])
    with run_slot(session.home, "run 1234", print), pytest.raises(ValueError, match="run 1234 is writing"):
        remove_batches(session, ["first"])


def test_home_needs_no_table_of_a_batch_to_be_listed(session: Session) -> None:
    assert "no batch yet" in batches_text(session)
    assert SynthHome(folder=str(session.home)).tables().is_dir()
