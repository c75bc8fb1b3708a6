"""Seeds and ids of rows, independent of the time and order of generation."""

from collections.abc import Sequence

from synth_assets.schemas.serialization import fingerprint


def row_seed(run_seed: int, batch: str, index: int) -> int:
    """Return the seed of row `index` of a batch, 0 .. 2**63 - 1; equal inputs give equal seeds on every machine."""
    return int(fingerprint("seed", run_seed, batch, index), 16) >> 1


def row_id(seed: int, spec_fingerprint: str) -> str:
    """Return sixteen hex digits for the row of a seed and a spec; ids differ between batches as seeds do."""
    return fingerprint("row", seed, spec_fingerprint)


def content_row_id(source: str, content: Sequence[object], occurrence: int) -> str:
    """Return sixteen hex digits for an imported row.

    Args:
        source: name of the import.
        content: the row's texts, as JSON values in a fixed order.
        occurrence: number of earlier rows with the same content, so that exact copies have distinct ids.
    """
    return fingerprint("import", source, list(content), occurrence)
