"""Rows, items and measurements of the variants of a study."""

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
from synth_assets.stages.efficiency.grid import ALPHA_PER_RANK, VARIANTS, Cell
from synth_assets.storage.blocks import Block, Progress, compute_blocks, read_blocks
from synth_assets.storage.manifests import content_hash, folder_hash
from synth_assets.training.adapter_store import library_versions
from synth_assets.training.data import by_split, encode_rows
from synth_assets.training.methods import METHODS
from synth_assets.training.specs import LoraSpec, spec_settings
from synth_assets.training.validation import token_scores

SELECTION, TEST = "validation", "test"
LOSSES = pl.Schema({"split": pl.String, "loss": pl.Float64, "perplexity": pl.Float64, "tokens": pl.Int64})


@dataclass(frozen=True)
class StudySpec:
    """Settings common to all cells of a study.

    Attributes:
        train_rows: maximum number of training rows, selected by hash; 0: all.
        epochs: epochs; None: those of LoraSpec.
        items: maximum number of validation items of the deciding suite, selected by hash; 0: all.
    """

    train_rows: int = setting(0, "Most training rows, selected by hash; 0: all.")
    epochs: float | None = setting(None, "Passes over the rows; unset: those of LoRA.")
    items: int = setting(0, "Most validation items, selected by hash; 0: all.")

    def __post_init__(self) -> None:
        """Raise ValueError with the name of an invalid field."""
        for name in ("train_rows", "items"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must be at least 0, got {getattr(self, name)}")
        if self.epochs is not None and self.epochs <= 0:
            raise ValueError(f"epochs must be above 0, got {self.epochs}")


VARIANT_CODE_VERSION = fingerprint(METHODS["lora"].code_version, StudySpec())


@dataclass(frozen=True)
class Study:
    """Data and settings of a study: SFT_ROWS with the split "test", BENCHMARK_ITEMS, specs.

    `basis` is their fingerprint; variants of another basis are not comparable.
    """

    base: ModelRecord
    rows: pl.DataFrame
    items: pl.DataFrame
    spec: StudySpec
    lora: LoraSpec
    basis: str

    def training_of(self, cell: Cell, seed: int) -> LoraSpec:
        """Return the training spec of a cell: the tier's LoRA with the cell's factors and the seed."""
        return replace(
            self.lora,
            rank=cell.rank,
            alpha=ALPHA_PER_RANK * cell.rank,
            target_modules=cell.targets,
            seed=seed,
            epochs=self.spec.epochs or self.lora.epochs,
        )

    def test_prompts(self, limit: int) -> list[str]:
        """Return the instructions of the first test rows by row id."""
        return self.rows.filter(split=TEST).sort("row_id")["instruction"].head(limit).to_list()


@dataclass(frozen=True)
class Variant:
    """Result of one training of a study; `not_run` or `failure` is the reason for missing measurements.

    Losses are in nats per token: on the validation rows that selected the weights, and on the test rows. `score` is on
    the validation items of the deciding suite.
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
    rows: Mapping[str, int] = field(default_factory=dict)  # number of rows by split
    numbers: Mapping[str, float] = field(default_factory=dict)
    peak_memory_kind: Literal["measured", "derived"] = "derived"
    suite: str = ""
    metric: str = ""
    mlflow_run_id: str = ""
    not_run: str = ""
    failure: str = ""

    @property
    def measured(self) -> bool:
        """Whether it has measurements."""
        return not (self.not_run or self.failure)

    @property
    def cell(self) -> str:
        """Name of its cell."""
        return Cell(self.rank, self.modules, self.quantisation).name


def variant_named(name: str, basis: str) -> Variant:
    """Return the variant of a partition, without measurements."""
    return variant_of(*VARIANTS[name], basis)


def variant_of(cell: Cell, seed: int, basis: str) -> Variant:
    """Return a variant without measurements."""
    return Variant(cell.variant(seed), cell.rank, cell.modules, cell.quantisation, seed, basis)


def first_seeds(variants: Mapping[str, Variant], basis: str) -> list[Variant]:
    """Return one measured variant of each cell, in the order of the grid."""
    by_cell: dict[Cell, Variant] = {}
    for name, (cell, _) in VARIANTS.items():
        variant = variants.get(name)
        if variant and variant.measured and variant.basis == basis:
            by_cell.setdefault(cell, variant)
    return list(by_cell.values())


def study_rows(rows: pl.DataFrame, study: StudySpec) -> pl.DataFrame:
    """Return SFT_ROWS of the study with the splits "train", "validation" and "test".

    The validation rows are divided into halves by near-duplicate group, in an order by hash: one half selects the
    weights of each training, the other is the test set. Training rows are limited by the spec, selected by hash.

    Raises:
        ValueError: the validation rows form fewer than two groups.
    """
    train, held_out = by_split(rows)
    if study.train_rows and study.train_rows < train.height:
        order = train["row_id"].map_elements(_draw, return_dtype=pl.String).rank("ordinal")
        train = train.filter(order <= study.train_rows)
    sizes = held_out["group"].value_counts(name="rows")
    if sizes.height < 2:
        raise ValueError(
            f"the study needs at least 2 groups of validation rows, got {sizes.height} of {held_out.height} rows"
        )
    shuffled = sizes.with_columns(pl.col("group").map_elements(_draw, return_dtype=pl.String).alias("draw")).sort(
        "draw"
    )
    before = pl.col("rows").cum_sum() - pl.col("rows")
    testing = shuffled.filter(before < held_out.height // 2)["group"]
    side = pl.when(pl.col("group").is_in(testing.implode())).then(pl.lit(TEST)).otherwise(pl.lit(SELECTION))
    return pl.concat([train, held_out.with_columns(side.alias("split"))])


def study_items(items: pl.DataFrame) -> pl.DataFrame:
    """Return the validation items of the deciding suite: the study selects settings, so that it uses no test items.

    Raises:
        ValueError: there are none.
    """
    validation = items.filter(split="validation", suite=items["suite"][0]) if items.height else items
    if validation.is_empty():
        raise ValueError("benchmark_items has no validation item of its first suite to score the variants on")
    return validation


def study_specs(resolve: Callable[[Any], Any]) -> tuple[StudySpec, LoraSpec]:
    """Return the specs of a study; `resolve` applies the settings of the model and the tier to a default."""
    return resolve(StudySpec()), resolve(LoraSpec())


def study_of(
    base: ModelRecord, tables: tuple[pl.DataFrame, pl.DataFrame], specs: tuple[StudySpec, LoraSpec], tier: Tier
) -> Study:
    """Return the study of a base on (SFT_ROWS, BENCHMARK_ITEMS); errors as of `study_rows` and `study_items`."""
    rows, items = study_rows(tables[0], specs[0]), study_items(tables[1])
    arithmetic = [tier.device, tier.dtype, tier.attention, tier.grouping, tier.batch_size, tier.accumulation]
    code = [METHODS["lora"].code_version, library_versions(), arithmetic]
    settings = [asdict(specs[0]), spec_settings(specs[1])]
    basis = fingerprint(base.revision, content_hash(rows), content_hash(items), *settings, code)
    return Study(base, rows, items, *specs, basis)


def missing_support(quantisation: str) -> str:
    """Return why this machine cannot load a base with a quantisation, or ""."""
    if quantisation != "none" and find_spec("bitsandbytes") is None:
        return f"{quantisation} needs bitsandbytes: pip install -c constraints.txt -e '.[cuda]', with or without a GPU"
    return ""


def held_out_losses(
    model: tuple[Callable[[], tuple[Any, Any]], str],
    rows: pl.DataFrame,
    context_tokens: int,
    batch: int,
    *,
    folder: Path,
    progress: Progress,
) -> pl.DataFrame:
    """Return LOSSES on validation and test rows; results stored for the same weights and rows are reused.

    Args:
        model: loader of (model with adapter, tokenizer), and the hash of the model's weights and arithmetic.
        rows: rows of `study_rows`.
        context_tokens: longest sequence of the base.
        batch: rows in one forward pass.
        folder: folder of the stored results.
        progress: receives a line about stored results.
    """
    load, weights = model
    held_out = rows.filter(pl.col("split") != "train")

    def measure(table: pl.DataFrame) -> pl.DataFrame:
        model, tokenizer = load()
        model.eval()
        records = []
        for split in (SELECTION, TEST):
            examples = encode_rows(table.filter(split=split), tokenizer, context_tokens)
            tokens = sum(len(example.answer) for example in examples)
            records.append({"split": split, "tokens": tokens} | token_scores(model, examples, batch))
        return pl.DataFrame(records, schema=LOSSES)

    key = fingerprint("losses", weights, content_hash(held_out), batch)
    shards = compute_blocks([Block(key, 1, held_out)], measure, folder, what="losses", progress=progress)
    return read_blocks(shards, LOSSES)


def measured_variant(
    variant: Variant, record: AdapterRecord, folder: Path, losses: pl.DataFrame, score: tuple[str, str, float, int]
) -> Variant:
    """Return the variant with its measurements.

    Args:
        variant: variant of `variant_of`.
        record: record of its training.
        folder: folder of the adapter.
        losses: LOSSES.
        score: suite, metric, value, items.
    """
    suite, metric, value, items = score
    held_out = {
        f"{row['split']}_{name}": float(row[name])
        for row in losses.iter_rows(named=True)
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


def identity_of(variant: Variant) -> dict[str, str]:
    """Return the tags that identify a variant in MLflow."""
    fields = ("rank", "modules", "quantisation", "seed", "basis", "cell")
    return {"variant": variant.name, **{name: str(getattr(variant, name)) for name in fields}}


def data_version_of(variant: Variant) -> str:
    """Return the data version of a variant, independent of the MLflow run, which a rerun may create again."""
    return fingerprint(asdict(replace(variant, mlflow_run_id="")))


def _draw(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()
