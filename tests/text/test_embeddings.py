"""Cosines of whole-number vectors: exact in any block, and figures worked by hand."""

import numpy as np
import pytest

from synth_assets.text import embeddings
from synth_assets.text.embeddings import (
    SCALE,
    VectorFile,
    cosines,
    nearest,
    nearest_distances,
    principal_components,
    quantised,
    semantic_repeats,
    vendi_score,
)


def at(*degrees: float) -> np.ndarray:
    angles = np.deg2rad(degrees)
    return quantised(np.stack([np.cos(angles), np.sin(angles)], axis=1))


def test_a_vector_is_stored_as_a_unit_vector_in_whole_numbers() -> None:
    assert quantised(np.array([[3.0, 4.0], [0.0, 0.0]])).tolist() == [[round(0.6 * SCALE), round(0.8 * SCALE)], [0, 0]]


def test_cosines_depend_on_the_two_texts_alone() -> None:
    vectors = quantised(np.random.default_rng(0).normal(size=(50, 384)))
    together = cosines(vectors, vectors)
    exact = vectors.astype(np.int64) @ vectors.astype(np.int64).T
    norms = np.sqrt(np.diag(exact))
    assert together == pytest.approx(exact / np.outer(norms, norms), abs=1e-6)
    alone = [[cosines(vectors[[row]], vectors[[column]])[0, 0] for column in range(50)] for row in range(50)]
    assert np.array_equal(together, alone)
    assert np.diag(together) == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("block", [1, 2, 3, 1024])
def test_a_text_repeats_only_one_that_is_kept(monkeypatch: pytest.MonkeyPatch, block: int) -> None:
    monkeypatch.setattr(embeddings, "BLOCK_ROWS", block)
    # cos 20 degrees = .94: 20 repeats 0; 40 is near 20, which is rejected, and not near 0
    repeats = semantic_repeats(at(0, 20, 40, 90, 41), np.arange(5), 0.9)
    assert repeats.text.tolist() == [1, 4]
    assert repeats.original.tolist() == [0, 2]
    assert repeats.similarity == pytest.approx([0.94, 1.0], abs=0.01)
    reverse = semantic_repeats(at(0, 20, 40, 90, 41), np.arange(5)[::-1], 0.9)
    assert (reverse.text.tolist(), reverse.original.tolist()) == ([2, 1], [4, 4])


def test_the_nearest_reference_is_found_across_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embeddings, "BLOCK_ROWS", 2)
    index, similarity = nearest(at(0, 10, 90), at(50, 12, 12, 200))
    assert index.tolist() == [1, 1, 0]
    assert similarity == pytest.approx([0.978, 0.999, 0.766], abs=0.002)
    index, similarity = nearest(at(0), np.zeros((1, 2), np.int16))
    assert (index.tolist(), similarity.tolist()) == ([-1], [0.0])


def test_distances_are_those_to_the_nearest_other_text(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embeddings, "BLOCK_ROWS", 2)
    assert nearest_distances(at(0, 0, 90)) == pytest.approx([0, 0, 1], abs=1e-3)
    assert nearest_distances(at(0, 60)) == pytest.approx([0.5, 0.5], abs=1e-3)


def test_the_vendi_score_is_the_effective_number_of_texts() -> None:
    assert vendi_score(at(0, 90)) == pytest.approx(2)
    assert vendi_score(at(30, 30, 30)) == pytest.approx(1)
    # two of three alike: eigenvalues 2/3 and 1/3, entropy .6365
    assert vendi_score(at(0, 0, 90)) == pytest.approx(np.exp(0.6365), abs=1e-3)


def test_points_on_a_line_have_one_component() -> None:
    points, explained = principal_components(at(-30, 30, -30, 30))
    assert explained == pytest.approx([1, 0], abs=1e-3)
    assert points[:, 0] == pytest.approx([-0.5, 0.5, -0.5, 0.5], abs=1e-3)


def test_a_vector_file_returns_what_was_added() -> None:
    with VectorFile() as file:
        assert file.vectors().shape == (0, 0)
        file.append(at(0, 90))
        file.append(at(45))
        assert file.vectors().tolist() == at(0, 90, 45).tolist()
