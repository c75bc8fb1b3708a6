from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import polars as pl
import pytest

from resources.hardware import Hardware
from resources.storage import AssetStorage, SynthHome
from synth_assets.stages.benchmarks.assets import benchmark_items


def materialise(
    home: SynthHome, suites: list[str] | None, instance: dg.DagsterInstance, sealed: list[str] | None = None
) -> pl.DataFrame:
    config = {"ops": {"benchmark_items": {"config": {"suites": suites, "sealed": sealed}}}} if suites else {}
    done = dg.materialize(
        [benchmark_items],
        resources={"hardware": Hardware(tier="cpu"), "home": home, "io_manager": AssetStorage(home=home)},
        run_config=config,
        instance=instance,
    )
    return done.output_for_node("benchmark_items")


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as instance:
        yield instance


def test_a_run_may_name_its_suites_and_a_deployment_its_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, instance: dg.DagsterInstance
) -> None:
    files = tmp_path / "files"
    (files / "mmlu").mkdir(parents=True)
    (files / "mmlu" / "nutrition_test.csv").write_text("Which of these is a fruit?,iron,an apple,a chair,a cloud,B\n")
    monkeypatch.setenv("SYNTH_BENCHMARKS", str(files))
    home = SynthHome(folder=str(tmp_path / "home"), benchmark_folder=dg.EnvVar("SYNTH_BENCHMARKS"))
    table = materialise(home, ["knowledge", "mmlu"], instance)
    assert table.group_by("suite", maintain_order=True).len().rows() == [("knowledge", 100), ("mmlu", 1)]
    sealed = materialise(home, ["knowledge", "mmlu"], instance, ["mmlu"])
    assert sealed.filter(suite="mmlu")["split"].to_list() == ["sealed"]
    event = instance.get_latest_materialization_event(dg.AssetKey("benchmark_items"))
    assert event is not None
    assert event.asset_materialization is not None
    shown = str(event.asset_materialization.metadata)
    assert "mmlu | sealed | 1" in shown
    assert "fruit" not in shown


def test_without_config_the_tier_names_the_suites(tmp_path: Path, instance: dg.DagsterInstance) -> None:
    table = materialise(SynthHome(folder=str(tmp_path)), None, instance)
    assert table["suite"].unique(maintain_order=True).to_list() == ["world_instructions", "world_choice"]


def test_a_suite_that_cannot_be_had_fails_with_the_remedy(
    tmp_path: Path, instance: dg.DagsterInstance
) -> None:  # fault 10
    with pytest.raises(FileNotFoundError, match=r"no file gsm8k_test.jsonl in .*put the file there"):
        materialise(SynthHome(folder=str(tmp_path)), ["knowledge", "gsm8k"], instance)
    with pytest.raises(ValueError, match="unknown suite 'mmluu'"):
        materialise(SynthHome(folder=str(tmp_path)), ["mmluu"], instance)
    with pytest.raises(RuntimeError, match=r"SYNTH_BENCHMARKS .* is not a folder"):
        materialise(SynthHome(folder=str(tmp_path), benchmark_folder=str(tmp_path / "none")), ["knowledge"], instance)
