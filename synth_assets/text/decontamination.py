"""Decontamination: find rows that repeat benchmark items.

The matches are a lower bound: paraphrases and translations of an item are not found (see stages/filtering/semantic.py).
"""

from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from synth_assets.text.lexicon import BOILERPLATE_ITEMS, NGRAM_WORDS, Lexicon
from synth_assets.text.words import Hashes, Integers, TokenHashes, hash_words, ngrams, whole_texts

WORDS_AT_ONCE = 1 << 14  # arrays fit the processor's cache
LABELS = r"(?im)^[ \t]*(?:\(?[a-j][.):]|(?:question|q|problem|answer|choices|options):)(?:[ \t]|$)"
"""Labels of questions and choices."""
GENERIC = r"(?i)^\s*(?:which|choose|select|pick|identify|all)\b.{0,24}\b(?:following|these|true|correct|false)\b"
"""Openings of generic questions, which need their choices to be specific."""


@dataclass(frozen=True)
class Hits:
    """The best-matching item of each row of a chunk: its id (empty for none) and the covered share."""

    item: list[str]
    cover: list[float]


class Decontaminator:
    """An index of benchmark items to match rows against."""

    def __init__(self, items: pl.DataFrame, cover: float) -> None:
        """Index BENCHMARK_ITEMS by whole text and by the 8-grams of their prompts.

        If a prompt is generic, such as "Which of the following is true?", its choices are part of the indexed text.

        Args:
            items: the items of all suites and splits.
            cover: share of an item's 8-grams, above 0, from which a row repeats it; shorter items must be the whole
                instruction.

        Raises:
            ValueError: there are no items, or an item has an empty prompt.
        """
        texts = indexed_texts(items)
        words = hash_words(texts["text"].to_list())
        if not items.height or not words.counts().all():
            empty = ", ".join(texts["item_id"].filter(pl.Series(words.counts() == 0)).to_list()) or "there are no items"
            raise ValueError(f"decontamination needs the prompts of all benchmark items, missing: {empty}")
        self._ids, self._cover = texts["item_id"].to_list(), cover
        self._index_whole(words, texts)
        self._index_ngrams(words, texts["item_id"].fill_null("").rank("dense").to_numpy().astype(np.uint64))

    def find(self, *texts: pl.Series) -> Hits:
        """Match the rows of a chunk.

        Args:
            texts: the rows' instructions, which may equal an item of any length, then their other texts. The 8-grams of
                all texts of a row count together.
        """
        return self.find_words([hash_words(series.to_list()) for series in texts], texts)

    def find_words(self, words: list[TokenHashes], texts: tuple[pl.Series, ...]) -> Hits:
        """Match rows like `find`, given the hashed words of the texts in the same order."""
        item, cover = self._best(words)
        labelled = np.flatnonzero(np.any([series.str.contains(LABELS).to_numpy() for series in texts], axis=0))
        if labelled.size:
            plain = [hash_words(without_labels(series.gather(labelled)).to_list()) for series in texts]
            plain_item, share = self._best(plain)
            better = share > cover[labelled]
            item[labelled[better]], cover[labelled[better]] = plain_item[better], share[better]
        return Hits([self._ids[i] if i >= 0 else "" for i in item], cover.tolist())

    def _best(self, texts: list[TokenHashes]) -> tuple[Integers, NDArray[np.float64]]:
        """Return for each row the item that it covers most, or -1, and the share."""
        rows = texts[0].texts
        item, cover = np.full(rows, -1), np.zeros(rows)
        for row, hit, share in zip(*self._covered(*self._shared(texts)), strict=True):
            if share > cover[row]:
                item[row], cover[row] = hit, share
        whole = np.concatenate([whole_texts(part) for part in texts[0].parts(WORDS_AT_ONCE)])
        index = np.minimum(np.searchsorted(self._whole, whole), self._whole.size - 1)
        same = (self._whole[index] == whole) & (texts[0].counts() > 0)
        item[same], cover[same] = self._whole_item[index[same]], 1.0
        return item, cover

    def _index_whole(self, words: TokenHashes, texts: pl.DataFrame) -> None:
        """Index the hash of each item's words, without and with its choices."""
        full = whole_texts(hash_words((texts["text"] + "\n" + texts["choices"]).to_list()))
        hashes, item = np.concatenate([whole_texts(words), full]), np.tile(np.arange(texts.height), 2)
        order = np.argsort(hashes, kind="stable")
        self._whole, self._whole_item = hashes[order], item[order]

    def _index_ngrams(self, words: TokenHashes, number: Hashes) -> None:
        """Index 8-grams by item; n-grams in more than BOILERPLATE_ITEMS items alone do not count."""
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
        """Return rows, items and shares wherever a row covers enough of an item; the 8-grams are sorted by row."""
        start = np.searchsorted(self._grams, gram, side="left")
        sizes = np.searchsorted(self._grams, gram, side="right") - start
        entry = np.repeat(start, sizes) + np.arange(sizes.sum()) - np.repeat(np.cumsum(sizes) - sizes, sizes)
        pairs = np.stack([np.repeat(row, sizes), self._gram_item[entry]], axis=1)
        distinct, shared = np.unique(pairs, axis=0, return_counts=True)
        pair_row, item = distinct[:, 0], distinct[:, 1]
        share = shared / self._specific[item]
        for weak in np.flatnonzero((share < self._cover) & (self._size[item] > self._specific[item])):
            row_grams = gram[
                np.searchsorted(row, pair_row[weak], "left") : np.searchsorted(row, pair_row[weak], "right")
            ]
            framed = np.isin(self._frames[item[weak]], row_grams).sum()
            share[weak] = max(share[weak], (shared[weak] + framed) / self._size[item[weak]])
        enough = share >= self._cover
        return pair_row[enough].tolist(), item[enough].tolist(), share[enough].tolist()

    def _shared(self, texts: list[TokenHashes]) -> tuple[Integers, Hashes]:
        """Return each row's distinct 8-grams that occur in an item, over all its texts, sorted by row."""
        rows, grams = [], []
        for words in texts:
            before = 0
            for part in words.parts(WORDS_AT_ONCE):
                hashes, first = ngrams(part, NGRAM_WORDS)
                indexed = self._known.has(hashes)
                rows.append(part.text[first[indexed]] + before)
                grams.append(hashes[indexed])
                before += part.texts
        entries = np.unique(np.stack([np.concatenate(rows).astype(np.uint64), np.concatenate(grams)], axis=1), axis=0)
        return entries[:, 0].astype(np.int64), entries[:, 1]


def without_labels(texts: pl.Series) -> pl.Series:
    """Remove "Question:", "A.", "(b)" and similar labels at the start of lines."""
    return texts.str.replace_all(LABELS, "")


def indexed_texts(items: pl.DataFrame) -> pl.DataFrame:
    """Return the text of each distinct item, with and without labels.

    Returns:
        `text`, `choices` (empty if the text contains them) and the lowest `item_id` of each text.
    """
    raw = items.select("item_id", prompt=pl.col("prompt").fill_null(""), choices=pl.col("choices").list.join("\n"))
    plain = raw.with_columns(prompt=without_labels(raw["prompt"]))
    table = pl.concat([raw, plain]).with_columns(pl.col("choices").fill_null(""))
    generic = (pl.col("prompt").str.split(" ").list.len() < NGRAM_WORDS) & pl.col("prompt").str.contains(GENERIC)
    text = pl.when(generic).then(pl.concat_str("prompt", "choices", separator="\n")).otherwise("prompt")
    rest = pl.when(generic).then(pl.lit("")).otherwise("choices")
    table = table.select("item_id", text=text, choices=rest)
    return table.group_by("text").agg(pl.col("item_id").min(), pl.col("choices").first()).sort("item_id", "text")
