"""For each check a mutation of good data that turns exactly that check red."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import dagster as dg
import numpy as np
import polars as pl
import pytest
from safetensors.numpy import load_file, save_file

from synth_assets.stages.reward_training.accuracy import accuracy_of, against_longer
from synth_assets.storage.manifests import MANIFEST, file_sha256, read_manifest, write_manifest

pytestmark = pytest.mark.integration

BATCH = "2026-W47"
BY_BATCH = "raw_instructions"
World = Any  # the fixture of conftest.py, which cannot be imported
Mutation = Callable[[World], None]
RunChecks = Callable[..., dict[tuple[str, str], bool]]  # of a world, and of the assets whose readers run


def table_of(world: World, asset: str) -> pl.DataFrame:
    return world.data[asset][BATCH] if asset == BY_BATCH else world.data[asset]


def put(world: World, asset: str, table: pl.DataFrame) -> None:
    if asset == BY_BATCH:
        world.data[asset][BATCH] = table
    else:
        world.data[asset] = table


def cells(asset: str, column: str, value: object, rows: range = range(1)) -> Mutation:
    """Write `value` into a column of some rows; negative rows count from the end."""

    def mutate(world: World) -> None:
        table = table_of(world, asset)
        values = table[column].to_list()
        for row in rows:
            values[row] = value
        put(world, asset, table.with_columns(pl.Series(column, values, dtype=table.schema[column])))

    return mutate


def column(asset: str, name: str, value: pl.Expr) -> Mutation:
    """Replace a whole column."""
    return lambda world: put(world, asset, table_of(world, asset).with_columns(value.alias(name)))


def same_as_first(asset: str, name: str, row: int = 1) -> Mutation:
    """Copy a cell of the first row into another row."""
    return lambda world: cells(asset, name, table_of(world, asset)[name][0], range(row, row + 1))(world)


def added_row(asset: str, **values: object) -> Mutation:
    """Add the first row again, with other values in some columns."""

    def mutate(world: World) -> None:
        table = table_of(world, asset)
        again = table.head(1).with_columns(pl.lit(v, table.schema[name]).alias(name) for name, v in values.items())
        put(world, asset, pl.concat([table, again]))

    return mutate


def first_rows(asset: str, rows: int) -> Mutation:
    return lambda world: put(world, asset, table_of(world, asset).head(rows))


def fields(asset: str, **values: object) -> Mutation:
    """Replace fields of a record."""

    def mutate(world: World) -> None:
        world.data[asset] = replace(world.data[asset], **values)

    return mutate


def all_mutations(*mutations: Mutation) -> Mutation:
    def mutate(world: World) -> None:
        for each in mutations:
            each(world)

    return mutate


LAST = range(-1, 0)
LONG = " ".join(f"word{number}" for number in range(30))
UNSCORED_ITEM, OTHER_UNSCORED_ITEM = range(3, 4), range(7, 8)  # item 3 of a suite and split has no score
UNPAIRED = range(20, 21)  # a train row of sft_dataset without candidates and pairs

INSTRUCTION_COLUMNS: dict[str, Callable[[str], Mutation]] = {
    "row_ids_are_present": lambda asset: cells(asset, "row_id", None),
    "row_ids_are_unique": lambda asset: same_as_first(asset, "row_id"),
    "sources_are_present": lambda asset: cells(asset, "source", None),
    "instructions_are_written": lambda asset: cells(asset, "instruction", " ", range(3)),
    "responses_are_written": lambda asset: cells(asset, "response", "\n", range(3)),
}
KEPT_COLUMNS: dict[str, Callable[[str], Mutation]] = {
    "row_ids_are_present": lambda asset: cells(asset, "row_id", None),
    "row_ids_are_unique": lambda asset: same_as_first(asset, "row_id"),
    "sources_are_present": lambda asset: cells(asset, "source", None),
    "instructions_are_written": lambda asset: cells(asset, "instruction", "", UNPAIRED),
    "responses_are_written": lambda asset: cells(asset, "response", " "),
    "instruction_tokens_are_counted": lambda asset: cells(asset, "instruction_tokens", 0),
    "response_tokens_are_counted": lambda asset: cells(asset, "response_tokens", 0),
    "responses_ended_by_themselves": lambda asset: cells(asset, "response_finish_reason", "length"),
    "scores_are_rates": lambda asset: cells(asset, "score", 1.5),
}
RAW = {
    "seeds_are_unique": same_as_first(BY_BATCH, "seed"),
    "models_are_named": cells(BY_BATCH, "model", None),
    "revisions_are_present": cells(BY_BATCH, "revision", None),
    "instruction_temperatures_are_in_range": cells(BY_BATCH, "temperature", 3.0),
    "response_temperatures_are_in_range": cells(BY_BATCH, "response_temperature", -0.1),
    "top_p_is_in_range": cells(BY_BATCH, "top_p", 1.1),
    "instruction_tokens_are_counted": cells(BY_BATCH, "instruction_tokens", -1),
    "response_tokens_are_counted": cells(BY_BATCH, "response_tokens", -1),
    "history_tokens_are_counted": cells(BY_BATCH, "history_tokens", -1),
    "instruction_finish_reasons_are_known": cells(BY_BATCH, "instruction_finish_reason", "crash"),
    "response_finish_reasons_are_known": cells(BY_BATCH, "response_finish_reason", "crash"),
    "instructions_end_by_themselves": cells(BY_BATCH, "instruction_finish_reason", "length", range(9)),
    "responses_end_by_themselves": cells(BY_BATCH, "response_finish_reason", "length", range(9)),
}
KEPT_PAIRS = {
    "pair_ids_are_present": cells("filtered_preferences", "pair_id", None),
    "pair_ids_are_unique": added_row("filtered_preferences"),
    "groups_are_present": cells("filtered_preferences", "group", None),
    "sources_are_present": cells("filtered_preferences", "source", None),
    "instructions_are_written": cells("filtered_preferences", "instruction", " "),
    "chosen_responses_are_written": cells("filtered_preferences", "chosen", ""),
    "rejected_responses_are_written": cells("filtered_preferences", "rejected", "\n"),
}
PAIRS = "preference_pairs"
OWN_PAIRS = "on_policy_pairs"
ITEMS = "benchmark_items"
SCORES = "benchmark_scores"
CANDIDATES = "response_candidates"
OWN_CANDIDATES = "on_policy_candidates"
LOGPROBS = "reference_logprobs"
OWN_LOGPROBS = "on_policy_reference_logprobs"
CANDIDATE_COLUMNS: dict[str, Callable[[str], Mutation]] = {
    "candidate_ids_are_present": lambda asset: cells(asset, "candidate_id", None),
    "candidate_ids_are_unique": lambda asset: same_as_first(asset, "candidate_id"),
    "row_ids_are_present": lambda asset: cells(asset, "row_id", None),
    "groups_are_present": lambda asset: cells(asset, "group", None),
    "candidates_are_of_train_rows": lambda asset: cells(asset, "split", "validation"),
    "instructions_are_written": lambda asset: cells(asset, "instruction", ""),
    "temperatures_are_in_range": lambda asset: cells(asset, "temperature", 2.5),
    "response_tokens_are_counted": lambda asset: cells(asset, "response_tokens", -1),
    "finish_reasons_are_known": lambda asset: cells(asset, "finish_reason", "crash"),
}
PAIR_COLUMNS: dict[str, Callable[[str], Mutation]] = {
    "pair_ids_are_present": lambda asset: cells(asset, "pair_id", None, range(11, 12)),
    "pair_ids_are_unique": lambda asset: same_as_first(asset, "pair_id"),
    "groups_are_present": lambda asset: cells(asset, "group", None),
    "sources_are_present": lambda asset: cells(asset, "source", None),
    "splits_are_present": lambda asset: cells(asset, "split", None),
    "splits_are_known": lambda asset: cells(asset, "split", "test"),
    "instructions_are_written": lambda asset: cells(asset, "instruction", ""),
    "chosen_responses_are_written": lambda asset: cells(asset, "chosen", ""),
    "rejected_responses_are_present": lambda asset: cells(asset, "rejected", None),
}
LOGPROB_COLUMNS: dict[str, Callable[[str], Mutation]] = {
    "pair_ids_are_present": lambda asset: added_row(asset, pair_id=None),
    "pair_ids_are_unique": added_row,
    "chosen_logprobs_are_present": lambda asset: cells(asset, "chosen_logprob", None),
    "rejected_logprobs_are_present": lambda asset: cells(asset, "rejected_logprob", float("nan")),
    "chosen_logprobs_are_of_probabilities": lambda asset: cells(asset, "chosen_logprob", 0.1),
    "rejected_logprobs_are_of_probabilities": lambda asset: cells(asset, "rejected_logprob", 0.1),
}
TABLES: dict[tuple[str, str], Mutation] = {
    **{(asset, name): make(asset) for asset in (BY_BATCH, "imported_instructions")
       for name, make in INSTRUCTION_COLUMNS.items()},
    **{(BY_BATCH, name): mutation for name, mutation in RAW.items()},
    ("imported_preferences", "pair_ids_are_present"): cells("imported_preferences", "pair_id", None),
    ("imported_preferences", "pair_ids_are_unique"): same_as_first("imported_preferences", "pair_id"),
    ("imported_preferences", "sources_are_present"): cells("imported_preferences", "source", None),
    ("imported_preferences", "instructions_are_written"): cells("imported_preferences", "instruction", ""),
    ("imported_preferences", "chosen_responses_are_written"): cells("imported_preferences", "chosen", " "),
    ("imported_preferences", "rejected_responses_are_present"): cells("imported_preferences", "rejected", None),
    **{("filtered_preferences", name): mutation for name, mutation in KEPT_PAIRS.items()},
    ("rejected_preferences", "pair_ids_are_present"): cells("rejected_preferences", "pair_id", None),
    ("rejected_preferences", "pair_ids_are_unique"): same_as_first("rejected_preferences", "pair_id"),
    ("rejected_preferences", "reasons_are_present"): cells("rejected_preferences", "reason", None),
    (ITEMS, "item_ids_are_present"): cells(ITEMS, "item_id", None, UNSCORED_ITEM),
    (ITEMS, "item_ids_are_unique"): cells(ITEMS, "item_id", "generation-validation-3", OTHER_UNSCORED_ITEM),
    (ITEMS, "suites_are_named"): cells(ITEMS, "suite", None, UNSCORED_ITEM),
    (ITEMS, "splits_are_known"): cells(ITEMS, "split", "training", UNSCORED_ITEM),
    (ITEMS, "kinds_are_known"): cells(ITEMS, "kind", "essay", UNSCORED_ITEM),
    (ITEMS, "prompts_are_written"): cells(ITEMS, "prompt", " "),
    (ITEMS, "clusters_are_present"): cells(ITEMS, "cluster", None),
    (ITEMS, "item_hashes_are_present"): cells(ITEMS, "item_hash", None),
    **{(asset, name): make(asset) for asset in ("filtered_instructions", "sft_dataset")
       for name, make in KEPT_COLUMNS.items()},
    ("filtered_instructions", "instructions_are_distinct"): same_as_first("filtered_instructions", "instruction"),
    ("rejected_instructions", "row_ids_are_present"): cells("rejected_instructions", "row_id", None),
    ("rejected_instructions", "row_ids_are_unique"): same_as_first("rejected_instructions", "row_id"),
    ("rejected_instructions", "reasons_are_present"): cells("rejected_instructions", "reason", None),
    ("rejected_instructions", "reasons_are_names_of_rules"): cells("rejected_instructions", "reason", "Too short!"),
    ("sft_dataset", "groups_are_present"): cells("sft_dataset", "group", None),
    ("sft_dataset", "splits_are_present"): cells("sft_dataset", "split", None, UNPAIRED),
    ("sft_dataset", "splits_are_known"): cells("sft_dataset", "split", "test", UNPAIRED),
    (SCORES, "fingerprints_are_present"): cells(SCORES, "fingerprint", None),
    (SCORES, "items_are_scored_once"): added_row(SCORES),
    (SCORES, "scores_are_rates"): cells(SCORES, "score", 1.1),
    (SCORES, "finish_reasons_are_known"): cells(SCORES, "finish_reason", "crash"),
    (SCORES, "models_are_known"): column(SCORES, "model", pl.col("model").replace("base", "an unknown model")),
    **{(asset, name): make(asset) for asset in (CANDIDATES, OWN_CANDIDATES)
       for name, make in CANDIDATE_COLUMNS.items()},
    **{(asset, name): make(asset) for asset in (PAIRS, OWN_PAIRS) for name, make in PAIR_COLUMNS.items()},
    **{(asset, name): make(asset) for asset in (LOGPROBS, OWN_LOGPROBS) for name, make in LOGPROB_COLUMNS.items()},
}  # fmt: skip


def replay(world: World) -> None:
    """The second block repeats the texts of the first, as blocks seeded alike do."""
    texts = ["instruction", "response"]
    table = world.data[BY_BATCH][BATCH]
    repeated = pl.concat([table.head(32).select(texts), table.head(8).select(texts)])
    world.data[BY_BATCH][BATCH] = table.with_columns(repeated.get_columns())


def item_outside(world: World) -> None:
    """Every model is scored on an item that the benchmark does not hold."""
    table = world.data[SCORES]
    foreign = pl.col("item_id") == "generation-test-0"
    put(world, SCORES, table.with_columns(pl.when(foreign).then(pl.lit("x")).otherwise("item_id").alias("item_id")))


def sealed_item_is_scored(world: World) -> None:
    for asset in (ITEMS, SCORES):
        opened = pl.col("item_id") == "generation-validation-0"
        column(asset, "split", pl.when(opened).then(pl.lit("sealed")).otherwise("split"))(world)


def one_model_misses_an_item(world: World) -> None:
    put(world, SCORES, world.data[SCORES].head(-1))


def one_model_leaves_items_out(world: World) -> None:
    left_out = (pl.col("model") == "prompt_tuning_adapter") & (pl.col("item_id") == "generation-test-1")
    changed = {
        "score": pl.when(left_out).then(None).otherwise(pl.col("score")),
        "finish_reason": pl.when(left_out).then(pl.lit("context_exceeded")).otherwise(pl.col("finish_reason")),
    }
    put(world, SCORES, world.data[SCORES].with_columns(**changed))


def candidate_loses_a_guard(world: World) -> None:
    lost = (pl.col("model") == "dpo_adapter") & (pl.col("suite") == "world_choice")
    column(SCORES, "score", pl.when(lost).then(0.0).otherwise("score"))(world)


def planted(asset: str, row: int = UNPAIRED.start) -> Mutation:
    """A benchmark prompt in other case and spacing stands among the instructions."""

    def mutate(world: World) -> None:
        prompt = world.data[ITEMS]["prompt"][0].upper().replace(" ", "  ")
        cells(asset, "instruction", prompt, range(row, row + 1))(world)

    return mutate


def replayed_imports(world: World) -> None:
    table = world.data["imported_instructions"]
    again = table.head(6).with_columns(row_id=pl.concat_str(pl.lit("again-"), "row_id"))
    world.data["imported_instructions"] = pl.concat([table, again])


CUT = "It is a crow,"
FRENCH = "Quelle est la capitale de la France et pourquoi les gens aiment-ils tant cette belle ville?"
PROFILE_MUTATIONS: dict[str, Callable[[str], Mutation]] = {
    "instructions_ask": lambda asset: numbered(asset, "## Step 1: Understand problem {}", range(3)),
    "texts_are_whole": lambda asset: all_mutations(
        column(asset, "response_finish_reason", pl.lit(None, pl.String)), cells(asset, "response", CUT, range(5))
    ),
    "no_control_tokens_leak": lambda asset: cells(asset, "response", "It is red.<|eot_id|>"),
    "texts_are_english": lambda asset: numbered(asset, "{}: " + FRENCH, range(3)),
    "instructions_are_short": lambda asset: column(
        asset, "instruction", pl.concat_str("instruction", pl.lit(" What else is red?" * 24))
    ),
    "topics_vary": lambda asset: column(
        asset, "instruction", pl.concat_str(pl.lit("What colour is ball "), pl.int_range(pl.len()), pl.lit("?"))
    ),
}


def numbered(asset: str, text: str, rows: range) -> Mutation:
    return all_mutations(*(cells(asset, "instruction", text.format(row), range(row, row + 1)) for row in rows))


def last_rows_missing(asset: str) -> Mutation:
    return lambda world: put(world, asset, table_of(world, asset).head(-1))


TABLE_CHECKS: dict[tuple[str, str], Mutation] = {
    (BY_BATCH, "no_replayed_rows"): replay,
    (BY_BATCH, "instructions_are_diverse"): column(
        BY_BATCH, "instruction", pl.concat_str(pl.lit("Say "), pl.int_range(pl.len()) // 2)
    ),
    **{(BY_BATCH, name): mutate(BY_BATCH) for name, mutate in PROFILE_MUTATIONS.items() if name != "texts_are_whole"},
    **{("imported_instructions", name): mutate("imported_instructions") for name, mutate in PROFILE_MUTATIONS.items()},
    ("imported_instructions", "imports_are_not_replayed"): replayed_imports,
    ("imported_instructions", "imports_are_diverse"): column(
        "imported_instructions",
        "instruction",
        pl.concat_str(pl.lit("Say "), pl.int_range(pl.len()) // 2, pl.lit(" now")),
    ),
    ("imported_preferences", "preferences_are_diverse"): column(
        "imported_preferences", "instruction", pl.lit("Name a bird.")
    ),
    ("imported_preferences", "preferences_are_whole"): cells(
        "imported_preferences", "rejected", CUT, range(6)
    ),
    (ITEMS, "no_leakage_between_splits"): cells(
        ITEMS, "prompt", "in the VALIDATION item 0 of generation, what comes next?", range(5, 6)
    ),
    (ITEMS, "answers_are_among_the_choices"): cells(ITEMS, "answer", "2", LAST),
    ("filtered_instructions", "enough_instructions_remain"): first_rows("filtered_instructions", 9),
    ("filtered_instructions", "no_benchmark_item_remains"): planted("filtered_instructions"),
    ("filtered_instructions", "kept_rows_were_not_rejected"): lambda world: cells(
        "rejected_instructions", "row_id", world.data["filtered_instructions"]["row_id"][0]
    )(world),
    ("sft_dataset", "no_leakage_between_splits"): lambda world: cells(
        "sft_dataset", "instruction", world.data["sft_dataset"]["instruction"][20].upper(), LAST
    )(world),
    ("sft_dataset", "validation_is_a_small_share"): column("sft_dataset", "split", pl.lit("train")),
    **{
        key: mutation
        for candidates in (CANDIDATES, OWN_CANDIDATES)
        for key, mutation in {
            (candidates, "rewards_are_finite"): cells(candidates, "reward", float("nan")),
            (candidates, "rewards_tell_candidates_apart"): column(candidates, "reward", pl.lit(0.0)),
        }.items()
    },
    (OWN_CANDIDATES, "candidates_are_the_policys_own"): cells(OWN_CANDIDATES, "model", "owner/base+" + "0" * 16),
    **{
        key: mutation
        for pairs in (PAIRS, OWN_PAIRS)
        for key, mutation in {
            (pairs, "enough_pairs"): first_rows(pairs, 4),
            (pairs, "chosen_differs_from_rejected"): cells(pairs, "rejected", " A good answer.\n"),
            (pairs, "margins_are_positive"): cells(pairs, "margin", 2.0),
            (pairs, "no_leakage_between_splits"): same_as_first(pairs, "group", row=11),
        }.items()
    },
    ("filtered_preferences", "kept_pairs_were_not_rejected"): cells("rejected_preferences", "pair_id", "imported"),
    **{(asset, "every_pair_has_its_reference"): last_rows_missing(asset) for asset in (LOGPROBS, OWN_LOGPROBS)},
    (SCORES, "scores_are_finite_with_n"): one_model_misses_an_item,
    (SCORES, "suites_can_be_answered"): one_model_leaves_items_out,
    (SCORES, "scored_items_are_the_benchmarks"): item_outside,
    (SCORES, "sealed_items_are_not_scored"): sealed_item_is_scored,
    (SCORES, "scores_are_above_null_models"): column(SCORES, "score", pl.lit(0.0)),
    ("comparison", "guards_are_held"): candidate_loses_a_guard,
}  # fmt: skip


def rewritten(asset: str, change: Callable[[Path, dict[str, Any]], None]) -> Mutation:
    """Change the files of an adapter or its manifest's facts, and complete it again as the trainer does."""

    def mutate(world: World) -> None:
        folder = world.home / "adapters" / asset
        facts = read_manifest(folder)
        change(folder, facts)
        write_manifest(folder, facts)
        fields(asset, manifest_sha256=file_sha256(folder / MANIFEST))(world)

    return mutate


def flat_curve(_: Path, facts: dict[str, Any]) -> None:
    for point in facts["outcome"]["curve"]:
        point["loss"] = 2.0


def falling_margin(_: Path, facts: dict[str, Any]) -> None:
    for point in facts["outcome"]["curve"]:
        point["reward_margin"] = -0.1 * point["step"]


def curve_with(name: str, value: float, step: int = 5) -> Callable[[Path, dict[str, Any]], None]:
    """One number of a training's curve is another."""
    return lambda _, facts: facts["outcome"]["curve"][step].update({name: value})


def renamed(old: str, new: str) -> Callable[[Path, dict[str, Any]], None]:
    """A module's matrices stand under another name."""

    def rename(folder: Path, _: dict[str, Any]) -> None:
        path = folder / "adapter_model.safetensors"
        save_file({name.replace(old, new): values for name, values in load_file(path).items()}, path)

    return rename


def extra_file(name: str) -> Callable[[str], Mutation]:
    return lambda asset: lambda world: write_text(world.home / "adapters" / asset / name, "later")


def write_text(path: Path, text: str) -> None:
    path.write_text(text, "utf-8")


def weights_that(change: Callable[[str, np.ndarray], np.ndarray]) -> Callable[[Path, dict[str, Any]], None]:
    """Rewrite every tensor of an adapter."""

    def rewrite(folder: Path, _: dict[str, Any]) -> None:
        path = folder / "adapter_model.safetensors"
        save_file({name: change(name, values) for name, values in load_file(path).items()}, path)

    return rewrite


def untrained_b(name: str, values: np.ndarray) -> np.ndarray:
    return values if name.endswith("lora_A.weight") else np.zeros_like(values)


def no_numbers(name: str, values: np.ndarray) -> np.ndarray:
    return np.full_like(values, np.nan)


def weights_of_lora(folder: Path, _: dict[str, Any]) -> None:
    name = "adapter_model.safetensors"
    shutil.copy(folder.parent / "lora_adapter" / name, folder / name)


def pickled(folder: Path, _: dict[str, Any]) -> None:
    (folder / "training_args.bin").write_bytes(b"pickle")


def damaged(asset: str) -> Mutation:
    """One byte of the configuration changes after the adapter was completed."""
    return lambda world: write_text(world.home / "adapters" / asset / "adapter_config.json", "[]")


EVERY_ADAPTER = (
    "lora_adapter",
    "prompt_tuning_adapter",
    "dpo_adapter",
    "dpo_control_adapter",
    "rejection_sampling_adapter",
    "on_policy_dpo_adapter",
    "on_policy_dpo_control_adapter",
)
ADAPTERS: dict[tuple[str, str], Mutation] = {}
for adapter in EVERY_ADAPTER:
    ADAPTERS |= {
        (adapter, "training_succeeded"): fields(adapter, failure="loss is nan at step 3: training diverged"),
        (adapter, "adapter_is_complete"): extra_file("notes.txt")(adapter),
        (adapter, "adapter_is_non_zero"): rewritten(adapter, weights_that(untrained_b)),
        (adapter, "loss_is_finite"): fields(adapter, final_loss=float("nan")),
        (adapter, "a_small_share_was_trained"): fields(adapter, total_parameters=32),
        (adapter, "curve_is_finite"): rewritten(adapter, curve_with("token_accuracy", float("nan"))),
        (adapter, "rates_are_as_configured"): rewritten(adapter, curve_with("learning_rate", 1e-3)),
        (adapter, "trained_count_is_the_closed_form"): fields(adapter, trainable_parameters=31),
    }
for adapter in ("lora_adapter", *EVERY_ADAPTER[2:]):
    ADAPTERS[adapter, "target_modules_are_adapted"] = rewritten(adapter, renamed("q_proj", "v_proj"))
for adapter in ("lora_adapter", "prompt_tuning_adapter"):
    ADAPTERS[adapter, "loss_fell"] = rewritten(adapter, flat_curve)
for adapter in ("dpo_adapter", "on_policy_dpo_adapter"):
    ADAPTERS[adapter, "chosen_became_likelier"] = rewritten(adapter, falling_margin)


def changed_file(world: World) -> None:
    (world.home / "teacher" / "config.json").write_text('{"hidden_size": 1}', "utf-8")


def first_metric(**values: object) -> Mutation:
    def mutate(world: World) -> None:
        first, *others = world.data["comparison"].metrics
        fields("comparison", metrics=[replace(first, **values), *others])(world)

    return mutate


def without_metrics(model: str) -> Mutation:
    return lambda world: fields(
        "comparison", metrics=[m for m in world.data["comparison"].metrics if m.model != model]
    )(world)


def failed_clause(world: World) -> None:
    decision = world.data["promotion_decision"]
    fields("promotion_decision", clauses=[replace(decision.clauses[0], passed=False)])(world)


RECORDS: dict[tuple[str, str], Mutation] = {
    ("teacher_model", "model_files_match"): changed_file,
    ("teacher_model", "teacher_opens_as_its_family"): fields("teacher_model", family="qwen2"),
    ("base_model", "model_files_match"): fields("base_model", revision="main"),
    ("reward_model", "model_files_match"): fields("reward_model", location="no/such/folder"),
    ("reward_model", "reward_model_is_sane"): fields("reward_model", location="owner/backwards"),
    ("comparison", "metrics_carry_n_and_interval"): first_metric(n=0),
    ("comparison", "every_model_is_a_row"): without_metrics("prompt_tuning_adapter"),
    ("comparison", "control_is_not_a_candidate"): fields("comparison", candidate="dpo_control_adapter"),
    ("comparison", "candidate_was_measured"): fields("comparison", candidate=""),
    ("promotion_decision", "decision_follows_its_clauses"): failed_clause,
    ("champion", "champion_follows_the_decision"): fields("champion", version="1"),
}

VARIANT, TIMED, STUDY = "lora_variant", "variant_latencies", "efficiency_frontier"


def variant(numbers: dict[str, float] | None = None, **values: object) -> Mutation:
    """Replace fields, or some numbers, of the variant."""

    def mutate(world: World) -> None:
        [(name, one)] = world.data[VARIANT].items()
        world.data[VARIANT] = {name: replace(one, numbers={**one.numbers, **(numbers or {})}, **values)}

    return mutate


def variant_that_learned_nothing(world: World) -> None:
    folder = world.home / "adapters" / "variant"
    facts = read_manifest(folder)
    flat_curve(folder, facts)
    write_manifest(folder, facts)


def mean_outside(world: World) -> None:
    first, *others = world.data[STUDY].means
    fields(STUDY, means=[replace(first, n=2, low=first.mean + 1, high=first.mean + 2), *others])(world)


EFFICIENCY: dict[tuple[str, str], Mutation] = {
    (VARIANT, "variant_was_trained"): variant(failure="loss is nan at step 3: training diverged"),
    (VARIANT, "variant_is_what_it_says"): variant({"trainable_parameters": 31.0}),
    (VARIANT, "variant_numbers_are_finite"): variant({"test_loss": float("nan")}),
    (VARIANT, "variant_loss_fell"): variant_that_learned_nothing,
    (TIMED, "latencies_were_measured_alone"): cells(TIMED, "other_cores", 0.3),
    (TIMED, "latencies_are_in_order"): cells(TIMED, "p95_s", 0.05),
    (STUDY, "grid_is_complete"): fields(STUDY, missing={"r4-all-none-s42": "never materialised"}),
    (STUDY, "intervals_hold_their_means"): mean_outside,
}

REWARD = "trained_reward_model"


def reward(field: str, **values: object) -> Mutation:
    """Replace fields of a part of the reward model's record."""

    def mutate(world: World) -> None:
        record = world.data[REWARD]
        world.data[REWARD] = replace(record, **{field: replace(getattr(record, field), **values)})

    return mutate


def reward_of_the_base(world: World) -> None:
    folder = world.home / "reward_models" / "reward"
    shutil.copyfile(world.home / "base_weights" / "model.safetensors", folder / "model.safetensors")
    fields(REWARD, manifest_sha256=write_manifest(folder, {}))(world)


def group_in_both_splits(world: World) -> None:
    path = world.home / "scored.parquet"
    scored = pl.read_parquet(path)
    scored.with_columns(pl.col("group").replace("g30", "g0")).write_parquet(path)


def right_by_chance(world: World) -> None:
    """Every second held-out pair is ranked wrong, and so is every one by its length."""
    path = world.home / "scored.parquet"
    even = pl.int_range(pl.len()) % 2 == 0
    scored = pl.read_parquet(path).with_columns(
        trained=pl.when(even | (pl.col("fate") == "train")).then(1.0).otherwise(-1.0), longer=-1.0
    )
    scored.write_parquet(path)
    world.data[REWARD] = replace(
        world.data[REWARD],
        held_out=accuracy_of(scored, "held_out"),
        longer=accuracy_of(scored, "held_out", "longer"),
        against_longer=against_longer(scored),
    )


REWARD_TRAINING: dict[tuple[str, str], Mutation] = {
    (REWARD, "held_out_accuracy_beats_chance"): right_by_chance,
    (REWARD, "reward_beats_longer_is_better"): reward("against_longer", p_value=0.06),
    (REWARD, "accuracies_follow_from_the_pairs"): reward("train", value=0.9),
    (REWARD, "no_group_in_both_splits"): group_in_both_splits,
    (REWARD, "reward_model_is_complete"): fields(REWARD, manifest_sha256="0" * 64),
    (REWARD, "reward_weights_changed"): reward_of_the_base,
}

MUTATIONS: dict[tuple[str, str], Mutation] = REWARD_TRAINING | EFFICIENCY | TABLES | TABLE_CHECKS | ADAPTERS | RECORDS

OTHER_WAYS: list[tuple[str, str, Mutation]] = [
    (BY_BATCH, "no_replayed_rows", lambda world: world.data[BY_BATCH].update(first=world.data[BY_BATCH][BATCH])),
    (ITEMS, "answers_are_among_the_choices", cells(ITEMS, "choices", ["one"], LAST)),
    (ITEMS, "answers_are_among_the_choices", cells(ITEMS, "choices", ["two", "two"], LAST)),
    (ITEMS, "answers_are_among_the_choices", cells(ITEMS, "answer", "the first", LAST)),
    (ITEMS, "answers_are_among_the_choices", cells(ITEMS, "answer", None)),
    ("sft_dataset", "no_leakage_between_splits", same_as_first("sft_dataset", "group", row=39)),
    ("sft_dataset", "validation_is_a_small_share", cells("sft_dataset", "split", "validation", range(20, 39))),
    (PAIRS, "margins_are_positive", cells(PAIRS, "margin", None)),
    (PAIRS, "margins_are_positive", all_mutations(
        cells(PAIRS, "margin", -1.0), cells(PAIRS, "chosen_reward", 0.5), cells(PAIRS, "rejected_reward", 1.5)
    )),
    (PAIRS, "margins_are_positive", all_mutations(
        cells(PAIRS, "margin", float("nan")), cells(PAIRS, "chosen_reward", float("nan"))
    )),
    ("sft_dataset", "no_leakage_between_splits", planted("sft_dataset")),
    ("sft_dataset", "no_leakage_between_splits", all_mutations(
        cells("sft_dataset", "instruction", f"Explain {LONG} to a child.", UNPAIRED),
        cells("sft_dataset", "instruction", f"Explain {LONG} to a parent.", LAST),
    )),
    (PAIRS, "no_leakage_between_splits", planted(PAIRS, row=0)),
    (PAIRS, "no_leakage_between_splits", lambda world: cells(
        PAIRS, "rejected", f"You ask: {world.data[ITEMS]['prompt'][0]} I do not know.")(world)),
    (PAIRS, "no_leakage_between_splits", same_as_first(PAIRS, "instruction", row=11)),
    (PAIRS, "no_leakage_between_splits", lambda world: cells(
        PAIRS, "instruction", world.data["sft_dataset"]["instruction"][-1]
    )(world)),
    (CANDIDATES, "rewards_are_finite", cells(CANDIDATES, "reward", None)),
    (CANDIDATES, "rewards_are_finite", cells(CANDIDATES, "reward", float("inf"))),
    (OWN_CANDIDATES, "candidates_are_the_policys_own", cells(OWN_CANDIDATES, "model", None)),
    (OWN_CANDIDATES, "candidates_are_the_policys_own", fields("lora_adapter", fingerprint="0" * 16)),
    (SCORES, "scores_are_finite_with_n", cells(SCORES, "score", float("nan"))),
    (SCORES, "scores_are_finite_with_n", column(SCORES, "score", pl.lit(None, pl.Float64))),
    *[(name, "adapter_is_complete", damaged(name)) for name in EVERY_ADAPTER],
    *[(name, "adapter_is_complete", rewritten(name, pickled)) for name in EVERY_ADAPTER],
    *[(name, "adapter_is_complete", fields(name, manifest_sha256="0" * 64)) for name in EVERY_ADAPTER],
    *[(name, "adapter_is_non_zero", rewritten(name, weights_that(no_numbers))) for name in EVERY_ADAPTER],
    *[(name, "adapter_is_non_zero", rewritten(name, weights_of_lora)) for name in EVERY_ADAPTER[2:]],
    ("lora_adapter", "loss_is_finite", fields("lora_adapter", final_loss=-0.1)),
    ("lora_adapter", "a_small_share_was_trained", fields("lora_adapter", total_parameters=0)),
    ("teacher_model", "model_files_match", fields("teacher_model", revision="0" * 16)),
    ("teacher_model", "teacher_opens_as_its_family", fields("teacher_model", family="unheard-of")),
    ("comparison", "metrics_carry_n_and_interval", first_metric(value=0.9)),
    ("comparison", "metrics_carry_n_and_interval", first_metric(ci_high=float("nan"))),
    ("comparison", "metrics_carry_n_and_interval", first_metric(items_sha256="")),
    ("comparison", "control_is_not_a_candidate", fields("comparison", candidate="base")),
    ("comparison", "candidate_was_measured", fields("comparison", failures={"dpo_adapter": "diverged"})),
    (REWARD, "reward_beats_longer_is_better", reward("against_longer", difference=-0.5)),
    (REWARD, "accuracies_follow_from_the_pairs", reward("held_out", n=21)),
    (REWARD, "reward_model_is_complete", lambda world: (world.home / "reward_models/reward/model.bin").touch()),
    (REWARD, "reward_weights_changed", fields(REWARD, spec={"target_modules": ["k_proj"]})),
    (VARIANT, "variant_was_trained", variant(not_run="nf4 needs bitsandbytes, which is not installed")),
    (VARIANT, "variant_is_what_it_says", variant(spec={"rank": 2, "target_modules": ["v_proj"]})),
    (VARIANT, "variant_is_what_it_says", extra_file("notes.txt")("variant")),
    (TIMED, "latencies_are_in_order", cells(TIMED, "p99_s", None)),
    (VARIANT, "variant_numbers_are_finite", variant({"score": 1.5})),
    (VARIANT, "variant_numbers_are_finite", variant({"seconds": 0.0})),
    (TIMED, "latencies_were_measured_alone", cells(TIMED, "other_cores", None)),
    (TIMED, "latencies_are_in_order", added_row(TIMED)),
    (STUDY, "intervals_hold_their_means", lambda world: fields(STUDY, means=[
        replace(world.data[STUDY].means[0], n=2)
    ])(world)),
    ("promotion_decision", "decision_follows_its_clauses", fields("promotion_decision", clauses=[])),
    ("promotion_decision", "decision_follows_its_clauses", fields("promotion_decision", reason="")),
    ("champion", "champion_follows_the_decision", fields("champion", flagged=True)),
]  # fmt: skip


def test_good_data_passes_every_check(
    world: World, run_checks: RunChecks, all_checks: list[dg.AssetChecksDefinition]
) -> None:
    verdicts = run_checks(world)
    assert verdicts.keys() == keys(all_checks)
    assert [key for key, passed in verdicts.items() if not passed] == []


def test_checks_say_the_same_within_a_run(world: World, run_in_dagster: RunChecks) -> None:
    MUTATIONS[BY_BATCH, "no_replayed_rows"](world)
    MUTATIONS["sft_dataset", "validation_is_a_small_share"](world)
    verdicts = run_in_dagster(world)
    red = [key for key, passed in verdicts.items() if not passed]
    assert sorted(red) == [(BY_BATCH, "no_replayed_rows"), ("sft_dataset", "validation_is_a_small_share")]
    assert len(verdicts) > 30


def test_every_check_has_a_mutation(all_checks: list[dg.AssetChecksDefinition]) -> None:
    assert keys(all_checks) == MUTATIONS.keys()


@pytest.mark.parametrize(
    ("asset", "check", "mutation"),
    [*((asset, check, mutation) for (asset, check), mutation in MUTATIONS.items()), *OTHER_WAYS],
    ids=lambda part: part if isinstance(part, str) else "",
)
def test_mutation_turns_exactly_its_check_red(
    asset: str, check: str, mutation: Mutation, world: World, run_checks: RunChecks
) -> None:
    before = dict(world.data)
    mutation(world)
    changed = [name for name in world.data if world.data[name] is not before[name]] or [asset]
    verdicts = run_checks(world, *{asset, *changed})
    assert [key for key, passed in verdicts.items() if not passed] == [(asset, check)]


def keys(definitions: list[dg.AssetChecksDefinition]) -> set[tuple[str, str]]:
    return {(key.asset_key.path[-1], key.name) for definition in definitions for key in definition.check_keys}
