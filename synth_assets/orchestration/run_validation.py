"""Validate the run config of every asset before the first step of a run."""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import dagster as dg
from pydantic import ValidationError

from resources.hardware import Hardware
from synth_assets.evals.scoring import EvaluationSpec
from synth_assets.evals.suites import find_suites
from synth_assets.llm.vllm_generator import LORA_RANKS
from synth_assets.schemas.preference_rounds import ON_POLICY
from synth_assets.stages.adapters.config import config_of_method
from synth_assets.stages.benchmarks.assets import BenchmarksConfig
from synth_assets.stages.efficiency.config import FrontierConfig, LatencyConfig
from synth_assets.stages.efficiency.grid import wanted_variants
from synth_assets.stages.efficiency.latencies import LatencySpec
from synth_assets.stages.evaluation.config import ComparisonConfig, EvaluationConfig
from synth_assets.stages.evaluation.profiles import PreferenceSpec
from synth_assets.stages.export.config import (
    GgufModelConfig,
    HubReleaseConfig,
    MergedModelConfig,
    OllamaModelConfig,
)
from synth_assets.stages.export.hub import check_repository
from synth_assets.stages.export.merge import check_dtype
from synth_assets.stages.export.ollama_export import check_quantisation
from synth_assets.stages.filtering.config import FilterConfig, SplitConfig
from synth_assets.stages.filtering.semantic import SemanticSpec
from synth_assets.stages.filtering.spec import FilterSpec
from synth_assets.stages.filtering.split import SplitSpec
from synth_assets.stages.generation.config import MagpieConfig
from synth_assets.stages.generation.spec import MagpieSpec
from synth_assets.stages.preference.candidates import CandidateSpec, OnPolicyCandidateSpec
from synth_assets.stages.preference.config import CandidateConfig, PairConfig
from synth_assets.stages.preference.pairs import PairSpec
from synth_assets.stages.promotion.config import PromotionConfig
from synth_assets.stages.reward_training.config import RewardTrainingConfig
from synth_assets.training.difficulty import COLUMNS
from synth_assets.training.lora_modules import missing_modules
from synth_assets.training.methods import METHODS, Method
from synth_assets.training.sft import FLASH
from synth_assets.training.specs import LoraSpec, OptimizationSpec, PromptTuningSpec, RewardSpec

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Columns = frozenset[str]
NO_COLUMNS: Columns = frozenset()


class SettingsError(ValueError):
    """Invalid settings. The message names asset, field, expected and actual value."""


@dataclass(frozen=True)
class Settings:
    """Validation of the config of one asset.

    Attributes:
        config: config class of the asset.
        build: builds the spec that the asset uses; raises ValueError for an invalid value.
        rows: columns of the training rows.
    """

    config: type[dg.Config]
    build: Callable[[Any, Hardware], object]
    rows: Columns = NO_COLUMNS


def _spec(config: type[dg.Config], default: "DataclassInstance", *others: "DataclassInstance") -> Settings:
    def build(values: dg.Config, hardware: Hardware) -> object:
        return [hardware.spec(each, values) for each in (*others, default)][-1]

    return Settings(config, build)


def _training(method: Method, name: str) -> Settings:
    change = method.control if method.control and name == method.control_adapter else lambda spec: spec
    default: Any = method.spec
    return Settings(
        config_of_method(method), lambda values, hardware: change(hardware.spec(default(), values)), method.columns
    )


SETTINGS: Mapping[str, Settings] = {
    "raw_instructions": _spec(MagpieConfig, MagpieSpec()),
    "benchmark_items": Settings(BenchmarksConfig, lambda values, hardware: find_suites(values.suites or ())),
    "filtered_instructions": _spec(FilterConfig, FilterSpec(), SemanticSpec()),
    "sft_dataset": _spec(SplitConfig, SplitSpec()),
    "filtered_preferences": _spec(FilterConfig, FilterSpec(), SemanticSpec()),
    "response_candidates": _spec(CandidateConfig, CandidateSpec()),
    "preference_pairs": _spec(PairConfig, PairSpec()),
    **{name: _training(method, name) for method in METHODS.values() for name in method.adapters},
    **{round_.candidates: _spec(CandidateConfig, OnPolicyCandidateSpec()) for round_ in ON_POLICY},
    **{round_.pairs: _spec(PairConfig, PairSpec()) for round_ in ON_POLICY},
    "benchmark_scores": _spec(EvaluationConfig, EvaluationSpec()),
    "comparison": _spec(ComparisonConfig, PreferenceSpec()),
    "promotion_decision": Settings(PromotionConfig, lambda values, _: values.policy()),
    "trained_reward_model": _spec(RewardTrainingConfig, RewardSpec()),
    "merged_model": Settings(MergedModelConfig, lambda values, _: check_dtype(values.dtype)),
    "gguf_model": Settings(GgufModelConfig, lambda values, _: values.options().check()),
    "ollama_model": Settings(OllamaModelConfig, lambda values, _: check_quantisation(values.quantisation)),
    "hub_release": Settings(HubReleaseConfig, lambda values, _: check_repository(values.repository)),
    "variant_latencies": _spec(LatencyConfig, LatencySpec()),
    "efficiency_frontier": Settings(
        FrontierConfig, lambda values, _: wanted_variants(full=values.full, seeds=values.seeds, ranks=values.ranks)
    ),
}
"""Validation by op name."""


def check_settings(run_config: Mapping[str, Any], hardware: Hardware) -> None:
    """Validate the settings of every asset in a run config by building its spec.

    Args:
        run_config: Dagster's run config; assets that it does not configure are skipped.
        hardware: the tier and its models.

    Raises:
        SettingsError: lists every invalid value.
    """
    problems = [
        problem
        for name, op in (run_config.get("ops") or {}).items()
        for problem in _problems(name, (op or {}).get("config") or {}, hardware)
    ]
    if problems:
        raise SettingsError("; ".join(problems))


def _problems(name: str, config: Mapping[str, Any], hardware: Hardware) -> Iterator[str]:
    """Yield the problems in the config of an asset. Values from environment variables are not known yet."""
    values = {
        field: value for field, value in config.items() if not (isinstance(value, dict) and set(value) == {"env"})
    }
    if infinite := [field for field, value in values.items() if not _finite(value)]:
        yield from (f"{name}.{field} must be finite, got {values[field]}" for field in infinite)
        return
    if name not in SETTINGS:
        return
    settings = SETTINGS[name]
    try:
        spec = settings.build(settings.config(**values), hardware)
    except ValidationError as error:
        for problem in error.errors():
            field = ".".join(map(str, problem["loc"]))
            yield f"{name}.{field}: {problem['msg']}, got {problem['input']!r}"
    except ValueError as error:
        message = _without_class(str(error))
        dot = "." if message.split()[0] in settings.config.model_fields else ": "
        yield f"{name}{dot}{message}"
    else:
        if isinstance(spec, OptimizationSpec):
            yield from (f"{name}.{problem}" for problem in _training_problems(spec, values, settings.rows, hardware))


def _training_problems(
    spec: OptimizationSpec, values: Mapping[str, Any], rows: Columns, hardware: Hardware
) -> Iterator[str]:
    """Yield the parts of a spec that this tier, the base model or the rows do not support."""
    tier = hardware.row()
    if spec.order == "packed" and (isinstance(spec, PromptTuningSpec) or not _has_flash(tier.attention)):
        yield f"order must not be packed here: packing needs {FLASH} and an adapter without virtual tokens"
    column = COLUMNS.get(spec.difficulty)
    if spec.order == "curriculum" and column and column not in rows:
        yield f"difficulty must not be {spec.difficulty}: the rows of this training have no column {column}"
    if not isinstance(spec, LoraSpec):
        return
    if spec.rank > LORA_RANKS[-1] and tier.engine == "vllm" and find_spec("vllm"):
        yield (
            f"rank must be at most {LORA_RANKS[-1]} if vLLM evaluates the adapter, got {spec.rank}. Lower it, or "
            "uninstall vllm to evaluate with Transformers"
        )
    if "target_modules" in values and (missing := missing_modules(hardware.location("base"), spec)):
        yield f"target_modules: {missing}"


def _has_flash(attention: str) -> bool:
    return attention == FLASH and find_spec("flash_attn") is not None


def _finite(value: object) -> bool:
    if isinstance(value, dict):
        return all(map(_finite, value.values()))
    if isinstance(value, list):
        return all(map(_finite, value))
    return not isinstance(value, float) or math.isfinite(value)


def _without_class(message: str) -> str:
    """Return the message without the class name of the spec in front of the field."""
    head, dot, tail = message.partition(".")
    return tail if dot and head.endswith(("Spec", "Policy")) and head.isalpha() else message
