"""Schemas of the stored tables."""

import polars as pl

IMPORTED_BATCH = "imported"  # batch of all imported rows
TURN = pl.Struct({"role": pl.String, "content": pl.String})

INSTRUCTIONS = pl.Schema(
    {
        "row_id": pl.String,
        "source": pl.String,  # "magpie", or the name of the imported file
        "batch": pl.String,
        "history": pl.List(TURN),  # earlier turns, often empty
        "instruction": pl.String,
        "response": pl.String,
        "model": pl.String,
        "revision": pl.String,
        "engine": pl.String,
        "template": pl.String,  # model family, a key of FAMILIES
        "topic": pl.String,  # topic whose system prompt steered the user turns, a key of MagpieSpec.topics; null: none
        "seed": pl.Int64,
        "temperature": pl.Float64,
        "response_temperature": pl.Float64,
        "top_p": pl.Float64,
        "instruction_tokens": pl.Int32,
        "response_tokens": pl.Int32,
        "history_tokens": pl.Int32,  # tokens generated in `history`, whose turns are all complete
        "instruction_finish_reason": pl.String,  # "stop", "length"; null for imports
        "response_finish_reason": pl.String,
    }
)
JUDGED = pl.Schema({**INSTRUCTIONS, "score": pl.Float64})
REJECTED = pl.Schema({**INSTRUCTIONS, "reason": pl.String, "detail": pl.String})
SFT_ROWS = pl.Schema({**JUDGED, "group": pl.String, "split": pl.String})
RECALLS = pl.Schema({"row_id": pl.String, "reason": pl.String, "by": pl.String, "at": pl.String})
REVIEWS = pl.Schema(
    {
        "row_id": pl.String,
        "verdict": pl.String,  # "keep", "reject" or "edit": the last one on the row
        "instruction": pl.String,  # new text; null: unchanged
        "response": pl.String,
        "note": pl.String,
        "by": pl.String,
        "at": pl.String,
    }
)
BENCHMARK_ITEMS = pl.Schema(
    {
        "item_id": pl.String,
        "suite": pl.String,
        "split": pl.String,  # "validation", "test", or "sealed": for promotion decisions only
        "kind": pl.String,  # "generation", "choice", or "harness": an lm-eval task
        "prompt": pl.String,
        "choices": pl.List(pl.String),  # empty for generation
        "answer": pl.String,  # index of the right choice as text, or the input of the suite's verifier
        "cluster": pl.String,  # items that share a fact; intervals may resample clusters
        "item_hash": pl.String,
    }
)
CANDIDATES = pl.Schema(
    {
        "candidate_id": pl.String,
        "row_id": pl.String,  # row of sft_dataset
        "group": pl.String,
        "split": pl.String,
        "history": pl.List(TURN),  # earlier turns of the row
        "instruction": pl.String,
        "response": pl.String,
        "temperature": pl.Float64,
        "seed": pl.Int64,
        "response_tokens": pl.Int32,
        "finish_reason": pl.String,
        "model": pl.String,
        "revision": pl.String,
        "reward": pl.Float64,
    }
)
PAIRS = pl.Schema(
    {
        "pair_id": pl.String,
        "row_id": pl.String,
        "group": pl.String,
        "split": pl.String,  # "train" or "validation"
        "source": pl.String,
        "history": pl.List(TURN),  # turns before the instruction, the same for both responses
        "instruction": pl.String,
        "chosen": pl.String,
        "rejected": pl.String,
        "chosen_reward": pl.Float64,
        "rejected_reward": pl.Float64,
        "margin": pl.Float64,
    }
)
REJECTED_PAIRS = pl.Schema({**PAIRS, "reason": pl.String, "detail": pl.String})
REFERENCE_LOGPROBS = pl.Schema({"pair_id": pl.String, "chosen_logprob": pl.Float64, "rejected_logprob": pl.Float64})
ITEM_SCORES = pl.Schema(
    {
        "model": pl.String,  # "base", or the adapter asset's name
        "fingerprint": pl.String,  # of the adapter; the revision for the base
        "suite": pl.String,
        "split": pl.String,
        "item_id": pl.String,
        "cluster": pl.String,
        "metric": pl.String,
        "score": pl.Float64,  # 0..1; null if the metric does not apply
        "response": pl.String,
        "finish_reason": pl.String,  # "stop", "length", or one of UNANSWERABLE; null for rated choices
    }
)

CONTEXT_EXCEEDED, TEMPLATE_REFUSED = "context_exceeded", "template_refused"
UNANSWERABLE = (CONTEXT_EXCEEDED, TEMPLATE_REFUSED)
"""Values of `finish_reason` for an item that a model cannot take: its score is null and it is excluded."""
