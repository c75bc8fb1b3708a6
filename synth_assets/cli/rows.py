"""Look up single rows in the tables of a deployment: origin, filter decision, texts and datasets."""

import textwrap
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from synth_assets.cli.playground_votes import SOURCE, vote_line
from synth_assets.reporting.escaping import terminal_line
from synth_assets.schemas.preference_rounds import ON_POLICY, ROUNDS
from synth_assets.schemas.tables import INSTRUCTIONS
from synth_assets.stages.filtering.preferences import PREFIX
from synth_assets.stages.filtering.rules import RULES
from synth_assets.stages.generation.import_store import find_import, line_of, stored_imports
from synth_assets.storage.lineage import ModelVersion, fates_of
from synth_assets.storage.reviews import LOG, review_log, review_text, standing_reviews
from synth_assets.storage.stored_files import naming_damaged
from synth_assets.training.methods import ADAPTERS

WIDTH = 80
LABEL_WIDTH = 10
MAX_TEXT_CHARACTERS = 400
REJECTS = ("rejected_instructions", "rejected_preferences")
DATASETS = (
    "filtered_instructions",
    "sft_dataset",
    "response_candidates",
    "filtered_preferences",
    "preference_pairs",
    *(name for round_ in ON_POLICY for name in (round_.candidates, round_.pairs)),
)
GENERATION_COLUMNS = [name for name in INSTRUCTIONS.names() if name not in ("instruction", "response", "history")]


def entry(label: str, text: str) -> str:
    """Format a label and its text; the text is wrapped as a column, and no line is longer than WIDTH."""
    lines = textwrap.wrap(text, WIDTH - LABEL_WIDTH, break_on_hyphens=False) or [""]
    return "\n".join([f"{label:{LABEL_WIDTH}}{lines[0]}", *(f"{'':{LABEL_WIDTH}}{line}" for line in lines[1:])])


def generated_rows(home: Path, row_ids: Sequence[str]) -> pl.DataFrame:
    """Return the INSTRUCTIONS of these rows, from the tables or else from the cached blocks of the generator."""
    tables = home / "tables"
    rows = _with_ids([*tables.glob("raw_instructions/*.parquet"), tables / "imported_instructions.parquet"], row_ids)
    missing = set(row_ids) - set(rows["row_id"])
    if missing:
        shards = sorted((home / "shards" / "generation").glob("*.parquet"))
        rows = pl.concat([rows, _with_ids(shards, sorted(missing))])
    return rows.unique("row_id", keep="first", maintain_order=True)


def table_rows(home: Path, asset: str, row_id: str) -> list[dict[str, Any]]:
    """Return the rows with this id in the table of an asset; empty if the asset was never materialised."""
    path = home / "tables" / f"{asset}.parquet"
    if not path.is_file():
        return []
    with naming_damaged([path]):
        return pl.scan_parquet(path, glob=False).filter(pl.col("row_id") == row_id).collect().to_dicts()


def present_pairs(home: Path, row_id: str) -> list[dict[str, Any]]:
    """Return the distinct pairs of this row in the tables of all preference rounds."""
    pairs = [pair for round_ in ROUNDS for pair in table_rows(home, round_.pairs, row_id)]
    return [*{pair["pair_id"]: pair for pair in pairs}.values()]


def row_story(home: Path, row_id: str, *, with_reviews: bool = True) -> list[str]:
    """Describe a row in lines of at most WIDTH columns: filter decision, reviews, origin, texts and datasets."""
    instructions = generated_rows(home, [row_id]).to_dicts()
    pairs = table_rows(home, "imported_preferences", row_id)
    lines = [entry("row", row_id), *_fate(home, row_id), *(_reviews(home, row_id) if with_reviews else ())]
    for row in instructions or pairs:
        lines.append(entry("from", _origin(home, row)))
        lines += [entry("made by", text) for text in _generation(row)]
        lines += [entry("vote", text) for text in _votes(home, row)]
        lines += _texts(row)
    if not (instructions or pairs):
        lines.append(entry("texts", "deleted: no table or cached block contains this row"))
    return [*lines, entry("in", _datasets(home, row_id))]


def pair_lines(pair: dict[str, Any]) -> list[str]:
    """Describe a preference pair: id, rewards if it has any, and both responses."""
    has_rewards = pair.get("margin") is not None
    rewards = (
        f", reward {pair['chosen_reward']:.3f} over {pair['rejected_reward']:.3f}, margin {pair['margin']:.3f}"
        if has_rewards
        else ", imported: no rewards"
    )
    texts = [
        entry(side, terminal_line(pair[side], MAX_TEXT_CHARACTERS)) for side in ("chosen", "rejected") if side in pair
    ]
    return [entry("pair", f"{pair['pair_id']}{rewards}"), *texts]


def trained_versions(manifests: Path, row_ids: Iterable[str], versions: Sequence[ModelVersion]) -> list[ModelVersion]:
    """Return the versions trained on any of these rows, directly or through the adapter that they continue."""
    fates = fates_of(manifests, row_ids).filter(pl.col("asset").is_in(ADAPTERS))
    trainings = set(fates.select("asset", "data_version").iter_rows())
    return [version for version in versions if trainings & set(version.trainings())]


def _with_ids(paths: Iterable[Path], row_ids: Sequence[str]) -> pl.DataFrame:
    files = [path for path in paths if path.is_file()]
    scans = [pl.scan_parquet(path, glob=False).filter(pl.col("row_id").is_in(row_ids)) for path in files]
    columns = INSTRUCTIONS.names()
    with naming_damaged(files):
        tables = pl.collect_all(scans)
    parts = [table.select(name for name in columns if name in table.columns) for table in tables]
    return pl.concat([INSTRUCTIONS.to_frame(), *parts], how="diagonal_relaxed").select(columns)


def _fate(home: Path, row_id: str) -> list[str]:
    rejected = [row for asset in REJECTS for row in table_rows(home, asset, row_id)]
    if rejected:
        return _rejection(rejected[0])
    if kept := table_rows(home, "filtered_instructions", row_id):
        return [entry("fate", f"kept, score {kept[0]['score']:.2f} (1: far from every limit, 0: at a limit)")]
    if table_rows(home, "preference_pairs", row_id):
        return [entry("fate", "kept, in preference_pairs")]
    return [entry("fate", "not in the current tables of the filter; see `in`")]


def _reviews(home: Path, row_id: str) -> list[str]:
    """Return a line for each decision of a reviewer on the row that was not withdrawn."""
    reviews = standing_reviews(review_log(home / LOG)).get(row_id, [])
    return [
        entry("review", terminal_line(review_text(each.verdict, each.note, each.by, each.at), MAX_TEXT_CHARACTERS))
        for each in reviews
    ]


def _rejection(row: dict[str, Any]) -> list[str]:
    reason = row["reason"].removeprefix(PREFIX)  # the prefix marks the reason against the rejected response of a pair
    rule = next((rule for rule in RULES if rule.reason == reason), None)
    family = rule.family if rule else "duplicates, benchmarks, recalls and reviews"
    lines = [entry("fate", f"rejected: {row['reason']} ({family})")]
    if row["detail"]:
        lines.append(entry("because", terminal_line(row["detail"])))
    if rule and rule.limit and rule.limit != "context_tokens":
        asset = "filtered_preferences" if "chosen" in row else "filtered_instructions"
        lines.append(entry("limit", f"{rule.limit}; to change it: synth run --set {asset}.{rule.limit}=VALUE"))
    return lines


def _origin(home: Path, row: dict[str, Any]) -> str:
    imports = {stored.name: stored for stored in stored_imports(home / "imports")}
    if (stored := imports.get(row["source"])) is not None:
        line = line_of(stored, row["row_id"])
        return f"{row['source']}, line {line}" if line else f"{row['source']}, which no longer contains it"
    return f"{row['source']}, batch {row['batch']}" if row.get("batch") else str(row["source"])


def _generation(row: dict[str, Any]) -> list[str]:
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


def _votes(home: Path, row: dict[str, Any]) -> list[str]:
    """Return the vote of the playground that a row came from, if it is one."""
    stored = find_import(home / "imports", SOURCE) if row["source"] == SOURCE else None
    text = vote_line(stored, row["row_id"]) if stored else ""
    return [text] if text else []


def _texts(row: dict[str, Any]) -> list[str]:
    earlier = [(turn["role"], turn["content"]) for turn in row.get("history") or ()]
    texts = [*earlier, ("asked", row["instruction"])]
    texts += [(side, row[side]) for side in ("response", "chosen", "rejected") if side in row]
    return [
        entry("answered" if name == "response" else str(name), terminal_line(text or "", MAX_TEXT_CHARACTERS))
        for name, text in texts
    ]


def _datasets(home: Path, row_id: str) -> str:
    datasets = []
    for asset in DATASETS:
        rows = table_rows(home, asset, row_id)
        if rows:
            splits = sorted({row["split"] for row in rows if row.get("split")})
            datasets.append(f"{asset} ({', '.join(splits)})" if splits else asset)
    return ", ".join(datasets) or "no dataset"
