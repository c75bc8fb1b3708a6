"""Add a training method, a filter rule and a benchmark where docs/architecture.md says, in a copy of the project."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[1]

METHOD = """
        Method(
            key="fake",
            spec=FakeSpec,
            train=lambda base, plan: train_lora(base, plan.rows, _spec(plan), plan.setup),
            rows="sft_dataset",
            description="A fake method.",
            control=lambda spec: spec,
        ),
        Method(
            key="lora","""
SPEC = '''
@dataclass(frozen=True, kw_only=True)
class FakeSpec(LoraSpec):
    """Settings of the fake method."""

    strength: float = setting(0.5, "Strength of the fake loss.")


AdapterSpec = '''
RULE = '''
    Rule("says_fake", "content", lambda rows: rows.matches("response", "fake"), for_rejected=True),
    Rule("trivial_answer"'''
SUITE = '''
"""A fake benchmark."""

from synth_assets.evals.suite import Item, Suite


def items() -> list[Item]:
    return []


SUITE = Suite(name="fake_suite", kind="generation", metrics=("acc",), items=items, score=lambda *_: {"acc": 1.0})
'''
REPORT = """
import json, sys
from synth_assets.definitions import defs
from synth_assets.evals.suites import SUITES
from synth_assets.stages.adapters.config import config_of_method
from synth_assets.stages.filtering.preferences import PREFERENCE_REASONS
from synth_assets.stages.filtering.rules import RULES
from synth_assets.training.methods import ADAPTERS, CONTROLS, METHODS
from checks.adapters import ONLY_FOR
sys.path.insert(0, "docs")
import generate_reference
graph = defs().resolve_asset_graph()
assets = [key.to_user_string() for key in graph.get_all_asset_keys()]
checks = [key.name for key in graph.asset_check_keys if key.asset_key.to_user_string() == "fake_adapter"]
print(json.dumps({
    "assets": [name for name in assets if "fake" in name],
    "roster": [name for name in (*ADAPTERS, *CONTROLS) if "fake" in name],
    "config": sorted(config_of_method(METHODS["fake"]).model_fields)[-3:],
    "checks": checks,
    "lora_only": "fake_adapter" in ONLY_FOR["target_modules_are_adapted"],
    "rules": [rule.reason for rule in RULES if "fake" in rule.reason],
    "preference_reasons": [reason for reason in PREFERENCE_REASONS if "fake" in reason],
    "suites": [name for name in SUITES if "fake" in name],
    "documented": "Strength of the fake loss." in generate_reference.config_page(),
}))
"""


def insert(path: Path, before: str, text: str) -> None:
    """Replace the first occurrence of `before`, with which `text` ends."""
    source = path.read_text("utf-8")
    assert before in source, path
    path.write_text(source.replace(before, text.lstrip("\n"), 1), "utf-8")


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("project")
    for name in ("synth_assets", "resources", "checks", "docs", "docker"):
        shutil.copytree(PROJECT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", "*.png"))
    package = folder / "synth_assets"
    insert(package / "training" / "specs.py", "\nAdapterSpec = ", SPEC)
    methods = package / "training" / "methods.py"
    insert(methods, '        Method(\n            key="lora",', METHOD)
    insert(methods, "    DpoSpec,\n", "    DpoSpec,\n    FakeSpec,\n")
    insert(package / "stages" / "filtering" / "rules" / "__init__.py", '    Rule("trivial_answer"', RULE)
    suites = package / "evals" / "suites"
    (suites / "fake_suite.py").write_text(SUITE.lstrip("\n"), "utf-8")
    insert(suites / "__init__.py", "    gsm8k,\n", "    fake_suite,\n    gsm8k,\n")
    return folder


def test_one_row_adds_a_method_a_rule_and_a_benchmark(copy: Path) -> None:
    suites = copy / "synth_assets" / "evals" / "suites" / "__init__.py"
    text = suites.read_text("utf-8")
    suites.write_text(text.replace("gsm8k.SUITE,", "gsm8k.SUITE,\n        fake_suite.SUITE,", 1), "utf-8")
    result = subprocess.run(
        [sys.executable, "-c", REPORT], cwd=copy, env={"PATH": "", "HOME": str(copy), "PYTHONPATH": str(copy)},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr[-2_000:]
    found = json.loads(result.stdout.splitlines()[-1])
    assert sorted(found["assets"]) == ["fake_adapter", "fake_control_adapter"]
    assert found["roster"] == ["fake_adapter", "fake_control_adapter", "fake_control_adapter"]
    assert found["config"][-1] == "weight_decay"
    assert {"training_succeeded", "adapter_is_complete", "target_modules_are_adapted"} <= set(found["checks"])
    assert found["lora_only"]
    assert found["rules"] == ["says_fake"]
    assert found["preference_reasons"] == ["says_fake", "rejected_answer_says_fake"]
    assert found["suites"] == ["fake_suite"]
    assert found["documented"]
