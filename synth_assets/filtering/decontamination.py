"""Rows that repeat benchmark items, found before anything is trained on them.

A lower bound: paraphrases and translations of an item survive.
"""

from dataclasses import dataclass

import numpy as np
import polars as pl

from synth_assets.text import Hashes, Integers, Words, contained, hash_words, ngrams, whole_texts

NGRAM_WORDS = 8  # PaLM (Chowdhery et al. 2022, arXiv 2204.02311, section 8) and Tulu 3 (arXiv 2411.15124)
LONG_ITEM_WORDS = 16  # from here on an item has nine 8-grams or more, and half of them is more than one sentence
BOILERPLATE_ITEMS = 3  # an 8-gram of more items than this is their template or a shared passage


@dataclass(frozen=True)
class Hits:
    """For each row of a chunk the item that it repeats most: its id (empty for none) and the share it covers."""

    item: list[str]
    cover: list[float]


class Decontaminator:
    """The benchmark items, ready to be looked for in rows."""

    def __init__(self, items: pl.DataFrame, cover: float) -> None:
        """Index the prompts of BENCHMARK_ITEMS.

        Args:
            items: the items of all suites and splits.
            cover: share of a long item's 8-grams, above 0, from which a row repeats it; shorter items must be whole.

        Raises:
            ValueError: there are no items, or an item has an empty prompt: nothing is let through unchecked.
        """
        prompts = items.group_by("prompt").agg(pl.col("item_id").min()).sort("item_id")
        words = hash_words(prompts["prompt"].fill_null("").to_list())
        counts = words.counts()
        if not items.height or not counts.all():
            empty = ", ".join(prompts["item_id"].filter(pl.Series(counts == 0)).to_list()) or "all: there are none"
            raise ValueError(f"decontamination needs every benchmark item, and these have no prompt: {empty}")
        self._ids = prompts["item_id"].to_list()
        whole = whole_texts(words)
        order = np.argsort(whole, kind="stable")
        self._whole, self._whole_item = whole[order], order
        self._index(words, counts)
        self._wanted = np.where(counts < LONG_ITEM_WORDS, 1.0, cover)

    def find(self, instructions: Words, *others: Words) -> Hits:
        """Look for items in the rows of a chunk.

        Args:
            instructions: the words of each row's instruction; an item of any length may equal one.
            others: the words of the rows' other texts, in the same order; long items are looked for in them too.
        """
        rows = instructions.texts
        item, cover = np.full(rows, -1), np.zeros(rows)
        for row, found, share in zip(*self._covered([instructions, *others]), strict=True):
            if share > cover[row]:
                item[row], cover[row] = found, share
        whole = whole_texts(instructions)
        place = np.minimum(np.searchsorted(self._whole, whole), self._whole.size - 1)
        same = (self._whole[place] == whole) & (instructions.counts() > 0)
        item[same], cover[same] = self._whole_item[place[same]], 1.0
        return Hits([self._ids[i] if i >= 0 else "" for i in item], cover.tolist())

    def _index(self, words: Words, counts: Integers) -> None:
        """Keep which items each 8-gram belongs to, boilerplate left out of long items, and how many each has left."""
        hashes, first = ngrams(words, NGRAM_WORDS)
        entries = np.unique(np.stack([hashes, words.text[first].astype(np.uint64)], axis=1), axis=0)
        grams, item = entries[:, 0], entries[:, 1].astype(np.int64)
        _, inverse, spread = np.unique(grams, return_inverse=True, return_counts=True)
        specific = (spread[inverse] <= BOILERPLATE_ITEMS) | (counts[item] < LONG_ITEM_WORDS)
        self._grams, self._gram_item = grams[specific], item[specific]
        self._size = np.bincount(self._gram_item, minlength=words.texts)
        self._vocabulary = np.unique(self._grams)

    def _covered(self, texts: list[Words]) -> tuple[list[int], list[int], list[float]]:
        """Rows, items and shares wherever a row covers enough of an item."""
        row, gram = self._shared(texts)
        start = np.searchsorted(self._grams, gram, side="left")
        sizes = np.searchsorted(self._grams, gram, side="right") - start
        entry = np.repeat(start, sizes) + np.arange(sizes.sum()) - np.repeat(np.cumsum(sizes) - sizes, sizes)
        pairs = np.stack([np.repeat(row, sizes), self._gram_item[entry]], axis=1)
        distinct, shared = np.unique(pairs, axis=0, return_counts=True)
        share = shared / self._size[distinct[:, 1]]
        enough = share >= self._wanted[distinct[:, 1]]
        return distinct[enough, 0].tolist(), distinct[enough, 1].tolist(), share[enough].tolist()

    def _shared(self, texts: list[Words]) -> tuple[Integers, Hashes]:
        """Each row's distinct 8-grams that any item has, over all its texts."""
        rows, grams = [], []
        for words in texts:
            hashes, first = ngrams(words, NGRAM_WORDS)
            known = contained(hashes, self._vocabulary)
            rows.append(words.text[first[known]])
            grams.append(hashes[known])
        both = np.unique(np.stack([np.concatenate(rows).astype(np.uint64), np.concatenate(grams)], axis=1), axis=0)
        return both[:, 0].astype(np.int64), both[:, 1]
