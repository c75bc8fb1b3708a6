"""What a run's settings ask of each asset, checked as a whole before the first step."""

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
from synth_assets.stages.adapters.assets import config_of_method
from synth_assets.stages.benchmarks.assets import BenchmarksConfig
from synth_assets.stages.efficiency.assets import FrontierConfig, LatencyConfig
from synth_assets.stages.efficiency.grid import wanted_variants
from synth_assets.stages.efficiency.latencies import LatencySpec
from synth_assets.stages.evaluation.assets import ComparisonConfig, EvaluationConfig
from synth_assets.stages.evaluation.profiles import PreferenceSpec
from synth_assets.stages.filtering.assets import FilterConfig, SplitConfig
from synth_assets.stages.filtering.spec import FilterSpec
from synth_assets.stages.filtering.split import SplitSpec
from synth_assets.stages.generation.assets import MagpieConfig
from synth_assets.stages.generation.spec import MagpieSpec
from synth_assets.stages.preference.assets import CandidateConfig, PairConfig
from synth_assets.stages.preference.candidates import CandidateSpec, OnPolicyCandidateSpec
from synth_assets.stages.preference.pairs import PairSpec
from synth_assets.stages.promotion.assets import PromotionConfig
from synth_assets.training.difficulty import COLUMNS
from synth_assets.training.lora_modules import missing_modules
from synth_assets.training.methods import METHODS, Method
from synth_assets.training.sft import FLASH
from synth_assets.training.specs import LoraSpec, OptimizationSpec, PromptTuningSpec

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Columns = frozenset[str]
NO_COLUMNS: Columns = frozenset()


class SettingsError(ValueError):
    """Settings that no step could run with; the message names asset and field, expected against got."""


@dataclass(frozen=True)
class Settings:
    """What an asset makes of its part of the run config.

    Attributes:
        config: its class.
        build: what the asset builds from it; ValueError where a value is refused.
        rows: columns of the rows that are trained on.
    """

    config: type[dg.Config]
    build: Callable[[Any, Hardware], object]
    rows: Columns = NO_COLUMNS


def _spec(config: type[dg.Config], default: "DataclassInstance") -> Settings:
    return Settings(config, lambda given, hardware: hardware.spec(default, given))


def _training(method: Method, name: str) -> Settings:
    change = method.control if method.control and name == method.control_adapter else lambda spec: spec
    default: Any = method.spec
    return Settings(
        config_of_method(method), lambda given, hardware: change(hardware.spec(default(), given)), method.columns
    )


SETTINGS: Mapping[str, Settings] = {
    "raw_instructions": _spec(MagpieConfig, MagpieSpec()),
    "benchmark_items": Settings(BenchmarksConfig, lambda given, hardware: find_suites(given.suites or ())),
    "filtered_instructions": _spec(FilterConfig, FilterSpec()),
    "sft_dataset": _spec(SplitConfig, SplitSpec()),
    "filtered_preferences": _spec(FilterConfig, FilterSpec()),
    "response_candidates": _spec(CandidateConfig, CandidateSpec()),
    "preference_pairs": _spec(PairConfig, PairSpec()),
    **{name: _training(method, name) for method in METHODS.values() for name in method.adapters},
    **{one.candidates: _spec(CandidateConfig, OnPolicyCandidateSpec()) for one in ON_POLICY},
    **{one.pairs: _spec(PairConfig, PairSpec()) for one in ON_POLICY},
    "benchmark_scores": _spec(EvaluationConfig, EvaluationSpec()),
    "comparison": _spec(ComparisonConfig, PreferenceSpec()),
    "promotion_decision": Settings(PromotionConfig, lambda given, _: given.policy()),
    "variant_latencies": _spec(LatencyConfig, LatencySpec()),
    "efficiency_frontier": Settings(
        FrontierConfig, lambda given, _: wanted_variants(full=given.full, seeds=given.seeds, ranks=given.ranks)
    ),
}
"""By the name of the asset's op."""


def check_settings(run_config: Mapping[str, Any], hardware: Hardware) -> None:
    """Build what every asset will build from its settings.

    Args:
        run_config: Dagster's; what it does not name is not looked at.
        hardware: the tier and its models.

    Raises:
        SettingsError: names every value that is refused.
    """
    problems = [
        problem
        for name, op in (run_config.get("ops") or {}).items()
        for problem in _problems(name, (op or {}).get("config") or {}, hardware)
    ]
    if problems:
        raise SettingsError("; ".join(problems))


def _problems(name: str, given: Mapping[str, Any], hardware: Hardware) -> Iterator[str]:
    """Say what is wrong with the settings of an asset; a value from an environment variable is not known yet."""
    known = {field: value for field, value in given.items() if not (isinstance(value, dict) and set(value) == {"env"})}
    if infinite := [field for field, value in known.items() if not _finite(value)]:
        yield from (f"{name}.{field} must be finite, got {known[field]}" for field in infinite)
        return
    if name not in SETTINGS:
        return
    settings = SETTINGS[name]
    try:
        built = settings.build(settings.config(**known), hardware)
    except ValidationError as error:
        for problem in error.errors():
            field = ".".join(map(str, problem["loc"]))
            yield f"{name}.{field}: {problem['msg']}, got {problem['input']!r}"
    except ValueError as error:
        message = _without_class(str(error))
        dot = "." if message.split()[0] in settings.config.model_fields else ": "
        yield f"{name}{dot}{message}"
    else:
        if isinstance(built, OptimizationSpec):
            yield from (f"{name}.{problem}" for problem in _training_problems(built, known, settings.rows, hardware))


def _training_problems(
    spec: OptimizationSpec, given: Mapping[str, Any], rows: Columns, hardware: Hardware
) -> Iterator[str]:
    """Say what of a spec this tier, its base or the rows cannot do."""
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
            f"rank must be at most {LORA_RANKS[-1]} where vLLM scores the adapter, got {spec.rank}: lower it, or "
            "uninstall vllm, so that Transformers writes the answers"
        )
    if "target_modules" in given and (missing := missing_modules(hardware.location("base"), spec)):
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
    """Return a message without the name of the spec's class before its field."""
    head, dot, tail = message.partition(".")
    return tail if dot and head.endswith(("Spec", "Policy")) and head.isalpha() else message
