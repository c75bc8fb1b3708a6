"""Score a trained adapter on validation rows: token loss and accuracy, and text similarity of greedy answers."""

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

GENERATION_BATCH_FACTOR = 4  # generation batch, in multiples of the training batch; gradients need no memory here
SPARE_TOKENS = 8  # extra tokens that an answer may have beyond the longest reference of its batch


def validation_scores(
    policy: "tuple[PeftModel, PreTrainedTokenizerBase]", examples: Sequence[Example], rows: int, batch: int
) -> dict[str, float]:
    """Score a policy on the first `rows` examples; return the scores with their number `n`, or {} without examples.

    `loss` (nats per token), `perplexity` and `token_accuracy` are computed on the tokens of the references.
    `exact_match`, `f1`, `bleu` and `rouge_l` compare greedy answers with the references, each in 0..1.
    """
    chosen = list(examples[:rows])
    if not chosen:
        return {}
    model, tokenizer = policy
    model.eval()
    answers = greedy_answers(model, tokenizer, chosen, batch * GENERATION_BATCH_FACTOR)
    references = tokenizer.batch_decode([example.answer for example in chosen], skip_special_tokens=True)
    return {"n": float(len(chosen))} | token_scores(model, chosen, batch) | text_scores(answers, references)


def token_scores(model: "PeftModel", examples: Sequence[Example], batch: int) -> dict[str, float]:
    """Compute mean loss, perplexity and accuracy over all answer tokens, including end-of-turn tokens."""
    import torch

    loss, correct, tokens = 0.0, 0, sum(len(example.answer) for example in examples)
    with torch.inference_mode():
        for start in range(0, len(examples), batch):
            rows = examples[start : start + batch]
            ids = _padded([[*e.prompt, *e.answer] for e in rows], 0, model)
            mask = _padded([[1] * len(e) for e in rows], 0, model)
            logits = model(input_ids=ids, attention_mask=mask, use_cache=False).logits[:, -ids.shape[1] :]
            for example, row in zip(rows, logits, strict=True):
                prediction = row[len(example.prompt) - 1 : len(example) - 1].float()
                answer = torch.tensor(example.answer, device=prediction.device)
                loss += float(torch.nn.functional.cross_entropy(prediction, answer, reduction="sum"))
                correct += int((prediction.argmax(-1) == answer).sum())
    perplexity = math.exp(min(loss / tokens, 700.0))
    return {"loss": loss / tokens, "perplexity": perplexity, "token_accuracy": correct / tokens}


def greedy_answers(
    model: "PeftModel",
    tokenizer: "PreTrainedTokenizerBase",
    examples: Sequence[Example],
    batch: int,
    max_new_tokens: int | None = None,
) -> list[str]:
    """Generate a greedy answer to each prompt, in order, at most SPARE_TOKENS longer than its batch's references.

    `max_new_tokens` is a further limit.
    """
    import torch

    answers: list[str] = []
    with torch.inference_mode():
        for start in range(0, len(examples), batch):
            rows = examples[start : start + batch]
            longest = max(len(example.answer) for example in rows) + SPARE_TOKENS
            longest = min(longest, max_new_tokens or longest)
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
            prompt_tokens = inputs["input_ids"].shape[1] if "input_ids" in inputs else 0
            answers += tokenizer.batch_decode(ids[:, prompt_tokens:], skip_special_tokens=True)
    return answers


def _generation_inputs(model: "PeftModel", prompts: Sequence[Sequence[int]]) -> tuple[Any, "dict[str, Tensor]"]:
    """Return the network to generate with, and its left-padded inputs.

    PEFT puts virtual tokens before the padding, which corrupts shorter rows. So this inserts a soft prompt after the
    padding.
    """
    import torch

    width = max(map(len, prompts))
    ids = _padded([[0] * (width - len(p)) + [*p] for p in prompts], 0, model)
    mask = _padded([[0] * (width - len(p)) + [1] * len(p) for p in prompts], 0, model)
    if not model.active_peft_config.is_prompt_learning:
        return model, {"input_ids": ids, "attention_mask": mask}
    soft: Any = model.get_prompt(batch_size=1)[0]
    embedded: Tensor = model.get_input_embeddings()(ids)
    rows = [
        torch.cat([row[: width - len(p)], soft.to(row.dtype), row[width - len(p) :]])
        for row, p in zip(embedded, prompts, strict=True)
    ]
    ones = torch.ones(len(prompts), len(soft), dtype=mask.dtype, device=mask.device)
    pads = [width - len(p) for p in prompts]
    masks = [torch.cat([row[:pad], prefix, row[pad:]]) for row, prefix, pad in zip(mask, ones, pads, strict=True)]
    return model.base_model, {"inputs_embeds": torch.stack(rows), "attention_mask": torch.stack(masks)}


def text_scores(answers: Sequence[str], references: Sequence[str]) -> dict[str, float]:
    """Compare answers with references; each score is in 0..1.

    `exact_match` ignores leading and trailing white space. `f1` is the mean word F1 (Rajpurkar et al. 2016,
    arXiv 1606.05250, section 6.1), `bleu` the corpus BLEU of sacrebleu, `rouge_l` the mean ROUGE-L.
    """
    from sacrebleu.metrics.bleu import BLEU

    pairs = list(zip(answers, references, strict=True))
    return {
        "exact_match": fmean(answer.strip() == reference.strip() for answer, reference in pairs),
        "f1": fmean(word_f1(answer, reference) for answer, reference in pairs),
        "bleu": BLEU().corpus_score(list(answers), [list(references)]).score / 100,
        "rouge_l": fmean(rouge_l(answer, reference) for answer, reference in pairs),
    }


def rouge_l(answer: str, reference: str) -> float:
    """Compute ROUGE-L, the F-measure of the longest common subsequence of words (Lin 2004, section 3)."""
    actual, expected = words(answer), words(reference)
    longest = [0] * (len(expected) + 1)  # common subsequence of the words so far with each prefix of `expected`
    for word in actual:
        previous = longest.copy()
        for end, other in enumerate(expected, start=1):
            longest[end] = previous[end - 1] + 1 if word == other else max(previous[end], longest[end - 1])
    return 2 * longest[-1] / (len(actual) + len(expected)) if actual or expected else 1.0


def words(text: str) -> list[str]:
    """Split text into lower-case words at white space, keeping punctuation."""
    return text.casefold().split()


def word_f1(answer: str, reference: str) -> float:
    """Compute the F1 of words, counting repetitions; 1 if both texts are empty."""
    actual, expected = Counter(words(answer)), Counter(words(reference))
    shared = (actual & expected).total()
    if not actual and not expected:
        return 1.0
    return 2 * shared / (actual.total() + expected.total())


def _padded(rows: Sequence[Sequence[int]], value: int, model: "PeftModel") -> "Tensor":
    """Pad rows on the right to equal length, on the model's device."""
    import torch

    width = max(map(len, rows))
    return torch.tensor([[*row, *[value] * (width - len(row))] for row in rows], device=model.device)
