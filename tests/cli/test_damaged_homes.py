"""A damaged file in a home gives a one-line error with the file and the remedy, in every command that reads it."""

import shutil
import sys
from pathlib import Path

import dagster as dg
import polars as pl
import pytest

from resources.storage import SynthHome
from resources.tracking import MlflowTracking
from synth_assets.cli import app
from synth_assets.cli.session import open_session
from synth_assets.schemas.records import ChampionRecord, Comparison, ModelRecord
from synth_assets.schemas.serialization import to_json
from synth_assets.schemas.tables import BENCHMARK_ITEMS, SFT_ROWS

TORN_JSON = b'{"version": "7", "na'
RECORDS = {
    "champion": ChampionRecord("7", "lora_adapter", "f", "", "", "promoted", "me", "2026-01-01", "r", "better"),
    "comparison": Comparison([], [], "", {}),
    "base_model": ModelRecord("base", "owner/base", "r", "embedded", 256),
}
CUT = None  # truncate the file to half


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Create a home with every kind of database, records, tables and a manifest."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("made") / "home"
        patch.setenv("SYNTH_HOME", str(folder))
        patch.setenv("DAGSTER_HOME", str(folder / "dagster"))
        session = open_session("cpu")
        home = SynthHome(folder=str(folder))
        MlflowTracking(home=home).initialise()
        for name, record in RECORDS.items():
            (home.tables() / f"{name}.json").write_text(to_json(record), "utf-8")
        for name, schema in {"benchmark_items": BENCHMARK_ITEMS, "sft_dataset": SFT_ROWS}.items():
            pl.DataFrame(schema=schema).write_parquet(home.tables() / f"{name}.parquet")
        home.leave_row_manifest("filtered_instructions", "f1", pl.DataFrame({"row_id": ["aa11"], "fate": ["kept"]}))
        session.instance.report_runless_asset_event(dg.AssetMaterialization("champion"))
        session.instance.dispose()
    return folder


@pytest.mark.parametrize(
    ("file", "damage", "command"),
    [
        ("tables/champion.json", TORN_JSON, ["champion"]),
        ("tables/champion.json", b"\xff\xfe", ["champion"]),
        ("tables/champion.json", b"[1]", ["champion"]),
        ("tables/champion.json", b"7", ["champion"]),
        ("tables/champion.json", b'{"version": "7"}', ["champion"]),
        ("tables/comparison.json", b'{"metrics": [7]}', ["scoreboard"]),
        ("tables/comparison.json", b'{"metrics": 7}', ["scoreboard"]),
        ("tables/comparison.json", b"[" * 100_000, ["scoreboard"]),
        ("tables/base_model.json", TORN_JSON, ["ask", "Who are you?"]),
        ("tables/benchmark_items.parquet", CUT, ["scoreboard"]),
        ("tables/benchmark_items.parquet", b"", ["scoreboard"]),
        ("tables/sft_dataset.parquet", CUT, ["study"]),
        ("tables/sft_dataset.parquet", CUT, ["why", "aa11"]),
        ("manifests/filtered_instructions/f1.parquet", CUT, ["why", "aa11"]),
        ("manifests/filtered_instructions/f1.parquet", b"PAR1", ["recall", "aa11", "--dry-run"]),
        ("recalls.jsonl", b"{", ["recall"]),
        ("recalls.jsonl", b"\xff", ["recall"]),
        ("recalls.jsonl", b"[]\n", ["status"]),
        ("mlflow.db", CUT, ["champion"]),
        ("mlflow.db", b"text", ["trace", "1"]),
        ("mlflow.db", b"text", ["run", "--yes"]),
        ("dagster/history/runs.db", CUT, ["status"]),
        ("dagster/history/runs/index.db", b"text", ["history"]),
        ("dagster/schedules/schedules.db", CUT, ["status"]),
        ("dagster/schedules/schedules.db", CUT, ["batches"]),
    ],
)
def test_damage_gives_one_line_with_file_and_remedy(  # noqa: PLR0917
    made: Path,
    own_home: Path,
    file: str,
    damage: bytes | None,
    command: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    shutil.copytree(made, own_home)
    path = own_home / file
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2] if damage is CUT else damage)
    monkeypatch.setattr(sys, "argv", ["synth", *command])
    with pytest.raises(SystemExit) as ended:
        app.main()
    assert ended.value.code == app.EXIT_USAGE
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert str(path) in line
    assert any(remedy in line for remedy in ("backup", "delete it", "synth run", "remove")), line


def test_a_damaged_dagster_yaml_is_rewritten(made: Path, own_home: Path) -> None:
    shutil.copytree(made, own_home)
    settings = own_home / "dagster" / "dagster.yaml"
    expected = settings.read_bytes()
    settings.write_bytes(b"\xff: [")
    open_session("cpu").instance.dispose()
    assert settings.read_bytes() == expected


def test_doctor_names_a_torn_database(made: Path, own_home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(made, own_home)
    (own_home / "mlflow.db").write_bytes(b"text")
    assert app.app(["doctor"], standalone_mode=False) == app.EXIT_USAGE
    assert f"FAIL state          {own_home / 'mlflow.db'} is damaged" in capsys.readouterr().out
