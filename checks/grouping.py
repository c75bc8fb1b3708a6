"""Several checks of one asset as one step: starting a process takes longer than most of them do."""

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import MappingProxyType

import dagster as dg

Check = Callable[..., dg.AssetCheckResult]
CONTEXT = "context"


def checks_of(
    asset: str,
    *,
    blocking: Sequence[Check] = (),
    watching: Sequence[Check] = (),
    keys: Mapping[str, str] = MappingProxyType({}),
) -> dg.AssetChecksDefinition:
    """The checks of one asset that are functions; a person may run any subset of them.

    A function gives the check its name, its docstring as description, and its parameters: assets by their key,
    resources, and `context`.

    Args:
        asset: the asset's key.
        blocking: checks that stop what reads the asset.
        watching: checks that do not.
        keys: assets that a parameter stands for by another name, so that one function checks several.
    """
    functions = {check.__name__: check for check in (*blocking, *watching)}
    specs = [
        dg.AssetCheckSpec(
            name,
            asset=asset,
            description=inspect.getdoc(check),
            blocking=check in blocking,
            additional_deps=[key for name in _inputs(check) if (key := keys.get(name, name)) != asset],
        )
        for name, check in functions.items()
    ]

    def step(context: dg.AssetCheckExecutionContext, **given: object) -> Iterator[dg.AssetCheckResult]:
        known = {CONTEXT: context, **given}
        for name in sorted(key.name for key in context.selected_asset_check_keys):
            wanted = inspect.signature(functions[name]).parameters
            result = functions[name](**{parameter: known[parameter] for parameter in wanted})
            yield result._replace(asset_key=dg.AssetKey(asset), check_name=name)

    own = [parameter for check in functions.values() for parameter in inspect.signature(check).parameters.values()]
    parameters = {parameter.name: parameter for parameter in own if parameter.name != CONTEXT}
    context, *_ = inspect.signature(step).parameters.values()
    step.__signature__ = inspect.Signature([context, *parameters.values()])  # pyright: ignore[reportFunctionMemberAccess]
    step.__annotations__ = {name: parameter.annotation for name, parameter in parameters.items()}
    ins = {name: dg.AssetIn(keys.get(name, name)) for check in functions.values() for name in _inputs(check)}
    return dg.multi_asset_check(name=f"{asset}_checks", specs=specs, can_subset=True, ins=ins)(step)


def _inputs(check: Check) -> list[str]:
    """The assets that a check reads: its parameters but for the context and resources."""
    return [
        name
        for name, parameter in inspect.signature(check).parameters.items()
        if name != CONTEXT and not _is_resource(parameter.annotation)
    ]


def _is_resource(annotation: object) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, dg.ConfigurableResource)
