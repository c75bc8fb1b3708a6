"""One cell and seed of the study: which rows it sees, and the numbers of a trained variant."""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import polars as pl

from synth_assets.schemas.records import AdapterRecord, ModelRecord
from synth_assets.schemas.serialization import fingerprint
from synth_assets.schemas.settings import setting
from synth_assets.schemas.tier import Tier
from synth_assets.stages.efficiency.grid import ALPHA_PER_RANK, Cell
from synth_assets.storage.blocks import Block, Progress, compute_blocks, read_blocks
from synth_assets.storage.manifests import content_hash, folder_hash
from synth_assets.training.adapter_store import library_versions
from synth_assets.training.data import by_split, encode_rows
from synth_assets.training.methods import METHODS
from synth_assets.training.specs import LoraSpec, spec_settings
from synth_assets.training.validation import token_scores

SELECTING, TESTING = "validation", "test"
LOSSES = pl.Schema({"split": pl.String, "loss": pl.Float64, "perplexity": pl.Float64, "tokens": pl.Int64})


@dataclass(frozen=True)
class StudySpec:
    """What every cell of a study has in common.

    Attributes:
        train_rows: at most so many, drawn by hash; 0 takes all.
        epochs: None: those of LoraSpec.
        items: at most so many validation items of the suite that decides, drawn by hash; 0 takes all.
    """

    train_rows: int = setting(0, "Most training rows, selected by hash; 0: all.")
    epochs: float | None = setting(None, "Passes over the rows; unset: those of LoRA.")
    items: int = setting(0, "Most validation items, selected by hash; 0: all.")

    def __post_init__(self) -> None:
        """Refuse numbers below 0; ValueError names the field."""
        for name in ("train_rows", "items"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must be at least 0, not {getattr(self, name)}")
        if self.epochs is not None and self.epochs <= 0:
            raise ValueError(f"epochs must be above 0, not {self.epochs}")


@dataclass(frozen=True)
class Study:
    """What the variants of a study share: SFT_ROWS with the split "test", BENCHMARK_ITEMS, settings.

    `basis` is the fingerprint of all that; variants of another basis do not compare.
    """

    base: ModelRecord
    rows: pl.DataFrame
    items: pl.DataFrame
    spec: StudySpec
    lora: LoraSpec
    basis: str

    def training_of(self, cell: Cell, seed: int) -> LoraSpec:
        """The training of a cell: the tier's LoRA with the cell's factors and the seed."""
        return replace(
            self.lora,
            rank=cell.rank,
            alpha=ALPHA_PER_RANK * cell.rank,
            target_modules=cell.targets,
            seed=seed,
            epochs=self.spec.epochs or self.lora.epochs,
        )


@dataclass(frozen=True)
class Variant:
    """What one training of the study gave; `not_run` and `failure` say why nothing was measured.

    `basis` is the study's. Losses are in nats a token: of the
    validation rows that selected the weights, and of test rows that nothing selected by. `score` is on the validation
    items of the suite that decides.
    """

    name: str
    rank: int
    modules: str
    quantisation: str
    seed: int
    basis: str
    adapter: str = ""  # fingerprint
    path: str = ""  # of the adapter under SYNTH_HOME
    manifest_sha256: str = ""
    weights: str = ""  # hash of the adapter's files
    spec: Mapping[str, Any] = field(default_factory=dict)
    rows: Mapping[str, int] = field(default_factory=dict)  # split to number
    numbers: Mapping[str, float] = field(default_factory=dict)
    peak_memory_kind: Literal["measured", "derived"] = "derived"
    suite: str = ""
    metric: str = ""
    mlflow_run_id: str = ""
    not_run: str = ""
    failure: str = ""

    @property
    def measured(self) -> bool:
        """Whether it has numbers."""
        return not (self.not_run or self.failure)

    @property
    def cell(self) -> str:
        """The name of its cell."""
        return Cell(self.rank, self.modules, self.quantisation).name


def variant_of(cell: Cell, seed: int, basis: str) -> Variant:
    """A variant of which nothing was measured yet."""
    return Variant(cell.variant(seed), cell.rank, cell.modules, cell.quantisation, seed, basis)


def study_rows(rows: pl.DataFrame, study: StudySpec) -> pl.DataFrame:
    """SFT_ROWS of the study, with the split "test" beside "train" and "validation".

    The validation rows are divided into halves by near-duplicate group, in an order drawn by hash: one selects the
    weights of each training, the other is the test. Of the training rows as many as the spec asks for, by hash.

    Raises:
        ValueError: the validation rows form fewer than two groups.
    """
    train, held_out = by_split(rows)
    if study.train_rows and study.train_rows < train.height:
        order = train["row_id"].map_elements(_draw, return_dtype=pl.String).rank("ordinal")
        train = train.filter(order <= study.train_rows)
    sizes = held_out["group"].value_counts(name="rows")
    if sizes.height < 2:
        raise ValueError(f"{held_out.height} validation rows form {sizes.height} group: a test half needs another")
    drawn = sizes.with_columns(pl.col("group").map_elements(_draw, return_dtype=pl.String).alias("draw")).sort("draw")
    before = pl.col("rows").cum_sum() - pl.col("rows")
    testing = drawn.filter(before < held_out.height // 2)["group"]
    side = pl.when(pl.col("group").is_in(testing.implode())).then(pl.lit(TESTING)).otherwise(pl.lit(SELECTING))
    return pl.concat([train, held_out.with_columns(side.alias("split"))])


def study_items(items: pl.DataFrame) -> pl.DataFrame:
    """The validation items of the suite that decides: settings are chosen by the study, so it sees no test item.

    Raises:
        ValueError: there is none.
    """
    found = items.filter(split="validation", suite=items["suite"][0]) if items.height else items
    if found.is_empty():
        raise ValueError("benchmark_items has no validation item of its first suite to score the variants on")
    return found


def study_of(
    base: ModelRecord, tables: tuple[pl.DataFrame, pl.DataFrame], specs: tuple[StudySpec, LoraSpec], tier: Tier
) -> Study:
    """The study of a base on (SFT_ROWS, BENCHMARK_ITEMS); errors as of `study_rows` and `study_items`."""
    rows, items = study_rows(tables[0], specs[0]), study_items(tables[1])
    arithmetic = [tier.device, tier.dtype, tier.attention, tier.grouping, tier.batch_size, tier.accumulation]
    made_by = [METHODS["lora"].code_version, library_versions(), arithmetic]
    settings = [asdict(specs[0]), spec_settings(specs[1])]
    basis = fingerprint(base.revision, content_hash(rows), content_hash(items), *settings, made_by)
    return Study(base, rows, items, *specs, basis)


def missing_support(quantisation: str) -> str:
    """Why this machine cannot load a base in a quantisation, or nothing."""
    if quantisation != "none" and find_spec("bitsandbytes") is None:
        return f"{quantisation} needs bitsandbytes: pip install -c constraints.txt -e '.[cuda]', also without a GPU"
    return ""


def losses(
    subject: tuple[Callable[[], tuple[Any, Any]], str],
    rows: pl.DataFrame,
    context_tokens: int,
    batch: int,
    *,
    folder: Path,
    progress: Progress,
) -> pl.DataFrame:
    """LOSSES on validation and test rows; read where the same weights were measured on the same rows before.

    Args:
        subject: what makes (model with adapter, tokenizer), and the hash of the model's weights and arithmetic.
        rows: of `study_rows`.
        context_tokens: the base's longest sequence.
        batch: rows in one forward pass.
        folder: where the numbers are kept.
        progress: is told where they were known.
    """
    load, weights = subject
    held_out = rows.filter(pl.col("split") != "train")

    def measure(table: pl.DataFrame) -> pl.DataFrame:
        model, tokenizer = load()
        model.eval()
        found = []
        for split in (SELECTING, TESTING):
            examples = encode_rows(table.filter(split=split), tokenizer, context_tokens)
            tokens = sum(len(example.answer) for example in examples)
            found.append({"split": split, "tokens": tokens} | token_scores(model, examples, batch))
        return pl.DataFrame(found, schema=LOSSES)

    key = fingerprint("losses", weights, content_hash(held_out), batch)
    shards = compute_blocks([Block(key, 1, held_out)], measure, folder, what="losses", progress=progress)
    return read_blocks(shards, LOSSES)


def measured_variant(
    variant: Variant, record: AdapterRecord, folder: Path, found: pl.DataFrame, score: tuple[str, str, float, int]
) -> Variant:
    """The variant with its numbers.

    Args:
        variant: of `variant_of`.
        record: of its training.
        folder: the adapter's.
        found: LOSSES.
        score: suite, metric, value, items.
    """
    suite, metric, value, items = score
    held_out = {
        f"{row['split']}_{name}": float(row[name])
        for row in found.iter_rows(named=True)
        for name in ("loss", "perplexity", "tokens")
    }
    return replace(
        variant,
        adapter=record.fingerprint,
        path=record.path,
        manifest_sha256=record.manifest_sha256,
        weights=folder_hash(folder),
        spec=dict(record.spec),
        peak_memory_kind=record.peak_memory_kind,
        suite=suite,
        metric=metric,
        numbers=held_out
        | {
            "score": value,
            "items": float(items),
            "trainable_parameters": float(record.trainable_parameters),
            "total_parameters": float(record.total_parameters),
            "adapter_bytes": float(sum(path.stat().st_size for path in folder.glob("*.safetensors"))),
            "peak_memory_bytes": float(record.peak_memory_bytes),
            "tokens_per_s": record.tokens_per_s,
            "seconds": record.seconds,
            "final_loss": record.final_loss,
        },
    )


def settings_of(variant: Variant) -> dict[str, str]:
    """What a variant is found by in MLflow."""
    kept = ("rank", "modules", "quantisation", "seed", "basis", "cell")
    return {"variant": variant.name, **{name: str(getattr(variant, name)) for name in kept}}


def version_of(variant: Variant) -> str:
    """Sixteen hex digits of a variant; the MLflow run, which a rerun may make anew, is not in it."""
    return fingerprint(asdict(replace(variant, mlflow_run_id="")))


def _draw(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()
