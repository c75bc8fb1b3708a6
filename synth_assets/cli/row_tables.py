"""Tables of the rows page: search, filter and page through stored tables with lazy scans."""

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl

from synth_assets.evals.suite import SEALED
from synth_assets.schemas.preference_rounds import ROUNDS
from synth_assets.storage.stored_files import naming_damaged

PAGE_ROWS = 50
MAX_PREVIEW_CHARACTERS = 300  # of a text in the list; the selected row shows all of it
MAX_CHOICES = 200  # values of a filter that are offered
MAX_SEARCH_CHARACTERS = 500
NOT_SET = "(none)"  # stands for null among the values of a filter


@dataclass(frozen=True)
class TableView:
    """A table of the page.

    Attributes:
        title: its name on the page.
        files: patterns of its Parquet files below `tables/`.
        row: column with the id of a row; unique together with `keys`.
        texts: columns that are searched and shown.
        filters: columns with a filter.
        facts: further columns that are shown.
        keys: further columns of the key.
        reviewed: whether a person may keep, reject or edit its rows.
        explained: whether `synth why` explains its rows, so that they can be recalled.
    """

    title: str
    files: tuple[str, ...]
    row: str
    texts: tuple[str, ...]
    filters: tuple[str, ...]
    facts: tuple[str, ...] = ()
    keys: tuple[str, ...] = ()
    reviewed: bool = False
    explained: bool = True


INSTRUCTION_TEXTS = ("instruction", "response")
PAIR_TEXTS = ("instruction", "chosen", "rejected")
ORIGIN = ("source", "batch", "topic")
TABLES: Mapping[str, TableView] = {
    "raw": TableView(
        "Raw", ("raw_instructions/*.parquet", "imported_instructions.parquet"), "row_id", INSTRUCTION_TEXTS, ORIGIN,
        reviewed=True,
    ),
    "kept": TableView(
        "Kept", ("filtered_instructions.parquet",), "row_id", INSTRUCTION_TEXTS, ORIGIN, ("score",), reviewed=True
    ),
    "rejected": TableView(
        "Rejected", ("rejected_instructions.parquet",), "row_id", INSTRUCTION_TEXTS, ("reason", *ORIGIN),
        ("reason", "detail"), reviewed=True,
    ),
    "pairs": TableView(
        "Pairs", tuple(f"{round_.pairs}.parquet" for round_ in ROUNDS), "row_id", PAIR_TEXTS, ("source", "split"),
        ("chosen_reward", "rejected_reward", "margin"), ("pair_id",),
    ),
    "rejected-pairs": TableView(
        "Rejected pairs", ("rejected_preferences.parquet",), "row_id", PAIR_TEXTS, ("reason", "source"),
        ("reason", "detail"), ("pair_id",),
    ),
    "answers": TableView(
        "Answers", ("benchmark_scores.parquet",), "item_id", ("response",), ("model", "suite", "split", "metric"),
        ("model", "metric", "score", "finish_reason"), ("model", "metric"), explained=False,
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Query:
    """A search.

    Attributes:
        search: text to find in any text of a row, or the beginning of its id.
        filters: value by column.
        page: number of the page, from 1.
        only: ids of the rows to show; None: all.
        without: ids of rows to leave out.
    """

    search: str = ""
    filters: Mapping[str, str] = field(default_factory=dict)
    page: int = 1
    only: frozenset[str] | None = None
    without: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Page:
    """Rows of a page with shortened texts, and whether there is a next page."""

    rows: list[dict[str, Any]]
    more: bool


def table_files(home: Path, view: TableView) -> list[Path]:
    """Return the stored files of a table, in a fixed order; empty if it was never materialised."""
    return [path for pattern in view.files for path in sorted((home / "tables").glob(pattern))]


def matching_rows(home: Path, view: TableView, query: Query) -> pl.LazyFrame | None:
    """Return the rows of a table that match a query, lazily; None if the table was never materialised."""
    files = table_files(home, view)
    if not files:
        return None
    columns = [view.row, *view.keys, *view.texts, *view.filters, *view.facts]
    scans = [pl.scan_parquet(path, glob=False) for path in files]
    rows = pl.concat([scan.select(list(dict.fromkeys(columns))) for scan in scans], how="vertical_relaxed")
    return rows.filter(_conditions(view, query))


def read_page(home: Path, view: TableView, query: Query) -> Page:
    """Return one page of the rows that match a query."""
    rows = matching_rows(home, view, query)
    if rows is None:
        return Page([], more=False)
    short = [pl.col(name).str.slice(0, MAX_PREVIEW_CHARACTERS) for name in view.texts]
    with naming_damaged(table_files(home, view)):
        part = rows.slice((query.page - 1) * PAGE_ROWS, PAGE_ROWS + 1).with_columns(short).collect(engine="streaming")
    return Page(part.head(PAGE_ROWS).to_dicts(), more=part.height > PAGE_ROWS)


def count_rows(home: Path, view: TableView, query: Query) -> int:
    """Return the number of rows that match a query."""
    rows = matching_rows(home, view, query)
    if rows is None:
        return 0
    with naming_damaged(table_files(home, view)):
        return rows.select(pl.len()).collect(engine="streaming").item()


def filter_choices(home: Path, view: TableView) -> dict[str, list[tuple[str, int]]]:
    """Return the values of each filter with their row counts, most frequent first."""
    files = table_files(home, view)
    return _choices(view, tuple((path, path.stat().st_mtime_ns) for path in files))


def read_row(home: Path, view: TableView, keys: Sequence[str]) -> dict[str, Any] | None:
    """Return all columns of one row, by its id and further keys; None if the table has no such row."""
    names = (view.row, *view.keys)
    if len(keys) != len(names):
        raise ValueError(f"a row of {view.title} is named by {', '.join(names)}, got {len(keys)} values")
    files = table_files(home, view)
    conditions = [pl.col(name) == value for name, value in zip(names, keys, strict=True)]
    shown = pl.lit(True) if "split" not in view.filters else pl.col("split").ne_missing(SEALED)
    for path in files:
        with naming_damaged([path]):
            rows = pl.scan_parquet(path, glob=False).filter(*conditions, shown).head(1).collect()
        if rows.height:
            return rows.to_dicts()[0]
    return None


def item_prompt(home: Path, item_id: str) -> dict[str, Any]:
    """Return prompt, choices and answer of a benchmark item; empty if it is not stored or sealed."""
    path = home / "tables" / "benchmark_items.parquet"
    if not path.is_file():
        return {}
    chosen = pl.scan_parquet(path, glob=False).filter(pl.col("item_id") == item_id, pl.col("split") != SEALED)
    with naming_damaged([path]):
        rows = chosen.select("prompt", "choices", "answer").head(1).collect().to_dicts()
    return rows[0] if rows else {}


def _conditions(view: TableView, query: Query) -> pl.Expr:
    conditions = [pl.lit(True)]
    if "split" in view.filters:
        conditions.append(pl.col("split").ne_missing(SEALED))
    for name, value in query.filters.items():
        if value and name in view.filters:
            conditions.append(pl.col(name).is_null() if value == NOT_SET else pl.col(name) == value)
    if query.only is not None:
        conditions.append(pl.col(view.row).is_in(sorted(query.only)))
    if query.without:
        conditions.append(~pl.col(view.row).is_in(sorted(query.without)))
    if search := query.search.strip()[:MAX_SEARCH_CHARACTERS]:
        pattern = f"(?i){pl.escape_regex(search)}"
        matches = [pl.col(name).str.contains(pattern) for name in view.texts]
        conditions.append(pl.any_horizontal(*matches, pl.col(view.row).str.starts_with(search)))
    return pl.all_horizontal(conditions)


@functools.lru_cache(maxsize=32)
def _choices(view: TableView, files: tuple[tuple[Path, int], ...]) -> dict[str, list[tuple[str, int]]]:
    """Return the values of each filter; the files' modification times make the cache key."""
    if not files:
        return {name: [] for name in view.filters}
    paths = [path for path, _ in files]
    rows = pl.concat(
        [pl.scan_parquet(path, glob=False).select(list(view.filters)) for path in paths], how="vertical_relaxed"
    )
    if "split" in view.filters:
        rows = rows.filter(pl.col("split").ne_missing(SEALED))
    counts = [
        rows.group_by(name).len().sort("len", name, descending=[True, False]).head(MAX_CHOICES) for name in view.filters
    ]
    with naming_damaged(paths):
        tables = pl.collect_all(counts, engine="streaming")
    return {
        name: [(value if value is not None else NOT_SET, count) for value, count in table.iter_rows()]
        for name, table in zip(view.filters, tables, strict=True)
    }
