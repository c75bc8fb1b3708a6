"""Asset of the stage benchmarks: the items that models are scored on and training data must not contain."""

import dagster as dg
import polars as pl
from pydantic import Field

from resources.hardware import Hardware
from resources.storage import SynthHome
from synth_assets.evals.suite import item_table, items_of, null_scores
from synth_assets.evals.suites import SUITES, find_suites
from synth_assets.reporting.escaping import escaped_sample

SAMPLE_ROWS = 5


class BenchmarksConfig(dg.Config):
    """Suites of one run instead of the tier's; the first suite selects the candidate.

    All items of the suites in `sealed` are reserved for promotions.
    """

    suites: list[str] | None = Field(
        None, description="Suites to evaluate on; the first selects the candidate. Unset: the tier's."
    )
    sealed: list[str] | None = Field(None, description="Suites whose items are all sealed: scored at a promotion only.")


@dg.asset(group_name="benchmarks", kinds={"polars", "parquet"}, owners=["team:evaluation"])
def benchmark_items(config: BenchmarksConfig, hardware: Hardware, home: SynthHome) -> dg.MaterializeResult:
    """Collect all items of the suites, of every split; filtering rejects rows that contain one of them."""
    names = hardware.limits().suites if config.suites is None else config.suites
    items = item_table(find_suites(names), home.benchmarks(), config.sealed or ())
    test = items.filter(split="test")
    metadata = {
        "dagster/row_count": items.height,
        "items": dg.MetadataValue.md(_counts(items)),
        "null_models": dg.MetadataValue.json(
            {name: null_scores(SUITES[name], items_of(rows)) for name, rows in _by_suite(test).items()}
        ),
        "sample": dg.MetadataValue.md(
            escaped_sample(test.head(SAMPLE_ROWS).select("suite", "prompt", "answer").iter_rows(named=True))
        ),
    }
    return home.table_result("benchmark_items", items, metadata)


def _by_suite(items: pl.DataFrame) -> dict[str, pl.DataFrame]:
    parts = items.partition_by("suite", as_dict=True, maintain_order=True)
    return {str(name): rows for (name,), rows in parts.items()}


def _counts(items: pl.DataFrame) -> str:
    counted = items.group_by("suite", "split", maintain_order=True).agg(pl.len(), pl.col("cluster").n_unique())
    rows = [f"| {suite} | {split} | {n} | {clusters} |" for suite, split, n, clusters in counted.iter_rows()]
    return "\n".join(["| suite | split | items | clusters |", "|---|---|---:|---:|", *rows])
