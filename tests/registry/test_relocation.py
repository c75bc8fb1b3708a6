"""A home that is copied, moved or renamed keeps its artifacts, and writes nothing where it was before."""

import hashlib
import shutil
import sqlite3
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from threading import Barrier

import numpy as np
import pytest
from safetensors.numpy import save_file

from resources.storage import SynthHome
from resources.tracking import EXPERIMENT, STUDY_EXPERIMENT, MlflowTracking
from synth_assets.registry.mlflow_tracker import MODEL
from synth_assets.registry.model_versions import adapter_record, attach_card, model_versions, restore_adapter
from synth_assets.registry.relocation import relocate
from synth_assets.storage.errors import StorageError
from synth_assets.storage.manifests import write_manifest
from tests.support.records import make_lora
from tests.support.tracking import tracking_of

pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("own_links")]

WEIGHTS = "adapter_model.safetensors"
NAMES = ["plain", "a [b]*c?d", "e%20f#g;h 100% Über-漢"]


def register(home: Path, name: str, tracking: MlflowTracking | None = None) -> str:
    folder = home / "adapters" / name
    if not folder.is_dir():
        folder.mkdir(parents=True)
        save_file({"weight": np.full(2, len(name), np.float32)}, folder / WEIGHTS)
        write_manifest(folder, {"name": name})
    record = make_lora(name)
    return (tracking or tracking_of(home)).tracker().log_training(record, folder, [], {})[1]


def tree(folder: Path) -> dict[str, str]:
    """The hash of each file but locks."""
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files_of(folder)}


def files_of(folder: Path) -> Iterable[Path]:
    return (p for p in sorted(folder.rglob("*")) if p.is_file() and p.suffix != ".lock")


def mentions(database: Path, text: str) -> list[str]:
    with closing(sqlite3.connect(database)) as connection:
        return [line for line in connection.iterdump() if text in line]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with one registered version that serves, and an experiment of the efficiency study."""
    home = tmp_path_factory.mktemp("made") / "home"
    tracking = tracking_of(home)
    version = register(home, "first")
    tracking.initialise(STUDY_EXPERIMENT)
    tracking.tracker().set_alias("champion", version, {})
    return home


@pytest.fixture
def old(made: Path, tmp_path: Path) -> Path:
    """The home of this test: itself a copy, opened once; making the tables of a new one takes seconds."""
    home = tmp_path / "old"
    shutil.copytree(made, home)
    tracking_of(home).relocate()
    assert mentions(home / "mlflow.db", str(made)) == []
    return home


def check_serves(home: Path, work: Path) -> None:
    """Restore the adapter, read its records, and register another version, all below `home`."""
    tracker = tracking_of(home).tracker()
    assert tracker.alias("champion") == "1"
    assert adapter_record(tracker, "1").fingerprint == "first"
    assert model_versions(tracker)[0].data_versions == {"sft_dataset": "v"}
    restore_adapter(tracker, "1", work / "restored")
    attach_card(tracker, "1", "# card")
    assert register(home, "second") == "2"
    assert len(list((home / "mlartifacts").rglob("*.safetensors"))) == 2
    assert len(list((home / "mlartifacts").rglob("model_card.md"))) == 1


@pytest.mark.parametrize("name", NAMES)
def test_copied_home_works_and_leaves_the_original_unchanged(old: Path, tmp_path: Path, name: str) -> None:
    copy = tmp_path / "elsewhere" / name
    shutil.copytree(old, copy)
    before = tree(old)
    check_serves(copy, tmp_path)
    assert tree(old) == before
    assert mentions(copy / "mlflow.db", str(old)) == []
    assert sorted(p.name for p in (tmp_path / "elsewhere").iterdir()) == [name]


def test_moved_home_works(old: Path, tmp_path: Path) -> None:
    moved = tmp_path / "moved"
    old.rename(moved)
    check_serves(moved, tmp_path)
    assert not old.exists()


def test_restored_archive_works_at_any_path(old: Path, tmp_path: Path) -> None:
    archive = shutil.make_archive(str(tmp_path / "backup"), "gztar", old)
    shutil.rmtree(old)
    shutil.unpack_archive(archive, tmp_path / "restored-home")
    check_serves(tmp_path / "restored-home", tmp_path)


def test_a_copy_inside_the_home_and_a_longer_name_beside_it(old: Path, tmp_path: Path) -> None:
    inside, longer = old / "backup", tmp_path / "old2"
    for copy in (longer, inside):
        shutil.copytree(old, copy, ignore=shutil.ignore_patterns("backup"))
    for copy in (inside, longer, old):
        check_serves(copy, tmp_path)
        wrong = mentions(copy / "mlflow.db", f"{old.as_uri()}/mlartifacts") if copy != old else []
        assert wrong == []


def test_home_moved_twice_and_back_works(old: Path, tmp_path: Path) -> None:
    for place in ("b", "c", "old"):
        present = next(p for p in (old, tmp_path / "b", tmp_path / "c") if p.exists())
        present.rename(tmp_path / place)
        tracker = tracking_of(tmp_path / place).tracker()
        restore_adapter(tracker, "1", tmp_path / "restored")
    check_serves(old, tmp_path)


def test_mlflow_alone_loads_the_champion_of_a_copy(old: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import mlflow

    copy = tmp_path / "copy"
    shutil.copytree(old, copy)
    tracking_of(copy).initialise()
    shutil.rmtree(old)
    monkeypatch.chdir(tmp_path)
    mlflow.set_tracking_uri(f"sqlite:///{copy / 'mlflow.db'}")
    folder = mlflow.artifacts.download_artifacts(f"models:/{MODEL}@champion")
    assert Path(folder).is_relative_to(copy)
    assert (Path(folder) / WEIGHTS).is_file()


def test_artifacts_left_at_the_old_path_are_copied(old: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(old, copy)
    register(old, "second")  # as a copy did before addresses were rewritten: its artifacts lie in the old home
    shutil.copy(old / "mlflow.db", copy / "mlflow.db")
    before = tree(old)
    tracker = tracking_of(copy).tracker()
    restore_adapter(tracker, "2", tmp_path / "restored")
    assert tree(old) == before
    shutil.rmtree(old)
    restore_adapter(tracker, "2", tmp_path / "restored")


def test_concurrent_opening_of_a_copy_rewrites_it_once(old: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(old, copy)
    both = Barrier(2)

    def opened(_: int) -> bool:
        tracking = tracking_of(copy)
        both.wait()
        return relocate(copy / "mlflow.db", copy, [EXPERIMENT], tracking.lock)

    with ThreadPoolExecutor(2) as pool:
        assert sorted(pool.map(opened, range(2)))[-1]
    check_serves(copy, tmp_path)


def test_symbolic_link_to_a_home_rewrites_nothing(old: Path, tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(old)
    assert not relocate(old / "mlflow.db", link, [EXPERIMENT], tracking_of(link).lock)
    check_serves(link, tmp_path)
    assert mentions(old / "mlflow.db", f"{link.as_uri()}/mlartifacts/models/{first_model(old)}") == []


def first_model(home: Path) -> str:
    """The folder of the first logged model."""
    with closing(sqlite3.connect(home / "mlflow.db")) as connection:
        return connection.execute("SELECT model_id FROM logged_models ORDER BY creation_timestamp_ms").fetchone()[0]


def test_empty_default_experiment_is_in_the_home(old: Path) -> None:
    location = tracking_of(old).client()().get_experiment("0").artifact_location
    assert location == f"{old.as_uri()}/mlartifacts/0"


def test_configured_store_is_left_unchanged(old: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(old, copy)
    before = tree(copy)
    MlflowTracking(home=SynthHome(folder=str(copy)), tracking_uri=f"sqlite:///{tmp_path / 'other.db'}").initialise()
    assert tree(copy) == before


@pytest.mark.parametrize("damage", [b"not a database", b"SQLite format 3\0", None])
def test_damaged_database_raises_with_the_remedy(old: Path, damage: bytes | None) -> None:
    database = old / "mlflow.db"
    database.write_bytes(database.read_bytes()[: database.stat().st_size // 2] if damage is None else damage)
    with pytest.raises(StorageError, match="restore it from a backup") as raised:
        tracking_of(old).tracker()
    assert str(database) in str(raised.value)


def test_interrupted_rewrite_leaves_the_old_addresses(
    old: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(old, copy)
    before = mentions(copy / "mlflow.db", str(old))

    def killed(*_: object) -> int:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("synth_assets.registry.relocation._fetch_stray_artifacts", killed)
        with pytest.raises(KeyboardInterrupt):
            tracking_of(copy).tracker()
    assert mentions(copy / "mlflow.db", str(old)) == before
    check_serves(copy, tmp_path)
