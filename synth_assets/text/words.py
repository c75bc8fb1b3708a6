"""Words of many texts at once, as hashes in arrays: what repetition, duplicates and decontamination are computed from.

Texts lie side by side in one byte array. A table folds case and turns separators into zero; each word is then read
eight bytes at a time, all words at once, and mixed one to one: words of up to eight bytes never share a hash.
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

BASE = 0x9E3779B97F4A7C15  # odd, so that it has an inverse modulo 2**64: the golden ratio of Fibonacci hashing
MODULUS = 2**64
NEWLINE = ord("\n")
NGRAM_FACTOR = np.uint64(0xFF51AFD7ED558CCD)  # odd; a constant of MurmurHash3's finaliser
MIX_FACTOR = np.uint64(0xD6E8FEB86659FD93)  # Evensen's rrxmrrxmsx/moremur family of mixers
HALF = np.uint64(32)
BLOCK_BYTES = 1 << 17  # the arrays of a block stay in the processor's cache
LOAD_BYTES = 8
BYTES_OF_LOAD = np.array([2 ** (8 * size) - 1 for size in range(LOAD_BYTES + 1)], np.uint64)
LONG_WORD_BYTES = 64  # longer "words" are encoded data or runs of one character, and are hashed one by one
OPERATORS = b"+-*/=<>^%"
TYPOGRAPHY = {"\u2018": "'", "\u2019": "'", "\u201c": '"', "\u201d": '"', "\u2013": "-", "\u2014": "-"}


@dataclass(frozen=True)
class TokenHashes:
    """The words of `texts` texts, in order of appearance.

    Attributes:
        hashes: one 64-bit hash per word; equal words have equal hashes in every text.
        text: the index of the text that each word stands in; never decreases.
        sizes: bytes of each word.
        texts: how many texts there were, those without a word included.
        lines: the index of the first word of each line that has a word, in order.
    """

    hashes: Hashes
    text: Integers
    sizes: Integers
    texts: int
    lines: Integers

    def counts(self) -> Integers:
        """Words of each text, shape (texts,)."""
        return self._counts

    def letters(self) -> Integers:
        """Bytes of each text's words together, shape (texts,)."""
        return self._letters

    def parts(self, words: int) -> Iterator["TokenHashes"]:
        """The same texts in runs of about so many words."""
        cuts = [0, *(np.flatnonzero(np.diff(np.cumsum(self._counts) // words)) + 1).tolist(), self.texts]
        return starmap(self.part, pairwise(cuts))

    def part(self, first: int, last: int) -> "TokenHashes":
        """The texts from the first to before the last."""
        start, end = np.searchsorted(self.text, [first, last]).tolist()
        lines = self.lines[slice(*np.searchsorted(self.lines, [start, end]))]
        inside = slice(start, end)
        return TokenHashes(
            self.hashes[inside], self.text[inside] - first, self.sizes[inside], last - first, lines - start
        )

    def chosen(self, texts: Integers) -> "TokenHashes":
        """Some of the texts, given by their indices in order."""
        if texts.size == self.texts:
            return self
        kept, moved = np.zeros(self.texts, bool), np.zeros(self.texts, np.int64)
        kept[texts] = True
        counts = self._counts[texts]
        moved[texts] = (np.cumsum(self._counts) - self._counts)[texts] - (np.cumsum(counts) - counts)
        inside = np.repeat(kept, self._counts)
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
        letters, written = np.zeros(self.texts, np.int64), self._counts > 0
        if self.sizes.size:
            letters[written] = np.add.reduceat(self.sizes, (np.cumsum(self._counts) - self._counts)[written])
        return letters


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


def normalised_bytes(text: str) -> bytes:
    """The same in UTF-8; a text of ASCII, as most are, is not split."""
    if not text.isascii():
        return normalise(text).encode("utf-8", "replace")
    plain = text.encode().translate(_plain_bytes()).strip(b" ")
    return b" ".join(plain.split()) if b"  " in plain else plain


def hash_words(texts: Sequence[str]) -> TokenHashes:
    """Split texts into words and hash each word.

    A word is a run of letters, digits and underscores; every character beyond ASCII belongs to a word. An arithmetic
    operator counts as part of one beside a digit or between two spaces, so that "5 + 3" and "5 - 3" differ.
    """
    blocks = [_hash_block(block) for block in _blocks(texts)]
    texts_before = np.cumsum([0, *(block.texts for block in blocks)])
    words_before = np.cumsum([0, *(block.hashes.size for block in blocks)])
    none = np.zeros(0, np.int64)
    return TokenHashes(
        np.concatenate([np.zeros(0, np.uint64), *(block.hashes for block in blocks)]),
        np.concatenate([none, *(block.text + at for block, at in zip(blocks, texts_before, strict=False))]),
        np.concatenate([none, *(block.sizes for block in blocks)]),
        len(texts),
        np.concatenate([none, *(block.lines + at for block, at in zip(blocks, words_before, strict=False))]),
    )


def ngrams(words: TokenHashes, n: int) -> tuple[Hashes, Integers]:
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


def shingles(words: TokenHashes, n: int) -> tuple[Hashes, Integers]:
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


def short_texts(words: TokenHashes, n: int) -> Integers:
    """The indices of texts with at least one word and fewer than n."""
    counts = words.counts()
    return np.flatnonzero((counts > 0) & (counts < n))


def whole_texts(words: TokenHashes) -> Hashes:
    """One hash of each text's whole sequence of words, shape (texts,); 0 for a text without words."""
    ends = np.cumsum(words.counts())
    return np.where(words.counts() > 0, sequences(words.hashes, ends - words.counts(), ends), np.uint64(0))


def sequences(hashes: Hashes, starts: Integers, ends: Integers) -> Hashes:
    """One hash of each run of words [start, end), the same wherever the run stands."""
    powers, inverses = _powers(_room(hashes.size + 1))
    terms = np.zeros(hashes.size + 1, np.uint64)
    np.cumsum(hashes * powers[: hashes.size], out=terms[1:])
    return mix((terms[ends] - terms[starts]) * inverses[starts])


def mix(values: Hashes) -> Hashes:
    """Spread each value over all 64 bits, one to one."""
    values = values ^ (values >> HALF)
    values = values * MIX_FACTOR
    return values ^ (values >> HALF)


def _blocks(texts: Sequence[str]) -> Iterator[Sequence[str]]:
    """Runs of texts of about BLOCK_BYTES characters."""
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
    """The folded texts, with a newline before, between and after them, and where each of them ends."""
    joined = "\n".join(["", *texts, ""])
    if joined.isascii():
        return joined.encode(), np.cumsum([len(text) + 1 for text in texts])
    encoded = [fold(text).encode("utf-8", "replace") for text in texts]
    return b"\n".join([b"", *encoded, b""]), np.cumsum([len(text) + 1 for text in encoded])


def _hash_letters(letters: NDArray[np.uint8], starts: Integers, sizes: Integers) -> Hashes:
    """One hash for each run of bytes; the array goes on for LOAD_BYTES behind the last run."""
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
    """The folded bytes, 0 between words and behind the last; and where words begin and end, in turn.

    A text begins and ends with a newline byte, never a space, so an operator at its edge stands beside no neighbour.
    """
    words, operators = _byte_tables()
    letters = np.frombuffer(bytearray(joined.translate(words) + bytes(LOAD_BYTES)), np.uint8)
    places = np.flatnonzero(np.frombuffer(joined.translate(operators), np.bool_))
    raw = np.frombuffer(joined, np.uint8)
    before, after = raw[places - 1], raw[places + 1]
    alone = (before == ord(" ")) & (after == ord(" "))
    kept = places[alone | _is_digit(before) | _is_digit(after)]
    letters[kept] = raw[kept]
    inside = letters != 0
    return letters, np.flatnonzero(inside[1:] != inside[:-1]) + 1


@cache
def _byte_tables() -> tuple[bytes, bytes]:
    """For bytes.translate: word bytes folded and others 0; operators 1 and others 0."""
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
    """For bytes.translate: ASCII in lower case, and all its white space as spaces."""
    return bytes(ord(" " if chr(byte).isspace() else chr(byte).lower()) if byte < 0x80 else byte for byte in range(256))


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
