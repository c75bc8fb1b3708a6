"""Seeds and ids of rows: a function of what a row is, never of when or in which order it was made."""

from collections.abc import Sequence

from synth_assets.schemas.serialization import fingerprint


def row_seed(run_seed: int, batch: str, index: int) -> int:
    """The seed of row `index` of a batch, 0 .. 2**63 - 1; equal inputs give equal seeds on every machine."""
    return int(fingerprint("seed", run_seed, batch, index), 16) >> 1


def row_id(seed: int, spec_fingerprint: str) -> str:
    """Sixteen hex digits for the row that `seed` and a spec give; seeds differ between batches, so ids do."""
    return fingerprint("row", seed, spec_fingerprint)


def content_row_id(source: str, content: Sequence[object], occurrence: int) -> str:
    """Sixteen hex digits for an imported row.

    Args:
        source: name of the imported file.
        content: the row's texts, as JSON values in a fixed order.
        occurrence: how often the same content stood in the file before, so that exact copies keep ids of their own.
    """
    return fingerprint("import", source, list(content), occurrence)
