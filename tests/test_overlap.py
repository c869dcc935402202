"""BLEU and ROUGE as shares, by the libraries people cite."""

from __future__ import annotations

import time

import pytest

from evalops.evaluators import overlap


def test_bleu() -> None:
    pytest.importorskip("sacrebleu")
    assert overlap.bleu("the cat sat on the mat", "the cat sat on the mat") == 1.0
    assert overlap.bleu("Paris", "Paris") == 1.0  # shorter than four words
    assert overlap.bleu("dogs", "the cat sat on the mat") == 0.0
    assert overlap.bleu("", "Paris") == 0.0
    assert overlap.bleu("the cat sat on a mat", "the cat sat on the mat") == pytest.approx(0.537285, abs=1e-6)


def test_rouge() -> None:
    pytest.importorskip("rouge_score")
    # two of three words, two of six: F of precision 1 and recall 1/2 for the first three words
    assert overlap.rouge("the cat sat", "the cat sat on the mat", "rouge1") == pytest.approx(2 / 3)
    assert overlap.rouge("the cat sat", "the cat sat on the mat", "rouge2") == pytest.approx(2 * 1 * 0.4 / 1.4)
    assert overlap.rouge("mat the cat", "the cat mat", "rougeL") == pytest.approx(2 / 3)
    assert overlap.rouge("", "the cat", "rougeL") == 0.0
    assert overlap.rouge("The CAT.", "the cat", "rougeL") == 1.0


def test_what_is_not_compared() -> None:
    assert overlap.refusal("bleu", "a" * 200_000, "a") == (
        "too_long",
        "texts of 200,000 and 1 characters are too long for it",
    )
    assert overlap.refusal("rouge", "a" * 6_000, "a" * 6_000) is not None
    assert overlap.refusal("rouge", "a" * 60_000, "a" * 100) is None
    assert overlap.refusal("rouge", "x", "日本") == (
        "bad_gold",
        "ROUGE reads letters a to z and digits only, and the true answer has none",
    )
    assert overlap.refusal("bleu", "x", "日本") is None


@pytest.mark.slow
def test_the_longest_texts_that_are_compared_take_seconds_at_most() -> None:
    pytest.importorskip("rouge_score")
    overlap.rouge("a", "a", "rougeL")
    text = "a b " * 1_250
    assert overlap.refusal("rouge", text, text) is None
    began = time.process_time()
    overlap.rouge(text, text[::-1], "rougeL")
    assert time.process_time() - began < 8
