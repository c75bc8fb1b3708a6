"""What the filter asks of a row: one set of thresholds for all hardware tiers."""

from dataclasses import dataclass, fields


@dataclass(frozen=True)
class FilterSpec:
    """Thresholds of the rules; each rule names its own field.

    Repetition: the limits of Gopher (Rae et al. 2021, arXiv 2112.11446, table A1) for lines and 3-grams. Its limit for
    5-grams, .15, is tripled, and texts of under a hundred words are not measured: answers restate the options of their
    question (good ones reach .4), and code and tables repeat themselves, where a web page need not. Benchmark cover:
    half of an item's 8-grams, as in Tulu 3 (Lambert et al. 2024, arXiv 2411.15124). Near-duplicates: Jaccard .8, as in
    Gopher.
    Words: Gopher's limit of 10 letters on average, tripled for formulas, addresses and one-word answers.
    Echo: an answer may take its question up word by word ("Nauru is the smallest country that is at least ..."), which
    reaches .86 on TruthfulQA's best answers; an echo changes nothing, or a word.
    Lengths: generous bounds against runaway texts; the base's context is the bound that matters.
    """

    min_words: int = 1
    max_instruction_words: int = 1024
    max_response_words: int = 4096
    max_instruction_tokens: int = 2048
    max_response_tokens: int = 8192
    max_characters: int = 40_000
    max_mean_word_bytes: int = 30
    repetition_min_words: int = 100
    max_duplicate_line_share: float = 0.20
    max_top_3gram_share: float = 0.18
    max_duplicate_5gram_share: float = 0.45
    foreign_min_letters: int = 6
    max_foreign_probability: float = 0.5
    max_echo_similarity: float = 0.9
    template_tokens: int = 64
    near_duplicate_similarity: float = 0.8
    benchmark_cover: float = 0.5

    def __post_init__(self) -> None:
        """Raise ValueError, naming the field, where a count is negative or a share is not within 0..1."""
        for field in fields(self):
            value = getattr(self, field.name)
            upper = 1.0 if isinstance(field.default, float) else float("inf")
            if isinstance(value, bool) or not 0 <= value <= upper:
                raise ValueError(f"FilterSpec.{field.name} is {value!r}, not between 0 and {upper:g}")
        for name in ("near_duplicate_similarity", "benchmark_cover"):
            if not getattr(self, name):
                raise ValueError(f"FilterSpec.{name} is 0: every row would be rejected")
