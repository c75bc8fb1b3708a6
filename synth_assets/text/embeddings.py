"""Embeddings of texts as whole numbers, and exact cosine similarities between them.

A component of a unit vector is stored as a multiple of 1/SCALE. The product of two such vectors is a sum of whole
numbers below 2^24, which float32 adds exactly in any order (Cauchy-Schwarz bounds each partial sum). So the cosine of
two texts depends neither on the size of a block nor on threads or the BLAS library, and no decision does.
"""

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from synth_assets.text.words import Integers

SCALE = 2_048
BLOCK_ROWS = 1_024  # a block of cosines is 4 MB
Floats = NDArray[np.float64]
Vectors = NDArray[np.int16]
"""(texts, dimensions) unit vectors times SCALE; a zero vector for a text that was not embedded."""


class TextEmbedder(Protocol):
    """Maps texts to vectors whose cosine is the similarity of their meaning."""

    @property
    def name(self) -> str:
        """Return the model and its revision."""
        ...

    def embed(self, texts: Sequence[str]) -> Vectors:
        """Return the vector of each text, in order; zero for a text that is longer than the model reads."""
        ...


class SemanticRepeats(NamedTuple):
    """Positions of the texts that repeat a kept one, the kept one of each, and their cosine."""

    text: Integers
    original: Integers
    similarity: Floats


def quantised(vectors: NDArray[np.floating]) -> Vectors:
    """Return vectors of any length as unit vectors in multiples of 1/SCALE; zero vectors stay zero."""
    values = np.asarray(vectors, np.float64)
    norms = np.linalg.norm(values, axis=1, keepdims=True)
    return np.rint(SCALE * np.divide(values, norms, out=np.zeros_like(values), where=norms > 0)).astype(np.int16)


def cosines(left: Vectors, right: Vectors) -> NDArray[np.float32]:
    """Return the (left, right) cosines; 0 for zero vectors."""
    rows, columns = left.astype(np.float32), right.astype(np.float32)
    return rows @ columns.T / np.outer(_norms(rows), _norms(columns))


def nearest(vectors: Vectors, references: Vectors) -> tuple[Integers, Floats]:
    """Return the most similar reference of each vector, the first of equals, and their cosine; -1 and 0 for none."""
    index, similarity = np.full(len(vectors), -1), np.zeros(len(vectors))
    for start in range(0, len(vectors), BLOCK_ROWS):
        block = slice(start, start + BLOCK_ROWS)
        for first in range(0, len(references), BLOCK_ROWS):
            block_cosines = cosines(vectors[block], references[first : first + BLOCK_ROWS])
            best = block_cosines.argmax(axis=1)
            value = block_cosines[np.arange(len(best)), best]
            better = value > similarity[block]
            index[block] = np.where(better, first + best, index[block])
            similarity[block] = np.where(better, value, similarity[block])
    return index, similarity


def semantic_repeats(vectors: Vectors, order: Integers, similarity: float) -> SemanticRepeats:
    """Return the texts whose cosine with a text kept before them is at least `similarity`, with the first such text.

    Every text is compared with every kept one, in blocks: exact, and the memory does not grow with the texts.

    Args:
        vectors: may be a memory map.
        order: indices of the texts to compare, those to keep first.
        similarity: threshold above 0.
    """
    original, value = np.full(order.size, -1), np.zeros(order.size)
    kept = np.zeros(0, np.int64)  # positions in `order`
    for start in range(0, order.size, BLOCK_ROWS):
        positions = np.arange(start, min(start + BLOCK_ROWS, order.size))
        own = vectors[order[positions]]
        for first in range(0, kept.size, BLOCK_ROWS):
            references = kept[first : first + BLOCK_ROWS]
            similar = cosines(own, vectors[order[references]]) >= similarity
            fresh = similar.any(axis=1) & (original[positions] < 0)
            original[positions[fresh]] = references[similar[fresh].argmax(axis=1)]
        _repeats_within(original, positions, cosines(own, own) >= similarity)
        kept = np.concatenate([kept, positions[original[positions] < 0]])
    text = np.flatnonzero(original >= 0)
    for start in range(0, text.size, BLOCK_ROWS):
        some = text[start : start + BLOCK_ROWS]
        pair = vectors[order[some]].astype(np.float32), vectors[order[original[some]]].astype(np.float32)
        value[some] = np.einsum("ij,ij->i", *pair) / (_norms(pair[0]) * _norms(pair[1]))
    return SemanticRepeats(order[text], order[original[text]], value[text])


def _repeats_within(original: Integers, positions: Integers, similar: NDArray[np.bool_]) -> None:
    """Note for each text of a block the first kept text before it in the block that it repeats."""
    is_kept = original[positions] < 0
    for place in np.flatnonzero(np.tril(similar, -1).any(axis=1) & is_kept):
        before = np.flatnonzero(similar[place, :place] & is_kept[:place])
        if before.size:
            original[positions[place]], is_kept[place] = positions[before[0]], False


class VectorFile:
    """Vectors in a temporary file, so that memory does not grow with the texts; use as a context manager."""

    def __init__(self, folder: Path | None = None) -> None:
        """Create the unnamed file in `folder`, or in the system's temporary folder."""
        self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115
        self._shape = (0, 0)

    def __enter__(self) -> Self:
        """Return the file."""
        return self

    def __exit__(self, *exception: object) -> None:
        """Delete the file."""
        self._file.close()

    def append(self, vectors: Vectors) -> None:
        """Append vectors."""
        self._file.write(np.ascontiguousarray(vectors, np.int16).data)
        self._shape = (self._shape[0] + len(vectors), vectors.shape[1])

    def vectors(self) -> Vectors:
        """Return all vectors as a memory map."""
        self._file.flush()
        if not all(self._shape):
            return np.zeros(self._shape, np.int16)
        return np.memmap(self._file, np.int16, "r", shape=self._shape)


def nearest_distances(vectors: Vectors) -> Floats:
    """Return the cosine distance (1 - cosine, at least 0) of each text to its nearest other text."""
    distances = np.ones(len(vectors))
    for start in range(0, len(vectors), BLOCK_ROWS):
        block = vectors[start : start + BLOCK_ROWS]
        best = np.full(len(block), -1.0)
        for first in range(0, len(vectors), BLOCK_ROWS):
            values = cosines(block, vectors[first : first + BLOCK_ROWS])
            if first == start:
                np.fill_diagonal(values, -1.0)
            best = np.maximum(best, values.max(axis=1))
        distances[start : start + BLOCK_ROWS] = np.maximum(1.0 - best, 0.0)
    return distances


def vendi_score(vectors: Vectors) -> float:
    """Return the Vendi score: the effective number of distinct texts, from 1 to the number of texts.

    The exponential of the entropy of the eigenvalues of K/n, K the cosine kernel of n texts (Friedman and Dieng 2023,
    arXiv 2210.02410, eq. 3). They are those of the covariance of the dimensions, which limit the score to their number.
    """
    unit = _unit(vectors)
    eigenvalues = np.linalg.eigvalsh(unit.T @ unit / max(len(unit), 1))
    positive = eigenvalues[eigenvalues > 1e-12]
    return float(np.exp(-np.sum(positive * np.log(positive))))


def principal_components(vectors: Vectors, count: int = 2) -> tuple[Floats, Floats]:
    """Return (texts, count) coordinates on the first principal components and the share of variance of each.

    The sign of a component is such that its largest weight is positive.
    """
    unit = _unit(vectors)
    centred = unit - unit.mean(axis=0)
    variances, axes = np.linalg.eigh(centred.T @ centred)
    axes, variances = axes[:, ::-1][:, :count], variances[::-1]
    axes = axes * np.sign(axes[np.abs(axes).argmax(axis=0), np.arange(count)])
    return centred @ axes, np.maximum(variances[:count], 0.0) / max(float(variances.sum()), 1e-12)


def _norms(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the length of each vector, 1 for a zero vector."""
    return np.maximum(np.sqrt(np.einsum("ij,ij->i", vectors, vectors)), np.float32(1))


def _unit(vectors: Vectors) -> Floats:
    values = np.asarray(vectors, np.float64)
    return values / np.maximum(np.linalg.norm(values, axis=1, keepdims=True), 1.0)
