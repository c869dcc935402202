"""What costs money and what does not: each run field changes the fingerprint, nothing else does."""

from __future__ import annotations

import json
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from evalops import document, endpoint, fingerprint, spec
from evalops.errors import Mark
from evalops.fingerprint import LONGEST, Digests, Identity, canonical, sha256
from evalops.settings import Settings
from evalops.spec import Evaluation

SETTINGS = Settings(models={"house": {"base_url": "http://127.0.0.1:8000/v1"}})
DIGESTS = Digests(rows=3, dataset="d" * 64, submitted="e" * 64, grading="f" * 64, characters=100)
CLASSIFY: dict[str, Any] = {
    "version": 1,
    "name": "tone",
    "type": "classify",
    "dataset": {"path": "rows.jsonl"},
    "judge": {"model": "ollama/llama3.2", "system_template": "Polite? {{ response }}"},
    "labels": ["polite", "rude"],
}
SCORE = {
    **{key: value for key, value in CLASSIFY.items() if key != "labels"},
    "type": "score",
    "min_score": 1,
    "max_score": 5,
}
COMPARE = {
    **{key: value for key, value in CLASSIFY.items() if key != "labels"},
    "type": "compare", "model_a": "one", "model_b": "two",
}  # fmt: skip
WRITER = {"model": "ollama/qwen3", "input_template": "{{ question }}"}


def read(value: dict[str, Any] | str) -> Evaluation:
    text = value if isinstance(value, str) else yaml.safe_dump(value, sort_keys=False)
    (found,), problems = document.parse(text.encode(), "tone.yaml")
    (evaluation,), more = spec.load(found, SETTINGS, lambda path: f"the text of {path} {{{{ response }}}}")
    assert not problems + more
    return evaluation


def identity(
    value: dict[str, Any] | str, digests: Digests = DIGESTS, weights: dict[str, str] | None = None
) -> Identity:
    evaluation = read(value)
    endpoints = [endpoint.resolve(model, SETTINGS, Mark("a")) for model in evaluation.models]
    return fingerprint.identify(evaluation, endpoints, digests, weights or {})


def changed(value: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """The spec with fields set by dotted names."""
    value = json.loads(json.dumps(value))
    for name, new in changes.items():
        place = value
        *outer, last = name.split("__")
        for key in outer:
            place = place[key]
        place[last] = new
    return value


FREE: list[dict[str, Any]] = [
    {"name": "manners"},
    {"description": "Every reply stays polite"},
    {"tags": ["nightly"]},
    {"thresholds": {"invalid_rate": {"max": 0.1}}},
    {"pass_labels": ["polite"]},
    {"gold": "label"},
    {"judge__num_workers": 3},
    {"dataset": "other/folder.jsonl"},
    {"dataset__id": "ticket"},
    {"provider": "local"},
    {"judge__verdict": "structured"},
    {"judge__reason": "first"},
    {"judge__model_source": "external"},
]
PAID: list[tuple[dict[str, Any], dict[str, Any], str]] = [
    (CLASSIFY, {"judge__model": "ollama/other"}, "judge.model"),
    (CLASSIFY, {"judge__model": "house"}, "judge.base_url"),
    (CLASSIFY, {"judge__external_base_url": "http://127.0.0.1:9/v1"}, "judge.base_url"),
    (CLASSIFY, {"judge__system_template": "Rude? {{ response }}"}, "judge.system_template"),
    (CLASSIFY, {"judge__system_template": {"file": "x.md"}}, "judge.system_template"),
    (CLASSIFY, {"judge__temperature": 0}, "judge.temperature"),
    (CLASSIFY, {"judge__max_tokens": 10}, "judge.max_tokens"),
    (CLASSIFY, {"judge__verdict": "likelihood"}, "judge.verdict"),
    (CLASSIFY, {"judge__reason": "none"}, "judge.reason"),
    (CLASSIFY, {"judge": {"column": "label"}}, "judge.column"),
    (CLASSIFY, {"labels": ["rude", "polite"]}, "labels"),
    (CLASSIFY, {"labels": ["polite", "rude", "neither"]}, "labels"),
    (CLASSIFY, {"model_to_evaluate": "response"}, "model_to_evaluate"),
    (CLASSIFY, {"model_to_evaluate": WRITER}, "model_to_evaluate.model"),
    (changed(CLASSIFY, model_to_evaluate=WRITER), {"model_to_evaluate__temperature": 1},
     "model_to_evaluate.temperature"),
    (changed(CLASSIFY, model_to_evaluate=WRITER), {"model_to_evaluate__max_tokens": 9}, "model_to_evaluate.max_tokens"),
    (changed(CLASSIFY, model_to_evaluate=WRITER), {"model_to_evaluate__system_template": "Be kind"},
     "model_to_evaluate.system_template"),
    (changed(CLASSIFY, model_to_evaluate=WRITER), {"model_to_evaluate__input_template": "{{ q }}"},
     "model_to_evaluate.input_template"),
    (SCORE, {"min_score": 0}, "min_score"),
    (SCORE, {"max_score": 10}, "max_score"),
    (COMPARE, {"model_a": "two", "model_b": "one"}, "model_a"),
    (COMPARE, {"disable_position_bias_correction": True}, "disable_position_bias_correction"),
]  # fmt: skip


@pytest.mark.parametrize("changes", FREE, ids=str)
def test_what_cannot_change_a_verdict_is_free(changes: dict[str, Any]) -> None:
    assert identity(changed(CLASSIFY, **changes)).fingerprint == identity(CLASSIFY).fingerprint


@pytest.mark.parametrize(("base", "changes", "field"), PAID, ids=str)
def test_what_can_change_a_verdict_is_a_field_of_the_fingerprint(
    base: dict[str, Any], changes: dict[str, Any], field: str
) -> None:
    before, after = identity(base), identity(changed(base, **changes))
    assert before.fingerprint != after.fingerprint
    assert before.inputs.get(field) != after.inputs.get(field)


def test_all_fingerprints_differ() -> None:
    found = [identity(changed(base, **changes)).fingerprint for base, changes, _ in PAID]
    assert len({*found, identity(CLASSIFY).fingerprint}) == len(found) + 1


def test_other_rows_are_other_work_and_unused_columns_are_not() -> None:
    base = identity(CLASSIFY)
    other = {"rows": 3, "dataset": "0" * 64, "submitted": "e" * 64, "grading": "0" * 64, "characters": 9}
    assert identity(CLASSIFY, Digests(**other)).fingerprint == base.fingerprint
    moved = identity(CLASSIFY, Digests(**{**other, "submitted": "0" * 64}))
    assert moved.fingerprint != base.fingerprint
    assert moved.inputs["dataset.rows"] == "0" * 64


def test_other_weights_under_the_same_name_are_another_model() -> None:
    value = changed(CLASSIFY, judge__model="embedded/file:m.gguf")
    one, two = (identity(value, weights={"embedded/file:m.gguf": digest * 64}) for digest in "12")
    assert one.fingerprint != two.fingerprint
    assert one.inputs["judge.weights"] == "1" * 64


def test_the_same_endpoint_by_another_way_is_the_same_model() -> None:
    here = changed(CLASSIFY, judge__model="house", judge__external_base_url="http://127.0.0.1:8000/v1/")
    assert identity(here).fingerprint == identity(changed(CLASSIFY, judge__model="house")).fingerprint


def test_the_way_a_spec_is_written_says_nothing() -> None:
    text = """\
# the same, in another order, with comments and other quotes
labels: ["polite", 'rude']
judge: {system_template: "Polite? {{ response }}", model: ollama/llama3.2}
dataset: rows.jsonl  # a path
type: classify
name: tone
version: 1
"""
    assert identity(text).fingerprint == identity(CLASSIFY).fingerprint
    score = identity(SCORE)
    assert identity(changed(SCORE, min_score=1.0, max_score=5.0)).fingerprint == score.fingerprint


@given(st.permutations(list(CLASSIFY)), st.permutations(list(CLASSIFY["judge"])))
def test_the_order_of_keys_says_nothing(keys: list[str], inner: list[str]) -> None:
    value = {key: CLASSIFY[key] for key in keys}
    value["judge"] = {key: CLASSIFY["judge"][key] for key in inner}
    assert identity(value) == identity(CLASSIFY)


def test_the_fingerprint_of_today_is_that_of_yesterday() -> None:
    # Everybody's lockfiles say so: who changes this runs, and pays for, every evaluation of every user again.
    assert identity(CLASSIFY).fingerprint == ("d9feb7165d758e9d5d21bbbfe7810be8a70d656943b47c11b6046df22ae60949")


GRADE: list[dict[str, Any]] = [{"pass_labels": ["polite"]}, {"pass_labels": ["rude"]}, {"gold": "label"}]


def test_the_grade_is_what_reads_verdicts() -> None:
    found = [identity(changed(CLASSIFY, **changes)).grade for changes in ({}, *GRADE)]
    assert len(set(found)) == len(found)
    assert identity(changed(SCORE, pass_threshold=3)).grade != identity(SCORE).grade
    both = [changed(CLASSIFY, pass_labels=order) for order in (["polite", "rude"], ["rude", "polite"])]
    assert identity(both[0]).grade == identity(both[1]).grade
    gold = changed(CLASSIFY, gold="label")
    digests = Digests(rows=3, dataset="d" * 64, submitted="e" * 64, grading="0" * 64, characters=100)
    assert identity(gold, digests).grade != identity(gold).grade
    assert identity(gold, digests).fingerprint == identity(gold).fingerprint


@pytest.mark.parametrize(
    "changes", [{"thresholds": {"invalid_rate": {"max": 0.1}}}, {"judge__model": "ollama/x"}, {"tags": ["a"]}]
)
def test_the_grade_is_nothing_else(changes: dict[str, Any]) -> None:
    assert identity(changed(CLASSIFY, **changes)).grade == identity(CLASSIFY).grade


# --- what stands in the lockfile ---


def test_inputs_are_flat_sorted_and_short() -> None:
    long = "x" * (LONGEST + 1)
    found = identity(changed(CLASSIFY, judge__system_template=long, labels=["a", "b, c"]))
    assert found.inputs == {
        "dataset.rows": "e" * 64,
        "judge.base_url": "http://127.0.0.1:11434/v1",
        "judge.model": "llama3.2",
        "judge.system_template": f"sha256:{sha256(long.encode())}",
        "labels": 'a, "b, c"',
        "protocol": 1,
        "provider": "local",
        "type": "classify",
    }
    assert list(found.inputs) == sorted(found.inputs)
    assert (
        identity(changed(CLASSIFY, judge__system_template="x" * LONGEST)).inputs["judge.system_template"]
        == "x" * LONGEST
    )
    assert str(identity(changed(CLASSIFY, judge__system_template="a\nb")).inputs["judge.system_template"]).startswith(
        "sha256:"
    )


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@given(JSON)
def test_the_canonical_form_can_be_read_back(value: Any) -> None:
    assert json.loads(canonical(value).decode("utf-8", "surrogatepass")) == value


@given(st.dictionaries(st.text(), JSON, min_size=2), st.randoms(use_true_random=False))
def test_the_canonical_form_knows_no_order_of_keys(value: dict[str, Any], random: Any) -> None:
    keys = list(value)
    random.shuffle(keys)
    assert canonical({key: value[key] for key in keys}) == canonical(value)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), {"a": [float("-inf")]}])
def test_what_is_no_json_has_no_canonical_form(value: Any) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        canonical(value)
