"""For each check of a table a mutation that makes it fail."""

from collections.abc import Callable

import polars as pl

from tests.support.mutations import (
    BY_BATCH,
    Mutation,
    added_row,
    all_mutations,
    cells,
    column,
    first_rows,
    put,
    same_as_first,
    table_of,
)
from tests.support.world import BATCH, World

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
