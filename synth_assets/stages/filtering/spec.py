"""Thresholds of the filter, the same for all hardware tiers."""

from dataclasses import dataclass, fields

from synth_assets.schemas.settings import setting


@dataclass(frozen=True)
class FilterSpec:
    """Thresholds of the rules; each rule names its field.

    Repetition: the limits of Gopher (Rae et al. 2021, arXiv 2112.11446, table A1) for lines and 3-grams. Its limit for
    5-grams, .15, is tripled, and texts of fewer than a hundred words are not measured: good answers restate the options
    of their question (up to .4), and code and tables repeat themselves more than web pages. Benchmark cover: half of an
    item's 8-grams, as in Tulu 3 (Lambert et al. 2024, arXiv 2411.15124). Near-duplicates: Jaccard .8, as in Gopher.
    Words: Gopher's limit of 10 letters on average, tripled for formulas, addresses and one-word answers.
    Echo: an answer may restate its question ("Nauru is the smallest country that is at least ..."), which reaches .86
    on TruthfulQA's best answers; an echo repeats it with at most a word changed.
    Lengths: generous bounds against runaway texts; the base's context is the effective bound.
    """

    min_words: int = setting(1, "Fewest words of an instruction or response.")
    max_instruction_words: int = setting(1024, "Most words of an instruction.")
    max_response_words: int = setting(4096, "Most words of a response.")
    max_instruction_tokens: int = setting(2048, "Most tokens of an instruction.")
    max_response_tokens: int = setting(8192, "Most tokens of a response.")
    max_characters: int = setting(40_000, "Most characters of a text.")
    max_mean_word_bytes: int = setting(30, "Most bytes of a word on average.")
    repetition_min_words: int = setting(100, "Shorter texts are not measured for repetition.")
    max_duplicate_line_share: float = setting(0.20, "Largest share of lines that repeat, 0..1.")
    max_top_3gram_share: float = setting(0.18, "Largest share of characters in the most frequent 3-gram, 0..1.")
    max_duplicate_5gram_share: float = setting(0.45, "Largest share of characters in repeated 5-grams, 0..1.")
    foreign_min_letters: int = setting(6, "Shorter texts are not identified as a language.")
    max_foreign_probability: float = setting(0.5, "Largest probability of a language other than English, 0..1.")
    max_echo_similarity: float = setting(0.9, "Largest similarity of instruction and response, 0..1.")
    template_tokens: int = setting(64, "Tokens of the base's context kept for the chat template.")
    near_duplicate_similarity: float = setting(0.8, "Jaccard similarity from which rows are near-duplicates, 0..1.")
    benchmark_cover: float = setting(0.5, "Share of a benchmark item's 8-grams that makes a row contaminated, 0..1.")

    def __post_init__(self) -> None:
        """Raise ValueError with the name of a field that is out of range."""
        for field in fields(self):
            value = getattr(self, field.name)
            upper = 1.0 if isinstance(field.default, float) else float("inf")
            if isinstance(value, bool) or not 0 <= value <= upper:
                raise ValueError(f"FilterSpec.{field.name} must be between 0 and {upper:g}, got {value!r}")
        for name in ("near_duplicate_similarity", "benchmark_cover"):
            if not getattr(self, name):
                raise ValueError(f"FilterSpec.{name} must be above 0, got 0: every row would be rejected")
