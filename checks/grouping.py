"""Run several checks of one asset in one step, because starting a process takes longer than most checks."""

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
    """Return a multi-asset check from functions; any subset of them can be run.

    A function gives the check its name, its docstring as description, and its parameters: assets by their key,
    resources, and `context`.

    Args:
        asset: the asset's key.
        blocking: checks that block downstream assets.
        watching: checks that do not.
        keys: asset key by parameter name where they differ, so that one function checks several assets.
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

    def step(context: dg.AssetCheckExecutionContext, **inputs: object) -> Iterator[dg.AssetCheckResult]:
        arguments = {CONTEXT: context, **inputs}
        for name in sorted(key.name for key in context.selected_asset_check_keys):
            names = inspect.signature(functions[name]).parameters
            result = functions[name](**{parameter: arguments[parameter] for parameter in names})
            yield result._replace(asset_key=dg.AssetKey(asset), check_name=name)

    signature_parameters = [
        parameter for check in functions.values() for parameter in inspect.signature(check).parameters.values()
    ]
    parameters = {parameter.name: parameter for parameter in signature_parameters if parameter.name != CONTEXT}
    context, *_ = inspect.signature(step).parameters.values()
    step.__signature__ = inspect.Signature([context, *parameters.values()])  # pyright: ignore[reportFunctionMemberAccess]
    step.__annotations__ = {name: parameter.annotation for name, parameter in parameters.items()}
    ins = {name: dg.AssetIn(keys.get(name, name)) for check in functions.values() for name in _inputs(check)}
    return dg.multi_asset_check(name=f"{asset}_checks", specs=specs, can_subset=True, ins=ins)(step)


def _inputs(check: Check) -> list[str]:
    """Return the assets that a check reads: its parameters except the context and resources."""
    return [
        name
        for name, parameter in inspect.signature(check).parameters.items()
        if name != CONTEXT and not _is_resource(parameter.annotation)
    ]


def _is_resource(annotation: object) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, dg.ConfigurableResource)
