import numpy as np
import pytest

from synth_assets.text.lexicon import contained, hash_lexicon
from synth_assets.text.words import (
    TokenHashes,
    fold,
    hash_words,
    ngrams,
    normalise,
    normalised_bytes,
    shingles,
    whole_texts,
)


def test_words_are_counted_per_text_and_equal_words_have_equal_hashes() -> None:
    words = hash_words(["Hello world", "", "WORLD, hello!", "\n"])
    assert words.counts().tolist() == [2, 0, 2, 0]
    assert words.text.tolist() == [0, 0, 2, 2]
    assert words.hashes[0] == words.hashes[3]
    assert words.hashes[1] == words.hashes[2]
    assert words.sizes.tolist() == [5, 5, 5, 5]


def test_no_texts_have_no_words() -> None:
    assert hash_words([]).counts().tolist() == []


def test_a_hash_does_not_depend_on_the_place_of_the_word() -> None:
    far = "x " * 5000 + "needle"
    assert hash_words([far]).hashes[-1] == hash_words(["needle"]).hashes[0]


def test_hashes_of_many_words_are_distinct() -> None:
    words = [f"word{number}" for number in range(200_000)]
    assert np.unique(hash_words([" ".join(words)]).hashes).size == 200_000


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("5 + 3", 3),  # an operator between spaces is a word
        ("5+3", 1),  # and beside a digit part of one
        ("**bold** e-mail", 3),  # bold, e, mail
        ("- apple\n- pear", 2),  # dashes of a list are not words
        ("naïve 你好 x_1", 3),
        ("\x00 ... !?", 0),
    ],
)
def test_word_count(text: str, words: int) -> None:
    assert hash_words([text]).counts().tolist() == [words]


def test_operators_distinguish_calculations() -> None:
    plus, minus = hash_words(["What is 5 + 3?", "What is 5 - 3?"]).hashes.reshape(2, 5)
    assert (plus != minus).tolist() == [False, False, False, True, False]


def test_fold_and_normalise() -> None:
    assert fold("Caf\u00c9 \u201cx\u201d \u2014 \ufb01n") == 'café "x" - fin'
    assert normalise("  What\u2019s\n\tUP? ") == "what's up?"


@pytest.mark.parametrize(
    "text", ["", "  A  b ", "A\tB\nC", "a\x1cb \x0b\x0c\r c", "a\x00 \x7fb", "\u00a0 Caf\u00c9\u2003x", "\ud800 A"]
)
def test_normalised_bytes_are_those_of_the_normalised_text(text: str) -> None:
    assert normalised_bytes(text) == normalise(text).encode("utf-8", "replace")


def test_lone_surrogates_are_no_words() -> None:
    assert hash_words(["a \ud800 b"]).counts().tolist() == [2]


def test_ngrams_never_cross_texts() -> None:
    words = hash_words(["a b c", "b c", "d"])
    hashes, first = ngrams(words, 2)
    assert first.tolist() == [0, 1, 3]  # ab, bc, bc
    assert hashes[1] == hashes[2] != hashes[0]
    assert ngrams(words, 7)[0].size == 0


def test_ngrams_depend_on_order() -> None:
    assert ngrams(hash_words(["a b"]), 2)[0] != ngrams(hash_words(["b a"]), 2)[0]


def test_a_text_of_fewer_words_is_one_shingle() -> None:
    hashes, text = shingles(hash_words(["a b a b a", "", "b a", "c", "b a"]), 3)
    assert text.tolist() == [0, 0, 0, 2, 3, 4]  # aba, bab, aba; then three whole texts
    assert hashes[0] == hashes[2] != hashes[1]
    assert hashes[3] == hashes[5] != hashes[4]


def test_whole_texts_are_equal_where_all_words_are() -> None:
    whole = whole_texts(hash_words(["One two", "", "one, TWO!", "two one", "one two one two"]))
    assert whole[0] == whole[2]
    assert whole[1] == 0
    assert np.unique(whole).size == 4


def test_contained_is_exact() -> None:
    lexicon = hash_lexicon("kill bomb")
    found = contained(hash_words(["skill KILL bombs bomb"]).hashes, lexicon)
    assert found.tolist() == [False, True, False, True]
    assert not contained(lexicon, np.empty(0, np.uint64)).any()


def test_contained_finds_hashes_that_share_a_slot() -> None:
    lexicon = np.array([0, 1, 2, 2**63, 2**64 - 1], np.uint64)  # the first three have the same upper bits
    asked = np.array([2, 3, 1, 0, 2**63 + 1, 2**64 - 1, 2**63, 2**64 - 2], np.uint64)
    assert contained(asked, lexicon).tolist() == [True, False, True, True, False, True, True, False]


def same_words(one: TokenHashes, other: TokenHashes) -> bool:
    fields = ((one.hashes, other.hashes), (one.text, other.text), (one.sizes, other.sizes), (one.lines, other.lines))
    return one.texts == other.texts and all(np.array_equal(*pair) for pair in fields)


def test_chosen_texts_keep_their_words() -> None:
    texts = ["one two\nthree", "", "four", "!", "five\n\nsix seven"]
    words = hash_words(texts)
    for places in ([0, 1, 2, 3, 4], [1, 2, 4], [3], [0, 4], []):
        assert same_words(words.chosen(np.array(places, np.int64)), hash_words([texts[place] for place in places]))
    assert same_words(words.part(1, 4), hash_words(texts[1:4]))
    assert same_words(words.part(5, 5), hash_words([]))
    assert words.letters().tolist() == [11, 0, 4, 0, 12]
