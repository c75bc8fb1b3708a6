"""Words of many texts at once, as hashes in arrays: what repetition, duplicates and decontamination are computed from.

All texts of a chunk lie in one byte array. A table folds case and turns separators into zero; a prefix sum of
byte x P**position then gives the polynomial hash of every word by one subtraction, without a loop over words.
"""

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

Hashes = NDArray[np.uint64]
Integers = NDArray[np.int64]

BASE = 0x9E3779B97F4A7C15  # odd, so that it has an inverse modulo 2**64: the golden ratio of Fibonacci hashing
MODULUS = 2**64
NGRAM_FACTOR = np.uint64(0xFF51AFD7ED558CCD)  # odd; a constant of MurmurHash3's finaliser
MIX_FACTOR = np.uint64(0xD6E8FEB86659FD93)  # Evensen's rrxmrrxmsx/moremur family of mixers
HALF = np.uint64(32)
BLOCK_TEXTS = 64  # the arrays of a block stay in the processor's cache: twice as fast as 2,048 texts at once
OPERATORS = b"+-*/=<>^%"
TYPOGRAPHY = {"\u2018": "'", "\u2019": "'", "\u201c": '"', "\u201d": '"', "\u2013": "-", "\u2014": "-"}


@dataclass(frozen=True)
class Words:
    """The words of `texts` texts, in order of appearance.

    Attributes:
        hashes: one 64-bit hash per word; equal words have equal hashes in every text.
        text: the index of the text that each word stands in; never decreases.
        sizes: bytes of each word.
        texts: how many texts there were, those without a word included.
    """

    hashes: Hashes
    text: Integers
    sizes: Integers
    texts: int

    def counts(self) -> Integers:
        """Words of each text, shape (texts,)."""
        return np.bincount(self.text, minlength=self.texts)


def fold(text: str) -> str:
    """The text with compatibility characters, case and typographic quotes and dashes folded; ASCII stays as it is."""
    if text.isascii():
        return text
    if not unicodedata.is_normalized("NFKC", text):
        text = unicodedata.normalize("NFKC", text)
    for typographic, plain in TYPOGRAPHY.items():
        text = text.replace(typographic, plain)
    return text.casefold()


def normalise(text: str) -> str:
    """The text by which duplicates are recognised: folded, in lower case, with single spaces."""
    return " ".join(fold(text).lower().split())


def hash_words(texts: Sequence[str]) -> Words:
    """Split texts into words and hash each word.

    A word is a run of letters, digits and underscores; every character beyond ASCII belongs to a word. An arithmetic
    operator counts as part of one beside a digit or between two spaces, so that "5 + 3" and "5 - 3" differ.
    """
    blocks = [_hash_block(texts[start : start + BLOCK_TEXTS]) for start in range(0, len(texts), BLOCK_TEXTS)]
    sizes = [block.texts for block in blocks]
    before = np.cumsum([0, *sizes])
    return Words(
        np.concatenate([np.zeros(0, np.uint64), *(block.hashes for block in blocks)]),
        np.concatenate([np.zeros(0, np.int64), *(block.text + at for block, at in zip(blocks, before, strict=False))]),
        np.concatenate([np.zeros(0, np.int64), *(block.sizes for block in blocks)]),
        len(texts),
    )


def hash_lexicon(words: str) -> Hashes:
    """The sorted hashes of the words of a text, for membership tests."""
    return np.unique(hash_words([words]).hashes)


def contained(hashes: Hashes, lexicon: Hashes) -> NDArray[np.bool_]:
    """Which hashes are in a lexicon; a table over the top bits settles most of them."""
    if not lexicon.size:
        return np.zeros(hashes.size, bool)
    bits = max(16, (16 * lexicon.size).bit_length())
    shift = np.uint64(64 - bits)
    table = np.zeros(1 << bits, bool)
    table[(lexicon >> shift).astype(np.int64)] = True
    found = table[(hashes >> shift).astype(np.int64)]
    found[found] = np.isin(hashes[found], lexicon)
    return found


def ngrams(words: Words, n: int) -> tuple[Hashes, Integers]:
    """Hash each run of n consecutive words of one text.

    Returns:
        The hashes, and the index of the first word of each; shorter texts have none.
    """
    windows = words.hashes.size - n + 1
    if windows <= 0:
        return np.empty(0, np.uint64), np.empty(0, np.int64)
    value = words.hashes[:windows].copy()
    for offset in range(1, n):
        value *= NGRAM_FACTOR
        value += words.hashes[offset : offset + windows]
    first = np.flatnonzero(words.text[:windows] == words.text[n - 1 :])
    return mix(value[first]), first


def shingles(words: Words, n: int) -> tuple[Hashes, Integers]:
    """The n-grams of each text, text by text; a shorter text is one shingle of all its words.

    Returns:
        The hashes, repetitions included, and the text of each.
    """
    hashes, first = ngrams(words, n)
    text = words.text[first]
    short = short_texts(words, n)
    if short.size:
        whole = whole_texts(words)[short]
        hashes, text = np.concatenate([hashes, whole]), np.concatenate([text, short])
        order = np.argsort(text, kind="stable")
        hashes, text = hashes[order], text[order]
    return hashes, text


def short_texts(words: Words, n: int) -> Integers:
    """The indices of texts with at least one word and fewer than n."""
    counts = words.counts()
    return np.flatnonzero((counts > 0) & (counts < n))


def whole_texts(words: Words) -> Hashes:
    """One hash of each text's whole sequence of words, shape (texts,); 0 for a text without words."""
    counts = words.counts()
    starts = np.cumsum(counts) - counts
    position = np.arange(words.hashes.size) - starts[words.text]
    powers, _ = _powers(_room(int(counts.max(initial=0)) + 1))
    terms = np.zeros(words.hashes.size + 1, np.uint64)
    np.cumsum(words.hashes * powers[position], out=terms[1:])
    total = mix(terms[starts + counts] - terms[starts])
    return np.where(counts > 0, total, np.uint64(0))


def mix(values: Hashes) -> Hashes:
    """Spread each value over all 64 bits, one to one."""
    values = values ^ (values >> HALF)
    values = values * MIX_FACTOR
    return values ^ (values >> HALF)


def _hash_block(texts: Sequence[str]) -> Words:
    encoded = [fold(text).encode("utf-8", "replace") for text in texts]
    joined = b"\n".join([b"", *encoded, b""])
    letters = _letters(joined)
    inside = letters != 0
    starts = np.flatnonzero(inside[1:] & ~inside[:-1]) + 1
    ends = np.flatnonzero(inside[:-1] & ~inside[1:]) + 1
    powers, inverses = _powers(_room(letters.size))
    prefix = np.zeros(letters.size + 1, np.uint64)
    np.cumsum(letters * powers[: letters.size], out=prefix[1:])
    hashes = mix((prefix[ends] - prefix[starts]) * inverses[starts])
    limits = np.cumsum([len(text) + 1 for text in encoded])
    return Words(hashes, np.searchsorted(limits, starts, side="left"), ends - starts, len(encoded))


def _letters(joined: bytes) -> NDArray[np.uint8]:
    """The folded byte where a word is, 0 elsewhere; a text begins and ends with a newline byte, never a space."""
    words, operators = _byte_tables()
    letters = np.frombuffer(bytearray(joined.translate(words)), np.uint8)
    places = np.flatnonzero(np.frombuffer(joined.translate(operators), np.uint8))
    raw = np.frombuffer(joined, np.uint8)
    before, after = raw[places - 1], raw[places + 1]
    alone = (before == ord(" ")) & (after == ord(" "))
    kept = places[alone | _is_digit(before) | _is_digit(after)]
    letters[kept] = raw[kept]
    return letters


@cache
def _byte_tables() -> tuple[bytes, bytes]:
    """For bytes.translate: word bytes folded and others 0; operators as they are and others 0."""
    words, operators = bytearray(256), bytearray(256)
    for byte in range(256):
        character = chr(byte)
        if byte >= 0x80 or character.isalnum() or character == "_":
            words[byte] = byte if byte >= 0x80 else ord(character.lower())
        elif byte in OPERATORS:
            operators[byte] = byte
    return bytes(words), bytes(operators)


def _is_digit(values: NDArray[np.uint8]) -> NDArray[np.bool_]:
    return (values >= ord("0")) & (values <= ord("9"))


def _room(size: int) -> int:
    """The next power of two, so that few sizes of tables are ever made."""
    return 1 << max(size, 1024).bit_length()


@cache
def _powers(size: int) -> tuple[Hashes, Hashes]:
    """BASE**i and BASE**-i modulo 2**64 for i below size, a power of two."""
    return _geometric(BASE, size), _geometric(pow(BASE, -1, MODULUS), size)


def _geometric(base: int, size: int) -> Hashes:
    values = np.ones(size, np.uint64)
    filled, factor = 1, base
    while filled < size:
        values[filled : 2 * filled] = values[:filled] * np.uint64(factor)
        filled *= 2
        factor = factor * factor % MODULUS
    return values
