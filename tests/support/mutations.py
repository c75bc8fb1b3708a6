"""Mutations of good data: change cells, columns and rows of a table, fields of a record, files of an adapter."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl

from synth_assets.storage.manifests import MANIFEST, file_sha256, read_manifest, write_manifest
from tests.support.world import BATCH, World

BY_BATCH = "raw_instructions"


Mutation = Callable[[World], None]


def table_of(world: World, asset: str) -> pl.DataFrame:
    return world.data[asset][BATCH] if asset == BY_BATCH else world.data[asset]


def put(world: World, asset: str, table: pl.DataFrame) -> None:
    if asset == BY_BATCH:
        world.data[asset][BATCH] = table
    else:
        world.data[asset] = table


def cells(asset: str, column: str, value: object, rows: range = range(1)) -> Mutation:
    """Write `value` into a column of some rows; negative rows count from the end."""

    def mutate(world: World) -> None:
        table = table_of(world, asset)
        values = table[column].to_list()
        for row in rows:
            values[row] = value
        put(world, asset, table.with_columns(pl.Series(column, values, dtype=table.schema[column])))

    return mutate


def column(asset: str, name: str, value: pl.Expr) -> Mutation:
    """Replace a whole column."""
    return lambda world: put(world, asset, table_of(world, asset).with_columns(value.alias(name)))


def same_as_first(asset: str, name: str, row: int = 1) -> Mutation:
    """Copy a cell of the first row into another row."""
    return lambda world: cells(asset, name, table_of(world, asset)[name][0], range(row, row + 1))(world)


def added_row(asset: str, **values: object) -> Mutation:
    """Add the first row again, with other values in some columns."""

    def mutate(world: World) -> None:
        table = table_of(world, asset)
        again = table.head(1).with_columns(pl.lit(v, table.schema[name]).alias(name) for name, v in values.items())
        put(world, asset, pl.concat([table, again]))

    return mutate


def first_rows(asset: str, rows: int) -> Mutation:
    return lambda world: put(world, asset, table_of(world, asset).head(rows))


def fields(asset: str, **values: object) -> Mutation:
    """Replace fields of a record."""

    def mutate(world: World) -> None:
        world.data[asset] = replace(world.data[asset], **values)

    return mutate


def all_mutations(*mutations: Mutation) -> Mutation:
    def mutate(world: World) -> None:
        for each in mutations:
            each(world)

    return mutate


def rewritten(asset: str, change: Callable[[Path, dict[str, Any]], None]) -> Mutation:
    """Change the files of an adapter or its manifest's facts, and complete it again as the trainer does."""

    def mutate(world: World) -> None:
        folder = world.home / "adapters" / asset
        facts = read_manifest(folder)
        change(folder, facts)
        write_manifest(folder, facts)
        fields(asset, manifest_sha256=file_sha256(folder / MANIFEST))(world)

    return mutate


def extra_file(name: str) -> Callable[[str], Mutation]:
    return lambda asset: lambda world: write_text(world.home / "adapters" / asset / name, "later")


def write_text(path: Path, text: str) -> None:
    path.write_text(text, "utf-8")
