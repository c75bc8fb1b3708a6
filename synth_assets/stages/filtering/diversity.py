"""Diversity of the instructions of a dataset, batch by batch, and a map of them in two dimensions."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from synth_assets.reporting.figures import scatter_map
from synth_assets.text.embeddings import (
    Floats,
    TextEmbedder,
    Vectors,
    nearest_distances,
    principal_components,
    vendi_score,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MAX_ROWS = 20_000  # every pair is compared: seconds on two cores
MAX_POINTS = 2_000  # on the map
ALL = "all"


@dataclass(frozen=True)
class BatchDiversity:
    """Diversity of one batch.

    Attributes:
        batch: name of the batch; ALL for all rows.
        rows: compared rows.
        nearest_distance: mean cosine distance of an instruction to its nearest other one of the batch.
        vendi_score: effective number of distinct instructions (text/embeddings.py).
    """

    batch: str
    rows: int
    nearest_distance: float
    vendi_score: float


@dataclass(frozen=True)
class Diversity:
    """Diversity of a dataset.

    Attributes:
        embedder: model and revision.
        left_out: rows of the sample whose instruction is longer than the model reads.
        sampled_rows: rows of the sample, evenly spaced, of `rows`.
        rows: rows of the dataset.
        batches: ALL, then each batch with two rows or more.
        points: batch, x and y of rows on the map.
        explained: share of the variance on x and on y.
    """

    embedder: str
    left_out: int
    sampled_rows: int
    rows: int
    batches: tuple[BatchDiversity, ...]
    points: pl.DataFrame
    explained: tuple[float, float]

    def numbers(self) -> dict[str, float]:
        """Return the diversity of all rows by name of the number."""
        return {
            "mean_nearest_distance": self.batches[0].nearest_distance,
            "vendi_score": self.batches[0].vendi_score,
        }


def measure_diversity(rows: pl.LazyFrame, embedder: TextEmbedder) -> Diversity | None:
    """Embed the instructions of SFT_ROWS and measure how they differ; None with fewer than two embedded rows.

    Of more than MAX_ROWS rows an evenly spaced sample is measured.
    """
    total: int = rows.select(pl.len()).collect().item()
    step = -(-total // MAX_ROWS) or 1
    texts = rows.select("batch", pl.col("instruction").fill_null("")).gather_every(step).collect()
    vectors = embedder.embed(texts["instruction"].to_list())
    is_embedded = vectors.any(axis=1)
    vectors, batch = vectors[is_embedded], texts["batch"].fill_null("-").gather(np.flatnonzero(is_embedded))
    if len(vectors) < 2:
        return None
    names = batch.to_numpy()
    parts = [(name, vectors[np.flatnonzero(names == name)]) for name in sorted(set(names.tolist()))]
    points, explained = principal_components(vectors)
    return Diversity(
        embedder=embedder.name,
        left_out=texts.height - len(vectors),
        sampled_rows=texts.height,
        rows=total,
        batches=tuple(_measured(name, part) for name, part in [(ALL, vectors), *parts] if len(part) > 1),
        points=_points(batch, points),
        explained=(float(explained[0]), float(explained[1])),
    )


def diversity_map(diversity: Diversity) -> "Figure":
    """Return the map of the instructions on their first two principal components."""
    groups = {str(name): part.select("x", "y").to_numpy() for (name,), part in diversity.points.group_by("batch")}
    shares = [f"component {number} ({share:.1%} of variance)" for number, share in enumerate(diversity.explained, 1)]
    title = f"PCA of {diversity.points.height:,} instruction embeddings"
    return scatter_map(dict(sorted(groups.items())), (shares[0], shares[1]), title)


def _measured(name: str, vectors: Vectors) -> BatchDiversity:
    return BatchDiversity(name, len(vectors), float(nearest_distances(vectors).mean()), vendi_score(vectors))


def _points(batch: pl.Series, points: Floats) -> pl.DataFrame:
    chosen = np.unique(np.linspace(0, len(points) - 1, min(len(points), MAX_POINTS)).astype(np.int64))
    return pl.DataFrame({"batch": batch.gather(chosen), "x": points[chosen, 0], "y": points[chosen, 1]})
