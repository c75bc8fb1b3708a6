"""What a finished adapter is worth on validation rows: by the tokens it expects, and by the text it writes."""

import math
from collections import Counter
from collections.abc import Sequence
from statistics import fmean
from typing import TYPE_CHECKING, Any

from synth_assets.training.data import Example

if TYPE_CHECKING:
    from peft import PeftModel
    from torch import Tensor
    from transformers import PreTrainedTokenizerBase

BATCHES_OF_ANSWERS = 4  # answers written at once, for each row of a training batch: no gradients are kept
SPARE_TOKENS = 8  # that an answer may be longer than the longest of its references


def scores_of(
    policy: "tuple[PeftModel, PreTrainedTokenizerBase]", examples: Sequence[Example], rows: int, batch: int
) -> dict[str, float]:
    """Scores on the first `rows` examples, with their number as `n`; empty where there is none.

    `loss` (nats a token), `perplexity` and `token_accuracy` are under the reference's own tokens; `exact_match`, `f1`,
    `bleu` and `rouge_l` compare greedy answers with the references, each in 0..1.
    """
    chosen = list(examples[:rows])
    if not chosen:
        return {}
    model, tokenizer = policy
    model.eval()
    answers = greedy_answers(model, tokenizer, chosen, batch * BATCHES_OF_ANSWERS)
    references = tokenizer.batch_decode([example.answer for example in chosen], skip_special_tokens=True)
    return {"n": float(len(chosen))} | token_scores(model, chosen, batch) | text_scores(answers, references)


def token_scores(model: "PeftModel", examples: Sequence[Example], batch: int) -> dict[str, float]:
    """Mean over all answer tokens, the end of the turn included."""
    import torch

    loss, right, tokens = 0.0, 0, sum(len(example.answer) for example in examples)
    with torch.inference_mode():
        for start in range(0, len(examples), batch):
            rows = examples[start : start + batch]
            ids = _padded([[*e.prompt, *e.answer] for e in rows], 0, model)
            mask = _padded([[1] * len(e) for e in rows], 0, model)
            logits = model(input_ids=ids, attention_mask=mask, use_cache=False).logits[:, -ids.shape[1] :]
            for example, row in zip(rows, logits, strict=True):
                guess = row[len(example.prompt) - 1 : len(example) - 1].float()
                answer = torch.tensor(example.answer, device=guess.device)
                loss += float(torch.nn.functional.cross_entropy(guess, answer, reduction="sum"))
                right += int((guess.argmax(-1) == answer).sum())
    return {"loss": loss / tokens, "perplexity": math.exp(min(loss / tokens, 700.0)), "token_accuracy": right / tokens}


def greedy_answers(
    model: "PeftModel", tokenizer: "PreTrainedTokenizerBase", examples: Sequence[Example], batch: int
) -> list[str]:
    """The likeliest continuation of each prompt, in order, at most a little longer than its batch's references."""
    import torch

    answers: list[str] = []
    with torch.inference_mode():
        for start in range(0, len(examples), batch):
            rows = examples[start : start + batch]
            longest = max(len(example.answer) for example in rows) + SPARE_TOKENS
            network, inputs = _generation_inputs(model, [example.prompt for example in rows])
            ids = network.generate(
                **inputs,
                max_new_tokens=longest,
                do_sample=False,
                temperature=None,
                top_p=None,
                top_k=None,
                pad_token_id=tokenizer.pad_token_id,
                eos_token_id=sorted({example.answer[-1] for example in rows}),
            )
            prompted = inputs["input_ids"].shape[1] if "input_ids" in inputs else 0
            answers += tokenizer.batch_decode(ids[:, prompted:], skip_special_tokens=True)
    return answers


def _generation_inputs(model: "PeftModel", prompts: Sequence[Sequence[int]]) -> tuple[Any, "dict[str, Tensor]"]:
    """The network to generate with, and prompts padded on the left.

    PEFT puts virtual tokens before the padding, which spoils them; so a soft prompt is put behind it by hand.
    """
    import torch

    width = max(map(len, prompts))
    ids = _padded([[0] * (width - len(p)) + [*p] for p in prompts], 0, model)
    mask = _padded([[0] * (width - len(p)) + [1] * len(p) for p in prompts], 0, model)
    if not model.active_peft_config.is_prompt_learning:
        return model, {"input_ids": ids, "attention_mask": mask}
    soft: Any = model.get_prompt(batch_size=1)[0]
    words: Tensor = model.get_input_embeddings()(ids)
    rows = [
        torch.cat([row[: width - len(p)], soft.to(row.dtype), row[width - len(p) :]])
        for row, p in zip(words, prompts, strict=True)
    ]
    ones = torch.ones(len(prompts), len(soft), dtype=mask.dtype, device=mask.device)
    pads = [width - len(p) for p in prompts]
    joined = [torch.cat([row[:pad], one, row[pad:]]) for row, one, pad in zip(mask, ones, pads, strict=True)]
    return model.base_model, {"inputs_embeds": torch.stack(rows), "attention_mask": torch.stack(joined)}


def text_scores(answers: Sequence[str], references: Sequence[str]) -> dict[str, float]:
    """How like the references the answers are, each in 0..1.

    `exact_match` compares all but spaces at the ends; `f1` is over the words that both have (Rajpurkar et al. 2016,
    arXiv 1606.05250, section 6.1); `bleu` is the corpus's, by sacrebleu; `rouge_l` is the mean of `rouge_l`.
    """
    from sacrebleu.metrics.bleu import BLEU

    both = list(zip(answers, references, strict=True))
    return {
        "exact_match": fmean(answer.strip() == reference.strip() for answer, reference in both),
        "f1": fmean(word_f1(answer, reference) for answer, reference in both),
        "bleu": BLEU().corpus_score(list(answers), [list(references)]).score / 100,
        "rouge_l": fmean(rouge_l(answer, reference) for answer, reference in both),
    }


def rouge_l(answer: str, reference: str) -> float:
    """F of the longest common subsequence of words (Lin 2004, ROUGE, section 3); words of every script count."""
    found, wanted = words(answer), words(reference)
    longest = [0] * (len(wanted) + 1)  # with the words of `found` so far, for each beginning of `wanted`
    for word in found:
        before = longest.copy()
        for place, other in enumerate(wanted, start=1):
            longest[place] = before[place - 1] + 1 if word == other else max(before[place], longest[place - 1])
    return 2 * longest[-1] / (len(found) + len(wanted)) if found or wanted else 1.0


def words(text: str) -> list[str]:
    """Lower-case words, with what is written onto them."""
    return text.casefold().split()


def word_f1(answer: str, reference: str) -> float:
    """Harmonic mean of precision and recall of words, each counted as often as it stands; 1 where both are empty."""
    found, wanted = Counter(words(answer)), Counter(words(reference))
    shared = (found & wanted).total()
    if not found and not wanted:
        return 1.0
    return 2 * shared / (found.total() + wanted.total())


def _padded(rows: Sequence[Sequence[int]], value: int, model: "PeftModel") -> "Tensor":
    """Rows of equal length, padded on the right, on the model's device."""
    import torch

    width = max(map(len, rows))
    return torch.tensor([[*row, *[value] * (width - len(row))] for row in rows], device=model.device)
