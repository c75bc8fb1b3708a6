"""Rules that every instruction row must pass, in order: the first rule that fails gives the reason."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

import numpy as np

from synth_assets.stages.filtering.features import SIDES, Features, Flags, Floats, Side
from synth_assets.stages.filtering.rules import constraints, content, language, markup, repetition, safety, truncation
from synth_assets.text.refusals import REFUSAL_OR_DEFLECTION

EVIDENCE_CHARACTERS = 80
Family = Literal["length", "language", "repetition", "format", "safety", "content"]


@dataclass(frozen=True)
class Rule:
    """One reason to reject a row.

    Attributes:
        reason: the reason in `rejected_instructions`.
        family: the kind of defect.
        measure: returns the value of each row of a chunk, shape (rows,); NaN where the rule does not apply.
        limit: field of FilterSpec, or `context_tokens` of the base, that the value is compared with; empty if any value
            above 0 fails.
        least: whether the limit is the smallest value that passes; otherwise it is the largest.
        graded: whether the distance to the limit reflects quality and enters the score.
        evidence: regular expression whose match is shown with the value.
        side: the text that `evidence` is searched in.
        explanations: returns the text that is shown of each row instead of its value.
        for_rejected: whether the rejected response of an imported preference pair must pass the rule as well. That
            response may refuse, be cut off, repeat itself or say nothing.
    """

    reason: str
    family: Family
    measure: Callable[[Features], Floats]
    limit: str = ""
    least: bool = False
    graded: bool = False
    evidence: str = ""
    side: Side = "instruction"
    explanations: Callable[[Features], Sequence[str]] | None = None
    for_rejected: bool = False

    def threshold(self, rows: Features) -> float:
        """Return the limit's value."""
        if self.limit == "context_tokens":
            return float(rows.context_tokens)
        return float(getattr(rows.spec, self.limit)) if self.limit else 0.0

    def fails(self, rows: Features, values: Floats) -> Flags:
        """Return where the values are beyond the limit; NaN never is."""
        limit = self.threshold(rows)
        return values < limit if self.least else values > limit

    def explain(self, rows: Features, index: int, value: float) -> str:
        """Return the value with its limit and the matched evidence, shown to users with the rejected row."""
        if self.explanations is not None:
            return self.explanations(rows)[index]
        relation = "below" if self.least else "above"
        comparison = f"{value:.4g} is {relation} {self.threshold(rows):g}"
        if not self.evidence:
            return comparison
        match = rows.text(self.side).slice(index, 1).str.extract(f"({self.evidence})", 1)[0] or ""
        return f"{comparison}: {' '.join(match.split())[:EVIDENCE_CHARACTERS]}"


def _words(side: Side) -> Callable[[Features], Floats]:
    return lambda rows: rows.word_counts(side).astype(np.float64)


def _characters(rows: Features) -> Floats:
    sizes = [rows.text(side).str.len_chars().to_numpy() for side in SIDES]
    return np.maximum(*sizes).astype(np.float64)


def _mean_word_bytes(rows: Features) -> Floats:
    """Return the larger mean of both sides; encoded data and runs of one character give very long words."""
    return np.maximum(*(rows.words(side).letters() / np.maximum(rows.word_counts(side), 1) for side in SIDES))


def _base_tokens(rows: Features) -> Floats:
    """Return the tokens of the conversation with its template, if they may exceed the base's context."""
    return rows.conversation_tokens(rows.context_tokens - rows.spec.template_tokens) + rows.spec.template_tokens


def _refused(rows: Features) -> Floats:
    """Return 1 where the base's chat template refuses the conversation."""
    return np.array([bool(reason) for reason in rows.refusals()], np.float64)


def _tokens(side: Side) -> Callable[[Features], Floats]:
    return lambda rows: rows.tokens_above(side, getattr(rows.spec, f"max_{side}_tokens"))


RULES: tuple[Rule, ...] = (
    Rule("empty_instruction", "content", partial(content.empty, side="instruction"), "min_words", least=True),
    Rule("empty_response", "content", partial(content.empty, side="response"), "min_words", least=True,
         for_rejected=True),
    Rule("too_many_characters", "length", _characters, "max_characters", for_rejected=True),
    Rule("instruction_too_long", "length", _words("instruction"), "max_instruction_words"),
    Rule("response_too_long", "length", _words("response"), "max_response_words", for_rejected=True),
    Rule("too_many_instruction_tokens", "length", _tokens("instruction"), "max_instruction_tokens"),
    Rule("too_many_response_tokens", "length", _tokens("response"), "max_response_tokens", for_rejected=True),
    Rule("control_token_in_instruction", "format", markup.instruction_control_marks,
         evidence=markup.CONTROL_MARK),
    Rule("control_token_in_response", "format", lambda rows: rows.matches("response", markup.CONTROL_MARK),
         evidence=markup.CONTROL_MARK, side="response", for_rejected=True),
    Rule("carries_solution", "content", content.carries_solution,
         evidence=f"{content.CARRIED_SOLUTION}|{content.DERIVATION}"),
    Rule("instruction_is_an_answer", "content", content.is_an_answer, evidence=content.ASSISTANT_OPENING),
    Rule("truncated_instruction", "format", partial(markup.stopped_by_length, side="instruction")),
    Rule("truncated_response", "format", partial(markup.stopped_by_length, side="response")),
    Rule("instruction_looks_cut_off", "format", partial(truncation.looks_cut_off, side="instruction")),
    Rule("response_looks_cut_off", "format", partial(truncation.looks_cut_off, side="response")),
    Rule("unbalanced_fences", "format", markup.unbalanced_fences),
    Rule("unbalanced_mathematics", "format", partial(markup.unbalanced_mathematics, side="response")),
    Rule("echo", "content", content.echo_similarity, "max_echo_similarity", graded=True),
    Rule("talks_about_message", "content", content.talks_about_message, evidence=content.TALK_ABOUT_MESSAGE,
         side="response"),
    Rule(
        "refuses_harmless_task",
        "content",
        content.refuses_harmless_task,
        evidence=REFUSAL_OR_DEFLECTION,
        side="response",
    ),
    Rule("trivial_answer", "content", content.trivial_answer),
    Rule("states_no_task", "content", content.states_no_task),
    Rule("lacks_its_figure", "content", content.lacks_its_figure, evidence=content.MISSING_FIGURE),
    Rule("constraint_not_followed", "content", constraints.violated_constraints,
         explanations=constraints.violation_texts),
    Rule("duplicate_lines", "repetition", repetition.duplicate_line_share, "max_duplicate_line_share", graded=True),
    Rule("repeated_3gram", "repetition", repetition.top_3gram_share, "max_top_3gram_share", graded=True),
    Rule("duplicate_5grams", "repetition", repetition.duplicate_5gram_share, "max_duplicate_5gram_share", graded=True),
    Rule("obscene", "safety", safety.obscene_words),
    Rule("helps_to_harm", "safety", safety.complies_with_harm),
    Rule("personal_data", "safety", safety.personal_data, for_rejected=True),
    Rule("not_english", "language", language.foreign_probability, "max_foreign_probability", graded=True,
         for_rejected=True),
    Rule("words_too_long", "length", _mean_word_bytes, "max_mean_word_bytes", for_rejected=True),
    Rule("too_long_for_base", "length", _base_tokens, "context_tokens", for_rejected=True),
    Rule("refused_by_chat_template", "format", _refused, explanations=Features.refusals, for_rejected=True),
)  # fmt: skip
