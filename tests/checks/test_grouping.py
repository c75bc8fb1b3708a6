"""Functions of one asset as one step."""

import dagster as dg

from checks.grouping import checks_of
from resources.hardware import Hardware


@dg.asset
def rows() -> int:
    return 3


@dg.asset
def items() -> int:
    return 3


def rows_are_as_many_as_items(rows: int, items: int) -> dg.AssetCheckResult:
    """As many of each."""
    return dg.AssetCheckResult(passed=rows == items)


def rows_are_many(rows: int, hardware: Hardware) -> dg.AssetCheckResult:
    """More than the tier asks for."""
    return dg.AssetCheckResult(passed=rows > hardware.row().min_rows, severity=dg.AssetCheckSeverity.WARN)


CHECKS = checks_of("rows", blocking=(rows_are_as_many_as_items,), watching=(rows_are_many,))


def evaluations(selection: dg.AssetSelection) -> dict[str, bool]:
    result = dg.materialize(
        [rows, items, CHECKS], selection=selection, resources={"hardware": Hardware(tier="cpu")}, raise_on_error=False
    )
    return {e.check_name: e.passed for e in result.get_asset_check_evaluations()}


def test_each_function_is_a_check_with_its_own_inputs_and_words() -> None:
    found = {spec.name: spec for spec in CHECKS.check_specs}
    assert {name: spec.blocking for name, spec in found.items()} == {
        "rows_are_as_many_as_items": True,
        "rows_are_many": False,
    }
    assert found["rows_are_many"].description == "More than the tier asks for."
    assert [dep.asset_key for dep in found["rows_are_as_many_as_items"].additional_deps] == [dg.AssetKey("items")]
    assert not list(found["rows_are_many"].additional_deps)


def test_all_run_in_one_step_and_one_may_run_alone() -> None:
    assert evaluations(dg.AssetSelection.all()) == {"rows_are_as_many_as_items": True, "rows_are_many": False}
    key = dg.AssetCheckKey(dg.AssetKey("rows"), "rows_are_many")
    alone = dg.AssetSelection.checks(key) | dg.AssetSelection.assets("rows", "items").without_checks()
    assert evaluations(alone) == {"rows_are_many": False}
