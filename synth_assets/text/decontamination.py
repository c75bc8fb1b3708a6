"""Rows that repeat benchmark items, found before anything is trained on them.

A lower bound: paraphrases and translations of an item survive.
"""

from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from synth_assets.text.lexicon import BOILERPLATE_ITEMS, NGRAM_WORDS, Lexicon
from synth_assets.text.words import Hashes, Integers, TokenHashes, hash_words, ngrams, whole_texts

WORDS_AT_ONCE = 1 << 14  # the arrays stay in the processor's cache
LABELS = r"(?im)^[ \t]*(?:\(?[a-j][.):]|(?:question|q|problem|answer|choices|options):)(?:[ \t]|$)"
"""What stands before questions and choices: no part of what is asked."""
GENERIC = r"(?i)^\s*(?:which|choose|select|pick|identify|all)\b.{0,24}\b(?:following|these|true|correct|false)\b"
"""Openings of questions that only their choices make a question."""


@dataclass(frozen=True)
class Hits:
    """For each row of a chunk the item that it repeats most: its id (empty for none) and the share it covers."""

    item: list[str]
    cover: list[float]


class Decontaminator:
    """The benchmark items, ready to be looked for in rows."""

    def __init__(self, items: pl.DataFrame, cover: float) -> None:
        """Index BENCHMARK_ITEMS by the 8-grams of their prompts, and whole.

        To a prompt that alone asks nothing, like "Which of the following is true?", its choices belong.

        Args:
            items: the items of all suites and splits.
            cover: share of an item's 8-grams, above 0, from which a row repeats it; items of fewer words must be the
                whole instruction.

        Raises:
            ValueError: there are no items, or an item has an empty prompt: nothing is let through unchecked.
        """
        asked = _asked(items)
        words = hash_words(asked["text"].to_list())
        if not items.height or not words.counts().all():
            empty = (
                ", ".join(asked["item_id"].filter(pl.Series(words.counts() == 0)).to_list()) or "all: there are none"
            )
            raise ValueError(f"decontamination needs every benchmark item, and these have no prompt: {empty}")
        self._ids, self._cover = asked["item_id"].to_list(), cover
        self._index_whole(words, asked)
        self._index_ngrams(words, asked["item_id"].fill_null("").rank("dense").to_numpy().astype(np.uint64))

    def find(self, *texts: pl.Series) -> Hits:
        """Look for items in the rows of a chunk.

        Args:
            texts: the rows' instructions, which may equal an item of any length, then their other texts; an item's
                8-grams are looked for in all of them together.
        """
        return self.find_words([hash_words(series.to_list()) for series in texts], texts)

    def find_words(self, words: list[TokenHashes], texts: tuple[pl.Series, ...]) -> Hits:
        """The same where the words of the texts, in the same order, are known."""
        item, cover = self._best(words)
        labelled = np.flatnonzero(np.any([series.str.contains(LABELS).to_numpy() for series in texts], axis=0))
        if labelled.size:
            plain = [hash_words(without_labels(series.gather(labelled)).to_list()) for series in texts]
            other, share = self._best(plain)
            better = share > cover[labelled]
            item[labelled[better]], cover[labelled[better]] = other[better], share[better]
        return Hits([self._ids[i] if i >= 0 else "" for i in item], cover.tolist())

    def _best(self, texts: list[TokenHashes]) -> tuple[Integers, NDArray[np.float64]]:
        """For each row the item that it covers most, or -1, and the share."""
        rows = texts[0].texts
        item, cover = np.full(rows, -1), np.zeros(rows)
        for row, found, share in zip(*self._covered(*self._shared(texts)), strict=True):
            if share > cover[row]:
                item[row], cover[row] = found, share
        whole = np.concatenate([whole_texts(part) for part in texts[0].parts(WORDS_AT_ONCE)])
        place = np.minimum(np.searchsorted(self._whole, whole), self._whole.size - 1)
        same = (self._whole[place] == whole) & (texts[0].counts() > 0)
        item[same], cover[same] = self._whole_item[place[same]], 1.0
        return item, cover

    def _index_whole(self, words: TokenHashes, asked: pl.DataFrame) -> None:
        """Keep the hash of each item's words, without its choices and with them."""
        full = whole_texts(hash_words((asked["text"] + "\n" + asked["choices"]).to_list()))
        both, item = np.concatenate([whole_texts(words), full]), np.tile(np.arange(asked.height), 2)
        order = np.argsort(both, kind="stable")
        self._whole, self._whole_item = both[order], item[order]

    def _index_ngrams(self, words: TokenHashes, number: Hashes) -> None:
        """Keep which texts each 8-gram belongs to, and which are of many items: boilerplate convicts nobody alone."""
        hashes, first = ngrams(words, NGRAM_WORDS)
        entries = np.unique(np.stack([hashes, words.text[first].astype(np.uint64)], axis=1), axis=0)
        grams, item = entries[:, 0], entries[:, 1].astype(np.int64)
        of_items = np.unique(np.stack([grams, number[item]], axis=1), axis=0)[:, 0]
        vocabulary, spread = np.unique(of_items, return_counts=True)
        self._known = Lexicon(vocabulary)
        specific = spread[np.searchsorted(vocabulary, grams)] <= BOILERPLATE_ITEMS
        self._grams, self._gram_item = grams[specific], item[specific]
        self._specific = np.bincount(item[specific], minlength=words.texts)
        self._size = np.bincount(item, minlength=words.texts)
        order = np.argsort(item[~specific], kind="stable")
        self._frames = np.split(grams[~specific][order], np.cumsum(self._size - self._specific)[:-1])

    def _covered(self, row: Integers, gram: Hashes) -> tuple[list[int], list[int], list[float]]:
        """Rows, items and shares wherever a row covers enough of an item, given the rows' known 8-grams in order."""
        start = np.searchsorted(self._grams, gram, side="left")
        sizes = np.searchsorted(self._grams, gram, side="right") - start
        entry = np.repeat(start, sizes) + np.arange(sizes.sum()) - np.repeat(np.cumsum(sizes) - sizes, sizes)
        pairs = np.stack([np.repeat(row, sizes), self._gram_item[entry]], axis=1)
        distinct, shared = np.unique(pairs, axis=0, return_counts=True)
        place, item = distinct[:, 0], distinct[:, 1]
        share = shared / self._specific[item]
        for weak in np.flatnonzero((share < self._cover) & (self._size[item] > self._specific[item])):
            own = gram[np.searchsorted(row, place[weak], "left") : np.searchsorted(row, place[weak], "right")]
            framed = np.isin(self._frames[item[weak]], own).sum()
            share[weak] = max(share[weak], (shared[weak] + framed) / self._size[item[weak]])
        enough = share >= self._cover
        return place[enough].tolist(), item[enough].tolist(), share[enough].tolist()

    def _shared(self, texts: list[TokenHashes]) -> tuple[Integers, Hashes]:
        """Each row's distinct 8-grams that any item has, over all its texts, in order of the rows."""
        rows, grams = [], []
        for words in texts:
            before = 0
            for part in words.parts(WORDS_AT_ONCE):
                hashes, first = ngrams(part, NGRAM_WORDS)
                known = self._known.has(hashes)
                rows.append(part.text[first[known]] + before)
                grams.append(hashes[known])
                before += part.texts
        both = np.unique(np.stack([np.concatenate(rows).astype(np.uint64), np.concatenate(grams)], axis=1), axis=0)
        return both[:, 0].astype(np.int64), both[:, 1]


def without_labels(texts: pl.Series) -> pl.Series:
    """The texts without "Question:", "A.", "(b)" and the like at the beginning of lines."""
    return texts.str.replace_all(LABELS, "")


def _asked(items: pl.DataFrame) -> pl.DataFrame:
    """What each distinct item asks, as it stands and without labels.

    Returns:
        `text`, `choices` (empty where the text holds them) and the lowest `item_id` of each text.
    """
    raw = items.select("item_id", prompt=pl.col("prompt").fill_null(""), choices=pl.col("choices").list.join("\n"))
    plain = raw.with_columns(prompt=without_labels(raw["prompt"]))
    table = pl.concat([raw, plain]).with_columns(pl.col("choices").fill_null(""))
    generic = (pl.col("prompt").str.split(" ").list.len() < NGRAM_WORDS) & pl.col("prompt").str.contains(GENERIC)
    text = pl.when(generic).then(pl.concat_str("prompt", "choices", separator="\n")).otherwise("prompt")
    rest = pl.when(generic).then(pl.lit("")).otherwise("choices")
    table = table.select("item_id", text=text, choices=rest)
    return table.group_by("text").agg(pl.col("item_id").min(), pl.col("choices").first()).sort("item_id", "text")
