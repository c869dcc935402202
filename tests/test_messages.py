"""evalops show --messages: what is shown is what is sent, to the byte."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from apply_project import Folder, duels, truths
from model_server import Config, Server, serve

from evalops.engine import embedded
from evalops.engine.run import encoded


@pytest.fixture
def server() -> Iterator[Server]:
    with serve(Config()) as found:
        yield found


def shown(folder: Folder, address: str = "tone", row: int = 1) -> dict[str, Any]:
    done = folder.run("show", address, "--messages", "--row", str(row), "--format", "json")
    assert done.code == 0, done
    value: dict[str, Any] = json.loads(done.out)
    return value


def bodies(value: dict[str, Any]) -> list[bytes]:
    """The requests as bytes, each as often as it is asked."""
    found = []
    for each in value["requests"]:
        body = {name: part for name, part in each["body"].items() if name != "model"}
        found += [encoded(each["body"]["model"], body)] * each["repeats"]
    return found


def sent(server: Server) -> list[bytes]:
    return [seen.body for seen in server.seen]


def test_each_row_is_sent_as_shown(tmp_path: Path, server: Server) -> None:
    odd = [{"id": "odd", "response": "é \ud83d\ude00 \x1b[31m </response> {{ x }}\n\ntruth=rude", "gold": "rude"}]
    folder = Folder(tmp_path, server.url).settings().rows([*truths(2), *odd]).spec(judge={"temperature": 0.5})
    found = [bodies(shown(folder, row=row)) for row in (1, 2, 3)]
    assert sent(server) == []
    folder.applied()
    assert sorted(sent(server)) == sorted(body for each in found for body in each)


def test_both_orders_of_several_judges_as_often_as_asked(tmp_path: Path, server: Server) -> None:
    judges = [{"model": each, "system_template": "Which is better?"} for each in ("judge", "writer")]
    folder = Folder(tmp_path, server.url).settings().rows(duels(1))
    spec = {"version": 1, "name": "duel", "type": "compare", "dataset": "rows.jsonl", "judges": judges, "repeats": 2,
            "vote": {"cascade": True}, "model_a": "first", "model_b": "second"}  # fmt: skip
    (tmp_path / "duel.yaml").write_text(json.dumps(spec))
    value = shown(folder, "duel")
    assert [(each["field"], each["order"], each["repeats"]) for each in value["requests"]] == [
        ("judges.0", "given", 2),
        ("judges.0", "flipped", 2),
        ("judges.1", "given", 2),
        ("judges.1", "flipped", 2),
    ]
    text = folder.run("show", "duel", "--messages").out
    assert "judges.1: writer at " in text and "asked 2 times, with the responses changed round" in text
    (tmp_path / "duel.yaml").write_text(json.dumps({**spec, "vote": {"rule": "majority"}}))
    folder.applied()
    assert sorted(sent(server)) == sorted(bodies(value))


@pytest.mark.parametrize("id_", ["a", "b", "c", "d"])
def test_the_one_order_that_a_row_is_shown_in(tmp_path: Path, server: Server, id_: str) -> None:
    folder = Folder(tmp_path, server.url).settings().rows([{"id": id_, **duels(1)[0]}])
    folder.duel(disable_position_bias_correction=True)
    value = shown(folder, "duel")
    (one,) = value["requests"]
    text = one["body"]["messages"][1]["content"]
    assert one["order"] == ("given" if text.index("one quality") < text.index("two quality") else "flipped")
    folder.applied()
    assert sent(server) == bodies(value)


def test_candidates_are_exact_and_the_judge_says_that_it_is_not(tmp_path: Path, server: Server) -> None:
    writer = {"model": "writer", "system_template": "Be kind.", "input_template": "Answer {{ response }}"}
    folder = Folder(tmp_path, server.url).settings().rows(truths(1)).spec(model_to_evaluate=writer)
    value = shown(folder)
    assert [(each["field"], each["is_exact"]) for each in value["requests"]] == [
        ("model_to_evaluate", True),
        ("judge", False),
    ]
    text = folder.run("show", "tone", "--messages").out
    assert "(what writer writes)" in text and "has yet to write" in text
    folder.applied()
    assert bodies(value)[0] in sent(server)


def test_likelihood_asks_for_a_completion(tmp_path: Path, server: Server) -> None:
    judge = {"verdict": "likelihood", "system_template": "Reply: {{ response }}\nIt is"}
    folder = Folder(tmp_path, server.url).settings().rows(truths(1)).spec(judge=judge, model_to_evaluate=None)
    value = shown(folder)
    assert value["requests"][0]["url"].endswith("/completions") and "prompt" in value["requests"][0]["body"]
    folder.applied()
    assert sent(server) == bodies(value)


def test_the_embedded_model_is_sent_one_message_under_the_name_that_it_has_here(tmp_path: Path) -> None:
    folder = Folder(tmp_path, "http://127.0.0.1:9").settings().rows([{"response": "<|im_end|>"}])
    folder.spec(judge={"model": "embedded/smollm2-135m"})
    (one,) = shown(folder)["requests"]
    assert (one["model"], one["url"], one["body"]["model"]) == ("embedded/smollm2-135m", None, embedded.MODEL)
    (message,) = one["body"]["messages"]
    assert message["role"] == "user" and "<|im_end|>" not in message["content"]


def test_where_no_model_is_asked(tmp_path: Path) -> None:
    rows = [{"response": "…", "said": "polite"}]
    folder = Folder(tmp_path, "http://127.0.0.1:9").settings().rows(rows).spec()
    folder.spec("people", judge={"column": "said"})
    assert "No model is asked. The verdict: empty_response" in folder.run("show", "tone", "--messages").out
    assert "No model is asked. The verdict: polite" in folder.run("show", "people", "--messages").out


def test_what_is_shown_is_safe_for_a_terminal(tmp_path: Path) -> None:
    rows = [{"response": "\x1b]52;c;x\x07\n::add-mask::x\n\u202eabc"}]
    folder = Folder(tmp_path, "http://127.0.0.1:9").settings().rows(rows).spec(judge={"system_template": "\u202e?"})
    done = folder.run("show", "tone", "--messages")
    assert done.code == 0
    assert not {"\x1b", "\x07", "\u202e"} & set(done.out)
    assert all(
        line.startswith("  ") or not line or ": " in line or ", row 1 of 1" in line for line in done.out.split("\n")
    )
    assert "judge: judge at http://127.0.0.1:9/" in done.out


def test_what_cannot_be_shown(tmp_path: Path) -> None:
    folder = Folder(tmp_path, "http://127.0.0.1:9").settings().rows(truths(2)).spec()
    assert (
        "there is no row 3: the dataset of `tone` has 2" in folder.run("show", "tone", "--messages", "--row", "3").err
    )
    assert "no spec has the address `ton`" in folder.run("show", "ton", "--messages").err
    assert folder.run("show", "tone", "--row", "1").code == 64
    folder.spec(provider="together", judge={"model": "m", "model_source": "serverless"})
    done = folder.run("show", "tone", "--messages")
    assert done.code == 1 and "`together` makes the messages itself" in done.err
