"""Write the reference pages from the code: `python docs/generate_reference.py`.

Each page of PAGES is a function that returns its text. `tests/test_reference.py` fails where a stored page is not what
its function returns.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
import typer

from resources.hardware import PRESETS, TIERS
from synth_assets.cli.app import app
from synth_assets.definitions import CHECKS, STAGES
from synth_assets.llm.catalog import MODELS
from synth_assets.llm.model_files import EMBEDDED
from synth_assets.llm.prompt_formats import FAMILIES
from synth_assets.llm.size_settings import SIZES
from synth_assets.schemas import tables
from synth_assets.schemas.columns import COLUMNS
from synth_assets.schemas.tier import Tier
from synth_assets.stages.filtering.rules import RULES

REFERENCE = Path(__file__).with_name("reference")
NOTE = "<!-- Written by docs/generate_reference.py. Do not edit. -->"
UNTESTED = "untested"
DEFAULT = " Default: "  # resources/spec_config.py writes it
TYPES = {"Noneable.": "", "SourceType": "", "String": "text", "Int": "integer", "Float": "number", "Bool": "boolean"}
STORED_AS = {
    "INSTRUCTIONS": "`raw_instructions`, `imported_instructions`",
    "JUDGED": "`filtered_instructions`",
    "REJECTED": "`rejected_instructions`",
    "SFT_ROWS": "`sft_dataset`",
    "RECALLS": "`recalled_rows`",
    "REVIEWS": "`reviewed_rows`",
    "BENCHMARK_ITEMS": "`benchmark_items`",
    "CANDIDATES": "`response_candidates`, `on_policy_candidates`",
    "PAIRS": "`imported_preferences`, `filtered_preferences`, `preference_pairs`, `on_policy_pairs`",
    "REJECTED_PAIRS": "`rejected_preferences`",
    "REFERENCE_LOGPROBS": "`reference_logprobs`, `on_policy_reference_logprobs`",
    "ITEM_SCORES": "`benchmark_scores`",
}

COMPARISONS = (
    ("`benchmark_item`", "8-grams of benchmark items", "`benchmark_cover`"),
    ("`semantic_benchmark_item`", "embeddings of benchmark items", "`semantic_item_similarity`"),
    ("`rejected_by_reviewer`", "the review log", "-"),
    ("`exact_duplicate`", "instructions of earlier rows", "-"),
    ("`near_duplicate`", "word shingles of earlier rows", "`near_duplicate_similarity`"),
    ("`semantic_duplicate`", "embeddings of earlier rows", "`semantic_duplicate_similarity`"),
    ("`recalled`", "the recall log", "-"),
)
"""Reason, what a row is compared with, field of its threshold."""


def cli_page() -> str:
    """Return every command of `synth` with its arguments and options."""
    root = typer.main.get_command(app)
    lines = [
        "`synth COMMAND --help` prints the same. Exit codes: 0 success, 1 the run failed, 2 wrong input or setup, "
        "3 promotion refused, 130 stopped by Ctrl-C or SIGTERM.",
    ]
    for name, command in _commands(root, "synth"):
        lines += ["", f"## {name}", "", _one_line(command.help)]
        arguments = [p for p in command.params if not p.opts[0].startswith("-")]
        options = [p for p in command.params if p.opts[0].startswith("-")]
        if arguments:
            rows = [(_code(p.name.upper()), "yes" if p.required else "no", _one_line(p.help)) for p in arguments]
            lines += ["", table(("argument", "required", "description"), rows)]
        if options:
            rows = [(", ".join(map(_code, p.opts)), _default(p), _one_line(p.help)) for p in options]
            lines += ["", table(("option", "default", "description"), rows)]
    return page("Command line", lines)


def config_page() -> str:
    """Return the run config of every asset."""
    lines = [
        "Set a field with `synth run --set asset.field=value`, in the Launchpad of the Dagster UI, or in YAML "
        "under `ops.<asset>.config`. Every field is optional. A field that no run sets takes the setting of the "
        "model's size ([models](models.md)) and of the [tier](tiers.md); else the default below.",
    ]
    for asset in _assets():
        fields = getattr(asset.op.config_schema.config_type, "fields", None)
        if not fields:
            continue
        names = ", ".join(_code(key.to_user_string()) for key in sorted(asset.keys))
        lines += ["", f"## {asset.op.name}", "", f"Assets: {names}.", ""]
        rows = [(_code(name), _type(field.config_type.key), *_described(field)) for name, field in fields.items()]
        lines.append(table(("field", "type", "description", "default"), rows))
    return page("Run configuration", lines)


def hardware_table() -> str:
    """Return the short table of the tiers that README shows; `tests/test_reference.py` compares the two."""
    rows = [
        (
            _code(name),
            f"{tier.memory_gb:g} GB" if tier.memory_gb else "-",
            _precision(tier),
            tier.quantisation,
            tier.engine,
            "tested" if tier.tested else UNTESTED,
        )
        for name, tier in TIERS.items()
    ]
    return table(("tier", "GPU memory", "precision", "quantisation", "engine", "status"), rows)


def _precision(tier: Tier) -> str:
    """Return the precision of a tier's models; `Hardware.row` selects bfloat16 where the CPU has it."""
    is_embedded = all(model.startswith(EMBEDDED) for model in (tier.teacher, tier.base))
    return tier.dtype if tier.device == "cuda" or is_embedded else f"{tier.dtype} or bfloat16"


def tiers_page() -> str:
    """Return the hardware table."""
    rows = [
        (
            _code(name),
            f"{tier.memory_gb:g} GB" if tier.memory_gb else "-",
            _precision(tier),
            tier.quantisation,
            tier.attention,
            tier.engine,
            f"{tier.batch_size} x {tier.accumulation}",
            f"{tier.samples:,}",
            f"{tier.usd_per_hour:g}",
            "tested" if tier.tested else UNTESTED,
        )
        for name, tier in TIERS.items()
    ]
    head = ("tier", "memory", "precision", "quantisation", "attention", "engine", "batch", "samples", "USD/h", "status")
    default = [(_code(name), *map(_code, (tier.teacher, tier.base, tier.reward))) for name, tier in TIERS.items()]
    presets = [(_code(name), *(_code(models[role]) for role in MODEL_ROLES)) for name, models in PRESETS.items()]
    return page(
        "Hardware tiers",
        [
            "`SYNTH_TIER` selects a row of `resources/hardware.py: TIERS`; `auto`, the default, detects it. Batch: "
            "rows of a forward pass times accumulated passes. Prices are rounded on-demand list prices of 2025. "
            "Precision float32 or bfloat16: bfloat16 where the CPU has it.",
            "",
            table(head, rows),
            "",
            "## Models of a tier",
            "",
            table(("tier", *MODEL_ROLES), default),
            "",
            "## Presets",
            "",
            "`SYNTH_PRESET` replaces three models; `SYNTH_TEACHER`, `SYNTH_BASE` and `SYNTH_REWARD` one each.",
            "",
            table(("preset", *MODEL_ROLES), presets),
        ],
    )


MODEL_ROLES = ("teacher", "base", "reward")


def models_page() -> str:
    """Return the catalog, the settings of each model size, and the prompt formats."""
    return page("Models", [*_catalog(), "", *_sizes(), "", *_prompt_formats()])


def _catalog() -> list[str]:
    rows = [
        (
            _code(name),
            row.repository,
            ", ".join(row.roles),
            row.family,
            ", ".join(row.targets),
            f"{row.context_tokens:,}",
            row.licence,
            row.gate or "-",
            row.caveat or "-",
            row.tested or UNTESTED,
        )
        for name, row in MODELS.items()
    ]
    head = ("name", "repository", "role", "format", "LoRA modules", "context", "licence", "gate", "note", "status")
    return [
        "## Catalog",
        "",
        "`SYNTH_TEACHER` and `SYNTH_BASE` take a name of this table, a hub repository (`owner/name`, "
        "`owner/name@revision`) or a folder. `synth models` adds the memory that each needs on your tier. "
        "Untested means that nobody has loaded the published weights in this project; tests count the parameters "
        "of each architecture and train LoRA for a step on a tiny random model of it.",
        "",
        table(head, rows),
    ]


def _sizes() -> list[str]:
    fields = [
        (name, _code(f"{spec}.{field}"), _value(value))
        for name, size in SIZES.items()
        for part in (size.teacher, size.base, size.reward)
        for spec, values in part.items()
        for field, value in _items(values)
    ]
    bounds = [
        (name, f"{size.below:.3g}" if 0 < size.below < float("inf") else "-", ", ".join(map(_code, size.suites)))
        for name, size in SIZES.items()
    ]
    return [
        "## Sizes",
        "",
        "A model belongs to the first size whose bound its parameters stay below; the shipped ones are `embedded`. "
        "The first suite selects the promotion candidate.",
        "",
        table(("size", "parameters below", "suites"), bounds),
        "",
        "A size sets these fields; all others keep their defaults.",
        "",
        table(("size", "field", "value"), fields),
    ]


def _prompt_formats() -> list[str]:
    rows = [
        (_code(name), _code(row.pre_query), ", ".join(map(_code, row.stop)), row.compared_with or UNTESTED)
        for name, row in FAMILIES.items()
    ]
    return [
        "## Prompt formats",
        "",
        "Before generation, a check of `teacher_model` compares the model's chat template with the expected format "
        "of its family.",
        "",
        table(("format", "before the user's first word", "stop tokens", "verified with"), rows),
    ]


def checks_page() -> str:
    """Return every asset check, by stage and asset."""
    lines = ["A blocking check that fails stops the assets downstream of it. A check that does not block is a warning."]
    group_of = {key: group for asset in _assets() for key, group in asset.group_names_by_key.items()}
    specs = [spec for definition in dg.load_asset_checks_from_modules(CHECKS) for spec in definition.check_specs]
    for stage in dict.fromkeys(group_of.values()):
        rows = [
            (_code(spec.asset_key.to_user_string()), _code(spec.name), "yes" if spec.blocking else "no", _text(spec))
            for spec in sorted(specs, key=lambda spec: (spec.asset_key.to_user_string(), spec.name))
            if group_of[spec.asset_key] == stage
        ]
        if rows:
            lines += ["", f"## {stage}", "", table(("asset", "check", "blocking", "description"), rows)]
    return page("Asset checks", lines)


def schemas_page() -> str:
    """Return the columns of every stored table, and the rules that give a rejected row its reason."""
    lines = ["Tables are Parquet files (zstd) in `SYNTH_HOME/tables`. `synth_assets/schemas/tables.py` declares them."]
    for name, assets in STORED_AS.items():
        schema: pl.Schema = getattr(tables, name)
        rows = [(_code(column), _code(_column_type(kind)), COLUMNS[column]) for column, kind in schema.items()]
        lines += ["", f"## {name}", "", f"Assets: {assets}.", "", table(("column", "type", "description"), rows)]
    rules = [(_code(rule.reason), rule.family, _code(rule.limit) if rule.limit else "-") for rule in RULES]
    lines += [
        "",
        "## Reasons",
        "",
        "Values of `reason` in `rejected_instructions`, in the order of evaluation: the first rule that fails gives "
        "the reason. The threshold is a field of "
        "[filtered_instructions](config.md#filtered_instructions).",
        "",
        table(("reason", "group", "threshold"), rules),
        "",
        "## Reasons after the rules",
        "",
        "Applied to the rows that pass all rules, in this order; a recalled row has that reason alone. The "
        "semantic ones need an embedding model (`SYNTH_EMBEDDER`).",
        "",
        table(("reason", "compared with", "threshold"), COMPARISONS),
    ]
    return page("Tables", lines)


PAGES: Mapping[str, Callable[[], str]] = {
    "cli.md": cli_page,
    "config.md": config_page,
    "tiers.md": tiers_page,
    "models.md": models_page,
    "checks.md": checks_page,
    "schemas.md": schemas_page,
}


def page(title: str, lines: Sequence[str]) -> str:
    """Return a page with its title and the note that a script writes it."""
    return "\n".join([f"# {title}", "", NOTE, "", *lines]) + "\n"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table; a pipe within a cell is escaped."""
    cells = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in cells)


def _commands(group: Any, path: str) -> Iterator[tuple[str, Any]]:  # noqa: ANN401 - Typer's own classes
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from _commands(command, f"{path} {name}")
        else:
            yield f"{path} {name}", command


def _assets() -> list[dg.AssetsDefinition]:
    """Return the assets that a step computes, stage by stage."""
    loaded = [asset for module in STAGES for asset in dg.load_assets_from_modules([module])]
    return [asset for asset in loaded if isinstance(asset, dg.AssetsDefinition) and asset.is_executable]


def _default(option: Any) -> str:  # noqa: ANN401 - Typer's own class
    if option.multiple:
        return "repeatable"
    return "-" if option.default in (None, "", False) else _code(str(option.default))


def _described(field: dg.Field) -> tuple[str, str]:
    """Return the description and the default of a field: its own, or that of its spec, which ends the description."""
    text, _, default = _one_line(field.description).partition(DEFAULT)
    if field.default_provided and field.default_value not in (None, ""):
        return text, _code(str(field.default_value))
    return text, _code(default.removesuffix(".")) if default else "-"


def _type(key: str) -> str:
    for part, shown in TYPES.items():
        key = key.replace(part, shown)
    return key.replace("Array.", "list of ").replace("Map.text.", "map of text to ")


def _column_type(kind: Any) -> str:  # noqa: ANN401 - a data type of Polars, or its class
    return str(kind).replace("Struct({'role': String, 'content': String})", "{role, content}")


def _text(spec: dg.AssetCheckSpec) -> str:
    return _one_line(spec.description)


def _items(fields: Any) -> Iterator[tuple[str, Any]]:  # noqa: ANN401 - a TypedDict
    yield from fields.items()


def _value(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _code(text: str) -> str:
    """Return a code span; as HTML where it holds a pipe, which Markdown's dialects escape differently in tables."""
    shown = text.replace("\n", "\\n")
    return f"<code>{escape(shown).replace('|', '&#124;')}</code>" if "|" in shown else f"`{shown}`"


def _one_line(text: str | None) -> str:
    return " ".join((text or "").split()) or "-"


def main() -> None:
    """Write every page."""
    REFERENCE.mkdir(exist_ok=True)
    for name, text in PAGES.items():
        (REFERENCE / name).write_text(text(), "utf-8")


if __name__ == "__main__":
    main()
