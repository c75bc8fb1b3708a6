import dagster as dg

from synth_assets.definitions import build_definitions, deployment_resources


def test_code_location_holds_the_checks_that_have_mutations(all_checks: list[dg.AssetChecksDefinition]) -> None:
    graph = build_definitions(deployment_resources()).resolve_asset_graph()
    assert graph.asset_check_keys == {key for definition in all_checks for key in definition.check_keys}
