"""Vectorised word hashing of many texts: the basis of repetition rules, deduplication and decontamination.

Texts are concatenated in one byte array. A table folds case and maps separators to zero. Each word is then read eight
bytes at a time, all words at once, and mixed by a bijection: words of up to eight bytes never share a hash.
"""

import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from itertools import pairwise, starmap

import numpy as np
import xxhash
from numpy.typing import NDArray

Hashes = NDArray[np.uint64]
Integers = NDArray[np.int64]

BASE = 0x9E3779B97F4A7C15  # golden ratio of Fibonacci hashing; odd, so invertible modulo 2**64
MODULUS = 2**64
NEWLINE = ord("\n")
NGRAM_FACTOR = np.uint64(0xFF51AFD7ED558CCD)  # odd; a constant of MurmurHash3's finaliser
MIX_FACTOR = np.uint64(0xD6E8FEB86659FD93)  # Evensen's rrxmrrxmsx/moremur family of mixers
HALF = np.uint64(32)
BLOCK_BYTES = 1 << 17  # arrays of a block fit the processor's cache
LOAD_BYTES = 8
BYTES_OF_LOAD = np.array([2 ** (8 * size) - 1 for size in range(LOAD_BYTES + 1)], np.uint64)
LONG_WORD_BYTES = 64  # longer words, such as encoded data, are hashed one by one
OPERATORS = b"+-*/=<>^%"
TYPOGRAPHY = {"\u2018": "'", "\u2019": "'", "\u201c": '"', "\u201d": '"', "\u2013": "-", "\u2014": "-"}


@dataclass(frozen=True)
class TokenHashes:
    """The words of `texts` texts, in order of appearance.

    Attributes:
        hashes: one 64-bit hash per word; equal words have equal hashes in every text.
        text: index of the text of each word; non-decreasing.
        sizes: bytes of each word.
        texts: number of texts, including those without words.
        lines: index of the first word of each line that has a word, in order.
    """

    hashes: Hashes
    text: Integers
    sizes: Integers
    texts: int
    lines: Integers

    def counts(self) -> Integers:
        """Return the number of words of each text, shape (texts,)."""
        return self._counts

    def letters(self) -> Integers:
        """Return the bytes of all words of each text, shape (texts,)."""
        return self._letters

    def parts(self, words: int) -> Iterator["TokenHashes"]:
        """Yield the texts in parts of about `words` words."""
        cuts = [0, *(np.flatnonzero(np.diff(np.cumsum(self._counts) // words)) + 1).tolist(), self.texts]
        return starmap(self.part, pairwise(cuts))

    def part(self, first: int, last: int) -> "TokenHashes":
        """Return the texts from `first` to before `last`."""
        start, end = np.searchsorted(self.text, [first, last]).tolist()
        lines = self.lines[slice(*np.searchsorted(self.lines, [start, end]))]
        inside = slice(start, end)
        return TokenHashes(
            self.hashes[inside], self.text[inside] - first, self.sizes[inside], last - first, lines - start
        )

    def chosen(self, texts: Integers) -> "TokenHashes":
        """Return some of the texts, given by their sorted indices."""
        if texts.size == self.texts:
            return self
        is_selected, moved = np.zeros(self.texts, bool), np.zeros(self.texts, np.int64)
        is_selected[texts] = True
        counts = self._counts[texts]
        moved[texts] = (np.cumsum(self._counts) - self._counts)[texts] - (np.cumsum(counts) - counts)
        inside = np.repeat(is_selected, self._counts)
        lines = self.lines[inside[self.lines]]
        lines = lines - moved[self.text[lines]]
        return TokenHashes(
            self.hashes[inside], np.repeat(np.arange(texts.size), counts), self.sizes[inside], texts.size, lines
        )

    @cached_property
    def _counts(self) -> Integers:
        return np.diff(np.searchsorted(self.text, np.arange(self.texts + 1)))

    @cached_property
    def _letters(self) -> Integers:
        letters, nonempty = np.zeros(self.texts, np.int64), self._counts > 0
        if self.sizes.size:
            letters[nonempty] = np.add.reduceat(self.sizes, (np.cumsum(self._counts) - self._counts)[nonempty])
        return letters


def fold(text: str) -> str:
    """Fold compatibility characters, case, and typographic quotes and dashes; ASCII text is returned unchanged."""
    if text.isascii():
        return text
    if not unicodedata.is_normalized("NFKC", text):
        text = unicodedata.normalize("NFKC", text)
    for typographic, plain in TYPOGRAPHY.items():
        text = text.replace(typographic, plain)
    return text.casefold()


def normalise(text: str) -> str:
    """Return the text for duplicate detection: folded, in lower case, with single spaces."""
    return " ".join(fold(text).lower().split())


def normalised_bytes(text: str) -> bytes:
    """Return `normalise(text)` in UTF-8, with a fast path for ASCII."""
    if not text.isascii():
        return normalise(text).encode("utf-8", "replace")
    plain = text.encode().translate(_plain_bytes()).strip(b" ")
    return b" ".join(plain.split()) if b"  " in plain else plain


def hash_words(texts: Sequence[str]) -> TokenHashes:
    """Split texts into words and hash each word.

    A word is a run of letters, digits and underscores; every non-ASCII character belongs to a word. An arithmetic
    operator counts as part of a word next to a digit or between two spaces, so that "5 + 3" and "5 - 3" differ.
    """
    blocks = [_hash_block(block) for block in _blocks(texts)]
    texts_before = np.cumsum([0, *(block.texts for block in blocks)])
    words_before = np.cumsum([0, *(block.hashes.size for block in blocks)])
    none = np.zeros(0, np.int64)
    return TokenHashes(
        np.concatenate([np.zeros(0, np.uint64), *(block.hashes for block in blocks)]),
        np.concatenate([none, *(block.text + offset for block, offset in zip(blocks, texts_before, strict=False))]),
        np.concatenate([none, *(block.sizes for block in blocks)]),
        len(texts),
        np.concatenate([none, *(block.lines + offset for block, offset in zip(blocks, words_before, strict=False))]),
    )


def ngrams(words: TokenHashes, n: int) -> tuple[Hashes, Integers]:
    """Hash each run of n consecutive words of a text.

    Returns:
        The hashes, and the index of the first word of each; texts of fewer words have none.
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


def shingles(words: TokenHashes, n: int) -> tuple[Hashes, Integers]:
    """Return the n-grams of each text, text by text; a shorter text is one shingle of all its words.

    Returns:
        The hashes, including duplicates, and the text of each.
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


def short_texts(words: TokenHashes, n: int) -> Integers:
    """Return the indices of texts with at least one word and fewer than n."""
    counts = words.counts()
    return np.flatnonzero((counts > 0) & (counts < n))


def whole_texts(words: TokenHashes) -> Hashes:
    """Return a hash of each text's word sequence, shape (texts,); 0 for a text without words."""
    ends = np.cumsum(words.counts())
    return np.where(words.counts() > 0, sequences(words.hashes, ends - words.counts(), ends), np.uint64(0))


def sequences(hashes: Hashes, starts: Integers, ends: Integers) -> Hashes:
    """Return a hash of each run of words [start, end), independent of its position."""
    powers, inverses = _powers(_table_size(hashes.size + 1))
    terms = np.zeros(hashes.size + 1, np.uint64)
    np.cumsum(hashes * powers[: hashes.size], out=terms[1:])
    return mix((terms[ends] - terms[starts]) * inverses[starts])


def mix(values: Hashes) -> Hashes:
    """Mix each value into all 64 bits; a bijection."""
    values = values ^ (values >> HALF)
    values = values * MIX_FACTOR
    return values ^ (values >> HALF)


def _blocks(texts: Sequence[str]) -> Iterator[Sequence[str]]:
    """Yield runs of texts of about BLOCK_BYTES characters."""
    block = np.cumsum([len(text) + 1 for text in texts]) // BLOCK_BYTES
    cuts = [0, *(np.flatnonzero(np.diff(block)) + 1).tolist(), len(texts)]
    for start, end in pairwise(cuts):
        if start < end:
            yield texts[start:end]


def _hash_block(texts: Sequence[str]) -> TokenHashes:
    joined, ends = _join(texts)
    letters, edges = _letters(joined)
    starts, sizes = edges[::2], edges[1::2] - edges[::2]
    counts = np.diff(np.searchsorted(starts, ends), prepend=0)
    breaks = np.flatnonzero(np.frombuffer(joined, np.uint8) == NEWLINE)
    first = np.searchsorted(starts, breaks)
    lines = first[np.flatnonzero(np.diff(first, append=starts.size))]
    return TokenHashes(
        _hash_letters(letters, starts, sizes), np.repeat(np.arange(len(texts)), counts), sizes, len(texts), lines
    )


def _join(texts: Sequence[str]) -> tuple[bytes, Integers]:
    """Return the folded texts, with a newline before, between and after them, and the end of each."""
    joined = "\n".join(["", *texts, ""])
    if joined.isascii():
        return joined.encode(), np.cumsum([len(text) + 1 for text in texts])
    encoded = [fold(text).encode("utf-8", "replace") for text in texts]
    return b"\n".join([b"", *encoded, b""]), np.cumsum([len(text) + 1 for text in encoded])


def _hash_letters(letters: NDArray[np.uint8], starts: Integers, sizes: Integers) -> Hashes:
    """Hash each run of bytes; the array must extend LOAD_BYTES past the last run."""
    loads = np.ndarray((letters.size - LOAD_BYTES + 1,), np.uint64, letters.data, strides=(1,))
    hashes = mix(loads[starts] & BYTES_OF_LOAD[np.minimum(sizes, LOAD_BYTES)])
    for done in range(LOAD_BYTES, LONG_WORD_BYTES, LOAD_BYTES):
        longer = np.flatnonzero(sizes > done)
        if not longer.size:
            return hashes
        rest = loads[starts[longer] + done] & BYTES_OF_LOAD[np.minimum(sizes[longer] - done, LOAD_BYTES)]
        hashes[longer] = mix(hashes[longer] * NGRAM_FACTOR + rest)
    for word in np.flatnonzero(sizes > LONG_WORD_BYTES):
        hashes[word] = xxhash.xxh3_64_intdigest(letters[starts[word] : starts[word] + sizes[word]].data)
    return hashes


def _letters(joined: bytes) -> tuple[NDArray[np.uint8], Integers]:
    """Return the folded bytes, with 0 between words and after the last, and the alternating starts and ends of words.

    A text starts and ends with a newline, never a space, so an operator at its edge has no neighbour.
    """
    words, operators = _byte_tables()
    letters = np.frombuffer(bytearray(joined.translate(words) + bytes(LOAD_BYTES)), np.uint8)
    positions = np.flatnonzero(np.frombuffer(joined.translate(operators), np.bool_))
    raw = np.frombuffer(joined, np.uint8)
    before, after = raw[positions - 1], raw[positions + 1]
    spaced = (before == ord(" ")) & (after == ord(" "))
    operator_positions = positions[spaced | _is_digit(before) | _is_digit(after)]
    letters[operator_positions] = raw[operator_positions]
    inside = letters != 0
    return letters, np.flatnonzero(inside[1:] != inside[:-1]) + 1


@cache
def _byte_tables() -> tuple[bytes, bytes]:
    """Return tables for bytes.translate: word bytes folded and others 0; operators 1 and others 0."""
    words, operators = bytearray(256), bytearray(256)
    for byte in range(256):
        character = chr(byte)
        if byte >= 0x80 or character.isalnum() or character == "_":
            words[byte] = byte if byte >= 0x80 else ord(character.lower())
        elif byte in OPERATORS:
            operators[byte] = 1
    return bytes(words), bytes(operators)


@cache
def _plain_bytes() -> bytes:
    """Return a table for bytes.translate: ASCII in lower case, with white space as spaces."""
    return bytes(ord(" " if chr(byte).isspace() else chr(byte).lower()) if byte < 0x80 else byte for byte in range(256))


def _is_digit(values: NDArray[np.uint8]) -> NDArray[np.bool_]:
    return (values >= ord("0")) & (values <= ord("9"))


def _table_size(size: int) -> int:
    """Return the next power of two, to limit the number of cached table sizes."""
    return 1 << max(size, 1024).bit_length()


@cache
def _powers(size: int) -> tuple[Hashes, Hashes]:
    """Return BASE**i and BASE**-i modulo 2**64 for i below size, a power of two."""
    return _geometric(BASE, size), _geometric(pow(BASE, -1, MODULUS), size)


def _geometric(base: int, size: int) -> Hashes:
    values = np.ones(size, np.uint64)
    filled, factor = 1, base
    while filled < size:
        values[filled : 2 * filled] = values[:filled] * np.uint64(factor)
        filled *= 2
        factor = factor * factor % MODULUS
    return values
