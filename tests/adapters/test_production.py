import math
from collections.abc import Callable
from dataclasses import replace

import polars as pl
import pytest

from synth_assets.schemas.records import ModelRecord
from synth_assets.storage.manifests import ManifestError
from synth_assets.training.budget import budget_of
from synth_assets.training.dpo import control_spec
from synth_assets.training.engine import LoadedBase
from synth_assets.training.errors import TrainingError
from synth_assets.training.plan import TrainingContext, TrainingRequest
from synth_assets.training.specs import AdapterSpec, DpoSpec, LoraSpec, RejectionSamplingSpec
from synth_assets.training.train_or_load import reference_logprobs_of, train_or_load_adapter

pytestmark = pytest.mark.integration

QUICK = LoraSpec(rank=2, alpha=4, learning_rate=5e-3, epochs=1.0, batch_size=8)


def never() -> LoadedBase:
    raise AssertionError("the base was loaded although there was nothing to train")


def test_record_describes_the_trained_adapter(
    rows: pl.DataFrame, base: ModelRecord, context: TrainingContext, load: Callable[[], LoadedBase]
) -> None:
    request = TrainingRequest("lora_adapter", QUICK, base, rows)
    record, stored = train_or_load_adapter(request, context, load)
    assert stored is not None
    assert record.path == f"adapters/{record.fingerprint}"
    assert (record.method, record.role, record.failure) == ("lora", "candidate", "")
    assert (record.spec["rank"], record.spec["batch_size"], record.spec["accumulation"]) == (2, 8, 1)
    assert math.isfinite(record.final_loss)
    assert record.cost_usd == 0.0  # the cpu tier costs nothing
    again, reused = train_or_load_adapter(request, context, never)
    assert again == record
    assert reused is not None
    assert reused.reused


def test_changed_row_changes_the_fingerprint(
    rows: pl.DataFrame, base: ModelRecord, context: TrainingContext, load: Callable[[], LoadedBase]
) -> None:
    first, _ = train_or_load_adapter(TrainingRequest("lora_adapter", QUICK, base, rows), context, load)
    changed = rows.with_columns(
        response=pl.when(pl.col("row_id") == "r3").then(pl.lit("It is 5.")).otherwise("response")
    )
    second, _ = train_or_load_adapter(TrainingRequest("lora_adapter", QUICK, base, changed), context, load)
    assert first.fingerprint != second.fingerprint


def test_continued_adapters_are_trained(
    rows: pl.DataFrame,
    pairs: pl.DataFrame,
    base: ModelRecord,
    context: TrainingContext,
    load: Callable[[], LoadedBase],
) -> None:
    lora, _ = train_or_load_adapter(TrainingRequest("lora_adapter", QUICK, base, rows), context, load)
    reference = reference_logprobs_of(pairs, lora, base, context, load)
    assert reference.equals(reference_logprobs_of(pairs, lora, base, context, never))  # read from its shards
    dpo_spec = DpoSpec(learning_rate=1e-3, batch_size=8)
    dpo, _ = train_or_load_adapter(
        TrainingRequest("dpo_adapter", dpo_spec, base, pairs, lora, reference), context, load
    )
    control_request = TrainingRequest(
        "dpo_control_adapter", control_spec(dpo_spec), base, pairs, lora, reference, role="control"
    )
    control, _ = train_or_load_adapter(control_request, context, load)
    best, _ = train_or_load_adapter(
        TrainingRequest("rejection_sampling_adapter", RejectionSamplingSpec(batch_size=8), base, pairs, lora),
        context,
        load,
    )
    assert [r.failure for r in (lora, dpo, control, best)] == [""] * 4
    assert [r.method for r in (dpo, control, best)] == ["dpo", "dpo", "rejection_sampling"]
    assert (dpo.role, control.role) == ("candidate", "control")
    assert len({r.fingerprint for r in (lora, dpo, control, best)}) == 4
    assert dpo.trainable_parameters == lora.trainable_parameters


# fault 17
def test_failed_training_gives_a_failure_record_and_fails_its_children(
    rows: pl.DataFrame,
    pairs: pl.DataFrame,
    base: ModelRecord,
    context: TrainingContext,
    load: Callable[[], LoadedBase],
) -> None:
    broken, stored = train_or_load_adapter(
        TrainingRequest("lora_adapter", replace(QUICK, learning_rate=1e30), base, rows), context, load
    )
    assert stored is None
    assert "diverged" in broken.failure or "not finite" in broken.failure
    assert (broken.path, broken.model_version) == ("", "")
    assert not context.store.exists() or not list(context.store.iterdir())
    with pytest.raises(TrainingError, match="lora_adapter failed"):
        reference_logprobs_of(pairs, broken, base, context, never)
    record, _ = train_or_load_adapter(TrainingRequest("dpo_adapter", DpoSpec(), base, pairs, broken), context, never)
    assert record.failure == f"lora_adapter failed to train: {broken.failure}"


# fault 19
@pytest.mark.parametrize(
    ("spec", "reason"),
    [
        (replace(QUICK, target_modules=["c_attn"]), "match no layer"),
        (replace(QUICK, target_modules=["q_proj", "lm_haed"]), "lm_haed match no layer"),
    ],
)
def test_a_spec_that_cannot_work_is_a_failure(
    spec: AdapterSpec,
    reason: str,
    rows: pl.DataFrame,
    base: ModelRecord,
    context: TrainingContext,
    load: Callable[[], LoadedBase],
) -> None:
    record, stored = train_or_load_adapter(TrainingRequest("lora_adapter", spec, base, rows), context, load)
    assert stored is None
    assert reason in record.failure


# fault 19
def test_invalid_requests_fail_before_the_model_is_loaded(
    rows: pl.DataFrame, base: ModelRecord, context: TrainingContext
) -> None:
    warm = TrainingRequest("lora_adapter", replace(QUICK, warmup_ratio=0.9), base, rows)
    assert "warm-up" in train_or_load_adapter(warm, context, never)[0].failure
    empty = TrainingRequest("lora_adapter", QUICK, base, rows.filter(pl.col("split") == "validation"))
    assert train_or_load_adapter(empty, context, never)[0].failure == "no rows to train on"
    half = replace(context, tier=replace(context.tier, dtype="float16"))
    assert (
        "float16" in train_or_load_adapter(TrainingRequest("lora_adapter", QUICK, base, rows), half, never)[0].failure
    )


def test_changed_parent_files_raise_manifest_error(
    rows: pl.DataFrame,
    pairs: pl.DataFrame,
    base: ModelRecord,
    context: TrainingContext,
    load: Callable[[], LoadedBase],
) -> None:
    lora, stored = train_or_load_adapter(TrainingRequest("lora_adapter", QUICK, base, rows), context, load)
    assert stored is not None
    (stored.folder / "adapter_config.json").write_text("{}")
    with pytest.raises(ManifestError, match=r"adapter_config\.json"):
        train_or_load_adapter(
            TrainingRequest("rejection_sampling_adapter", RejectionSamplingSpec(), base, pairs, lora), context, never
        )


def test_budget_stops_a_training_that_would_exceed_it(
    rows: pl.DataFrame, base: ModelRecord, context: TrainingContext, load: Callable[[], LoadedBase]
) -> None:
    frugal = replace(context, budget=budget_of(1e-4, None, 0.0))
    request = TrainingRequest("lora_adapter", QUICK, base, rows)
    record, stored = train_or_load_adapter(request, frugal, load)
    assert stored is None
    assert "stopped at step 3 of 3" in record.failure
    assert "max_minutes 0.0001" in record.failure
    assert not list(context.store.glob("*"))
    result, stored = train_or_load_adapter(request, context, load)
    assert stored is not None
    assert stored.outcome.predicted.keys() == {"tokens"}  # nobody had trained here
    other = replace(request, spec=replace(QUICK, seed=43))
    refused, _ = train_or_load_adapter(other, frugal, load)
    assert "predicted to take" in refused.failure  # from the rate of the first
    assert result.tokens_per_s > 0


def test_checkpoints_are_removed_after_training(
    rows: pl.DataFrame, base: ModelRecord, context: TrainingContext, load: Callable[[], LoadedBase]
) -> None:
    request, often = TrainingRequest("lora_adapter", QUICK, base, rows), replace(context, checkpoint_every_s=0.0)
    without, _ = train_or_load_adapter(request, context, load)
    again, stored = train_or_load_adapter(request, often, load, force=True)
    assert not list((context.root / "checkpoints").glob("*"))
    assert stored is not None
    assert again.final_loss == without.final_loss  # saving at each step changes nothing
