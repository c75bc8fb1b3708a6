from dataclasses import replace

from resources.evaluated_models import ADAPTER_INS, evaluated_adapters
from synth_assets.schemas.records import AdapterRecord
from synth_assets.training.methods import OPTIONAL_ADAPTERS, PIPELINE_ADAPTERS
from tests.support.records import make_adapter

VERSIONS = {"base_model": "b1", "preference_pairs": "p1"}


def upstream(**optional: AdapterRecord) -> dict[str, AdapterRecord | None]:
    """Every adapter of the pipeline, trained on VERSIONS, and the given optional ones."""
    records = {name: replace(make_adapter(name=name), data_versions=VERSIONS) for name in PIPELINE_ADAPTERS}
    return {name: {**records, **optional}.get(name) for name in ADAPTER_INS}


def trained(name: str, **versions: str) -> AdapterRecord:
    return replace(make_adapter(name=name), data_versions={**VERSIONS, **versions})


def test_adapters_that_were_never_trained_are_left_out() -> None:
    lines: list[str] = []
    assert [record.name for record in evaluated_adapters(upstream(), lines.append)] == list(PIPELINE_ADAPTERS)
    assert not lines
    assert set(OPTIONAL_ADAPTERS) | set(PIPELINE_ADAPTERS) == set(ADAPTER_INS)


def test_an_optional_adapter_is_evaluated_if_it_saw_the_same_inputs() -> None:
    lines: list[str] = []
    records = {
        "kto_adapter": trained("kto_adapter", lora_adapter="l1"),
        "orpo_adapter": trained("orpo_adapter", preference_pairs="p0"),
    }
    names = [record.name for record in evaluated_adapters(upstream(**records), lines.append)]
    assert names == [name for name in ADAPTER_INS if name in (*PIPELINE_ADAPTERS, "kto_adapter")]
    assert lines == [
        "orpo_adapter is not evaluated: it was trained on other versions of preference_pairs. Materialise it again"
    ]
