"""How much of a true answer a response repeats: BLEU by sacrebleu, ROUGE by rouge-score, both of the extra `text`."""

from __future__ import annotations

import re
from functools import cache
from importlib.util import find_spec
from typing import Any

LARGEST = 100_000  # characters of either text
CELLS = 25_000_000  # the product of both lengths, for ROUGE: rougeL takes that in time
LIBRARIES = {"bleu": "sacrebleu", "rouge": "rouge_score"}


def is_installed(kind: str) -> bool:
    """Whether the library of `bleu` or `rouge` is there; nothing is imported."""
    return find_spec(LIBRARIES[kind]) is not None


def refusal(kind: str, text: str, gold: str) -> tuple[str, str] | None:
    """Why two texts are not compared: a reason, and a sentence for people."""
    if max(len(text), len(gold)) > LARGEST or (kind == "rouge" and len(text) * len(gold) > CELLS):
        return "too_long", f"texts of {len(text):,} and {len(gold):,} characters are too long for it"
    if kind == "rouge" and not re.search(r"[A-Za-z0-9]", gold):
        return "bad_gold", "ROUGE reads letters a to z and digits only, and the true answer has none"
    return None


def bleu(text: str, gold: str) -> float:
    """BLEU of one sentence, 0 to 1: n-grams up to 4 or the answer's length, smoothed (sacrebleu's defaults)."""
    from sacrebleu import sentence_bleu

    return _share(sentence_bleu(text, [gold], use_effective_order=True).score / 100)


def rouge(text: str, gold: str, variant: str) -> float:
    """The F measure of `rouge1`, `rouge2` or `rougeL`, 0 to 1, without stemming: the tokens are runs of a-z and 0-9."""
    return _share(_scorer(variant).score(gold, text)[variant].fmeasure)


@cache
def _scorer(variant: str) -> Any:
    from rouge_score.rouge_scorer import RougeScorer

    return RougeScorer([variant], use_stemmer=False)


def _share(value: float) -> float:
    """Rounding can carry a perfect score past 1."""
    return min(max(float(value), 0.0), 1.0)
