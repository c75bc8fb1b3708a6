"""What the tables of a deployment say about single rows: how they were made, what became of them, where they are."""

import textwrap
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from synth_assets.reporting.escaping import terminal_line
from synth_assets.schemas.preference_rounds import ON_POLICY, ROUNDS
from synth_assets.schemas.tables import INSTRUCTIONS
from synth_assets.stages.filtering.preferences import PREFIX
from synth_assets.stages.filtering.rules import RULES
from synth_assets.stages.generation.import_store import line_of, stored_imports
from synth_assets.storage.lineage import ModelVersion, fates_of
from synth_assets.storage.stored_files import naming_damaged
from synth_assets.training.methods import ADAPTERS

WIDTH = 80
LABEL = 10
TEXT_CHARACTERS = 400
REJECTS = ("rejected_instructions", "rejected_preferences")
DATASETS = (
    "filtered_instructions",
    "sft_dataset",
    "response_candidates",
    "filtered_preferences",
    "preference_pairs",
    *(name for one in ON_POLICY for name in (one.candidates, one.pairs)),
)
MADE = [name for name in INSTRUCTIONS.names() if name not in ("instruction", "response", "history")]


def entry(label: str, text: str) -> str:
    """A label and its text, wrapped so that the text forms a column and no line is over WIDTH."""
    lines = textwrap.wrap(text, WIDTH - LABEL, break_on_hyphens=False) or [""]
    return "\n".join([f"{label:{LABEL}}{lines[0]}", *(f"{'':{LABEL}}{line}" for line in lines[1:])])


def rows_made(home: Path, row_ids: Sequence[str]) -> pl.DataFrame:
    """INSTRUCTIONS of these rows, from the tables and, for rows that are in no table now, the generator's blocks."""
    tables = home / "tables"
    found = _with_ids([*tables.glob("raw_instructions/*.parquet"), tables / "imported_instructions.parquet"], row_ids)
    missing = set(row_ids) - set(found["row_id"])
    if missing:
        shards = sorted((home / "shards" / "generation").glob("*.parquet"))
        found = pl.concat([found, _with_ids(shards, sorted(missing))])
    return found.unique("row_id", keep="first", maintain_order=True)


def table_rows(home: Path, asset: str, row_id: str) -> list[dict[str, Any]]:
    """The rows of this id in the present table of an asset; none where it was never materialised."""
    path = home / "tables" / f"{asset}.parquet"
    if not path.is_file():
        return []
    with naming_damaged([path]):
        return pl.scan_parquet(path, glob=False).filter(pl.col("row_id") == row_id).collect().to_dicts()


def present_pairs(home: Path, row_id: str) -> list[dict[str, Any]]:
    """The pairs of this row in the present tables of all rounds, each once."""
    found = [pair for one in ROUNDS for pair in table_rows(home, one.pairs, row_id)]
    return [*{pair["pair_id"]: pair for pair in found}.values()]


def row_story(home: Path, row_id: str) -> list[str]:
    """What became of a row, where it came from and what it says, in lines of at most WIDTH columns."""
    made = rows_made(home, [row_id]).to_dicts()
    pairs = table_rows(home, "imported_preferences", row_id)
    lines = [entry("row", row_id), *_fate(home, row_id)]
    for row in made or pairs:
        lines.append(entry("from", _origin(home, row)))
        lines += [entry("made by", text) for text in _making(row)]
        lines += _texts(row)
    if not (made or pairs):
        lines.append(entry("texts", "gone: no table or block that is kept holds this row any more"))
    return [*lines, entry("in", _whereabouts(home, row_id))]


def pair_lines(pair: dict[str, Any]) -> list[str]:
    """A preference pair: its id, its rewards where it has any, and both sides."""
    scored = pair.get("margin") is not None
    rewards = (
        f", reward {pair['chosen_reward']:.3f} over {pair['rejected_reward']:.3f}, margin {pair['margin']:.3f}"
        if scored
        else ", imported: no rewards"
    )
    texts = [entry(side, terminal_line(pair[side], TEXT_CHARACTERS)) for side in ("chosen", "rejected") if side in pair]
    return [entry("pair", f"{pair['pair_id']}{rewards}"), *texts]


def trained_versions(manifests: Path, row_ids: Iterable[str], versions: Sequence[ModelVersion]) -> list[ModelVersion]:
    """The versions that any of these rows was trained into, by their own training or by one that they continue."""
    fates = fates_of(manifests, row_ids).filter(pl.col("asset").is_in(ADAPTERS))
    touched = set(fates.select("asset", "data_version").iter_rows())
    return [version for version in versions if touched & set(version.trainings())]


def _with_ids(paths: Iterable[Path], row_ids: Sequence[str]) -> pl.DataFrame:
    files = [path for path in paths if path.is_file()]
    scans = [pl.scan_parquet(path, glob=False).filter(pl.col("row_id").is_in(row_ids)) for path in files]
    known = INSTRUCTIONS.names()
    with naming_damaged(files):
        found = pl.collect_all(scans)
    parts = [part.select(name for name in known if name in part.columns) for part in found]
    return pl.concat([INSTRUCTIONS.to_frame(), *parts], how="diagonal_relaxed").select(known)


def _fate(home: Path, row_id: str) -> list[str]:
    rejected = [found for asset in REJECTS for found in table_rows(home, asset, row_id)]
    if rejected:
        return _rejection(rejected[0])
    if kept := table_rows(home, "filtered_instructions", row_id):
        return [entry("fate", f"kept, score {kept[0]['score']:.2f} (1: far from every limit, 0: at one)")]
    if table_rows(home, "preference_pairs", row_id):
        return [entry("fate", "kept: it is in preference_pairs")]
    return [entry("fate", "not judged by the filter of the present tables; see `in`")]


def _rejection(row: dict[str, Any]) -> list[str]:
    reason = row["reason"].removeprefix(PREFIX)  # of a pair, what speaks against its rejected side
    rule = next((rule for rule in RULES if rule.reason == reason), None)
    family = rule.family if rule else "duplicates, benchmarks and recalls"
    lines = [entry("fate", f"rejected: {row['reason']} ({family})")]
    if row["detail"]:
        lines.append(entry("because", terminal_line(row["detail"])))
    if rule and rule.limit and rule.limit != "context_tokens":
        judge = "filtered_preferences" if "chosen" in row else "filtered_instructions"
        lines.append(entry("limit", f"{rule.limit}; other for one run: synth run --set {judge}.{rule.limit}=VALUE"))
    return lines


def _origin(home: Path, row: dict[str, Any]) -> str:
    imports = {stored.name: stored for stored in stored_imports(home / "imports")}
    if (stored := imports.get(row["source"])) is not None:
        line = line_of(stored, row["row_id"])
        return f"{row['source']}, line {line}" if line else f"{row['source']}, which does not hold it any more"
    return f"{row['source']}, batch {row['batch']}" if row.get("batch") else str(row["source"])


def _making(row: dict[str, Any]) -> list[str]:
    if not row.get("model"):
        return []
    ends = ", ".join(
        f"{side} {row[f'{side}_tokens']} tokens ({row[f'{side}_finish_reason']})"
        for side in ("instruction", "response")
    )
    return [
        f"{row['model']} at {row['revision']}, {row['engine']}, seed {row['seed']}, temperature "
        f"{row['temperature']:g} for the instruction and {row['response_temperature']:g} for the response, "
        f"top-p {row['top_p']:g}; {ends}"
    ]


def _texts(row: dict[str, Any]) -> list[str]:
    earlier = [(turn["role"], turn["content"]) for turn in row.get("history") or ()]
    said = [*earlier, ("asked", row["instruction"])]
    said += [(side, row[side]) for side in ("response", "chosen", "rejected") if side in row]
    return [
        entry("answered" if name == "response" else str(name), terminal_line(text or "", TEXT_CHARACTERS))
        for name, text in said
    ]


def _whereabouts(home: Path, row_id: str) -> str:
    told = []
    for asset in DATASETS:
        rows = table_rows(home, asset, row_id)
        if rows:
            splits = sorted({row["split"] for row in rows if row.get("split")})
            told.append(f"{asset} ({', '.join(splits)})" if splits else asset)
    return ", ".join(told) or "no dataset now"
