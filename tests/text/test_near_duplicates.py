import numpy as np
import pytest

from synth_assets.text.disk_buffer import DiskBuffer
from synth_assets.text.minhash import SLOTS, band_rows, signatures
from synth_assets.text.near_duplicates import (
    BUCKET_LEADS,
    DuplicatePairs,
    NearDuplicates,
    components,
    first_of_kind,
    jaccard,
)
from synth_assets.text.words import hash_words


def pairs_of(*pairs: tuple[int, int]) -> DuplicatePairs:
    first, second = (np.array(column, np.int64) for column in zip(*pairs, strict=True))
    return DuplicatePairs(first, second, np.full(len(pairs), 0.9))


def found(texts: list[str], similarity: float) -> dict[tuple[int, int], float]:
    with NearDuplicates(similarity) as near:
        near.add(texts)
        pairs = near.pairs()
    return dict(zip(zip(pairs.first.tolist(), pairs.second.tolist(), strict=True), pairs.similarity, strict=True))


def test_similarity_is_the_exact_jaccard_of_five_word_shingles() -> None:
    # 8 words have 4 shingles; with the last word changed 3 are shared of 5
    texts = ["a b c d e f g h", "a b c d e f g x", "p q r s t u v w"]
    assert found(texts, 0.6) == pytest.approx({(0, 1): 0.6})
    assert found(texts, 0.61) == {}


def test_short_texts_are_similar_only_if_equal() -> None:
    assert found(["Add 3 and 4.", "Add 3 and 5.", "add 3 and 4", "", ""], 0.5) == {(0, 2): 1.0}


def test_pairs_use_ranks_and_exclude_unranked_texts() -> None:
    with NearDuplicates(0.8) as near:
        near.add(["one two", "one two"])
        near.add(["one two", "three"])
        pairs = near.pairs(np.array([2, -1, 0, 1]))
    assert (pairs.first.tolist(), pairs.second.tolist()) == ([0], [2])


def test_row_is_not_dropped_because_of_a_dropped_one() -> None:
    # 0 ~ 1 ~ 2 and 0 is not like 2: 1 repeats 0, and 2 repeats only the dropped 1, so it stays
    leader, likeness = first_of_kind(pairs_of((0, 1), (1, 2), (2, 4)), 5)
    assert leader.tolist() == [0, 0, 2, 3, 2]
    assert likeness.tolist() == [1.0, 0.9, 1.0, 1.0, 0.9]


def test_components() -> None:
    assert components(pairs_of((1, 2), (2, 4), (0, 5)), 6).tolist() == [0, 1, 1, 3, 1, 0]


def test_bands_are_as_wide_as_the_miss_rate_allows() -> None:
    # (1 - .8**5)**(128 // 5) = .00005, (1 - .8**6)**21 = .0017, (1 - .8**7)**18 = .0147
    assert band_rows(0.8) == 6
    assert band_rows(1.0) == 8
    assert band_rows(0.05) == 1


def test_signatures_of_small_sets_have_no_hole_and_agree_where_sets_do() -> None:
    values = np.array([3, 4, 5, 3, 4, 5], np.uint64)
    signature = signatures(values, np.array([0, 0, 0, 2, 2, 2]), 3)
    assert signature.shape == (3, SLOTS)
    assert (signature[0] == signature[2]).all()
    assert (signature[1] == 0xFFFFFFFF).all()
    assert (signature[0] != 0xFFFFFFFF).all()


def test_planted_near_duplicates_are_found_among_many() -> None:
    random = np.random.default_rng(1)
    vocabulary = np.array([f"w{number}" for number in range(5000)])
    words = [random.choice(vocabulary, 264) for _ in range(2000)]
    planted = []
    for original in range(600):
        copy = words[original].copy()
        copy[random.integers(0, 264, 4)] = "changed"  # at most 20 of 260 shingles: similarity above .85
        planted.append(copy)
    pairs = found([" ".join(text) for text in [*words, *planted]], 0.8)
    assert len({pair for pair in pairs if pair[1] == pair[0] + 2000}) >= 0.99 * 600
    assert not {pair for pair in pairs if pair[1] != pair[0] + 2000}


def test_hashed_words_give_the_same_pairs() -> None:
    texts = [f"a b c d e f g {number % 150}" for number in range(400)]
    with NearDuplicates(0.5) as near:
        near.add_words(hash_words(texts))
        pairs = near.pairs()
    known = zip(zip(pairs.first.tolist(), pairs.second.tolist(), strict=True), pairs.similarity, strict=True)
    assert dict(known) == found(texts, 0.5)


@pytest.mark.parametrize("similarity", [0.0, 1.1])
def test_invalid_similarity_raises(similarity: float) -> None:
    with pytest.raises(ValueError, match="similarity"):
        NearDuplicates(similarity)


def test_a_large_bucket_costs_no_more_than_its_rows_times_a_constant() -> None:
    frame = " ".join(f"frame{number}" for number in range(12))
    texts = [f"{frame} number{number} {frame}" for number in range(3000)]  # 16 of 21 shingles shared: similarity .62
    with NearDuplicates(0.8) as near:
        near.add(texts)
        candidates = near.candidates(np.arange(3000))
        assert len(near.pairs().first) == 0
    assert 0 < len(candidates) < 3000 * 4 * BUCKET_LEADS  # of 4.5 million pairs


def test_copies_in_a_large_bucket_are_found_whatever_the_chunks() -> None:
    frame = " ".join(f"frame{number}" for number in range(40))
    texts = [f"{frame} a{number} b{number} c{number}" for number in range(800)] * 2
    whole = found(texts, 0.999)
    with NearDuplicates(0.999) as near:
        for start in range(0, 1600, 7):
            near.add(texts[start : start + 7])
        pairs = near.pairs()
    assert set(whole) == set(zip(pairs.first.tolist(), pairs.second.tolist(), strict=True))
    assert set(whole) == {(number, number + 800) for number in range(800)}


def test_jaccard_of_sets_with_repetitions() -> None:
    values = np.array([1, 2, 2, 3, 3, 4, 5, 6], np.uint64) << np.uint64(32)  # {1, 2, 3}, {3, 4}, {5, 6}
    similarity = jaccard(values, np.array([4, 2, 2]), np.array([[0, 1], [1, 2], [0, 0]]))
    assert similarity.tolist() == [1 / 4, 0.0, 1.0]


def test_disk_buffer_reads_any_spans() -> None:
    spill = DiskBuffer()
    spill.append(np.arange(5, dtype=np.uint64))
    spill.append(np.arange(5, 9, dtype=np.uint64).reshape(2, 2))
    assert spill.read([(7, 9), (0, 0), (3, 6)], 5).tolist() == [7, 8, 3, 4, 5]
    with pytest.raises(EOFError):
        spill.read([(8, 10)], 2)
    spill.close()
