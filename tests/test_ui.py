"""`evalops ui` over real HTTP: who is let in, what is answered to strangers, and what the overview says."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from apply_project import Folder
from repository import Repository
from ui_process import Ui, opened

from evalops.errors import Exit

EVIL = '"><img src=x onerror=alert(1)><script>alert(2)</script>'
BIDI = "\u202egnp.exe"
FILE = "<img src=x onerror=alert(3)>.jsonl"


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Repository:
    """Three results in git, one change waiting, and names that mean no good."""
    made = Repository.make(tmp_path_factory.mktemp("ui") / "project")
    gates = {"pass_percentage": {"min": 88}}
    for column in ("poor", "fair", "good"):
        made.spec("tone", column, thresholds=gates, tags=["support"], description=EVIL)
        assert made.folder.apply().code in (Exit.OK, Exit.GATE_FAILED)
        made.commit(column)
    made.spec("strict", "poor", thresholds=gates)
    made.folder.apply()
    made.folder.rows([{"id": "r1", EVIL: "rude", "response": "well"}], FILE)
    made.folder.spec("evil", judge={"column": EVIL}, dataset=FILE, description=BIDI)
    return made


@pytest.fixture(scope="module")
def ui(project: Repository, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ui]:
    """The pages of it, which have survived in the end and written nothing."""
    cache = {"XDG_CACHE_HOME": str(tmp_path_factory.mktemp("cache"))}
    before = files(project.root)
    with opened(project.root, environment=cache) as running:
        yield running
        assert files(project.root) == before
        assert "a bug of evalops" not in running.said()
        assert running.stop() == 0


@pytest.fixture(scope="module")
def page(ui: Ui) -> Iterator[httpx.Client]:
    """A browser that was let in."""
    with ui.client() as client:
        yield client


def files(root: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in root.rglob("*") if path.is_file() and ".git/" not in str(path)}


def stranger(ui: Ui) -> httpx.Client:
    return httpx.Client(base_url=ui.url, trust_env=False, verify=False)  # plain HTTP; certificates take a while to load


# --- who is let in ---


def test_the_address_lets_one_browser_in_and_leaves_no_token_behind(ui: Ui) -> None:
    address = ui.next_address()
    with stranger(ui) as first, stranger(ui) as second:
        answer = first.get(address)
        assert answer.status_code == 303 and answer.headers["location"] == "/"
        cookie = answer.headers["set-cookie"]
        assert "HttpOnly" in cookie and "SameSite=strict" in cookie and f"evalops-ui-{ui.port}=" in cookie
        assert address.partition("=")[2] not in cookie
        assert first.get("/").status_code == 200
        assert first.get(address).status_code == 303  # who is in may come by the old address
        used = second.get(address)
        assert used.status_code == 403 and "was used before" in used.text and "set-cookie" not in used.headers
    assert ui.next_address() != address


def test_a_link_from_another_site_still_arrives(ui: Ui) -> None:
    """Where a redirect would go without the cookie, the page itself goes on."""
    with stranger(ui) as client:
        answer = client.get(ui.next_address(), headers={"sec-fetch-site": "cross-site"})
        assert answer.status_code == 200 and answer.headers["refresh"] == "0; url=/"
        assert client.get("/").status_code == 200


@pytest.mark.parametrize("token", ["", "x", "\u00e9", "x" * 5000])
def test_a_wrong_token_lets_nobody_in(ui: Ui, token: str) -> None:
    with stranger(ui) as client:
        answer = client.get("/enter", params={"token": token})
        assert answer.status_code == 403 and "set-cookie" not in answer.headers


@pytest.mark.slow
def test_a_restart_knows_no_earlier_browser(project: Repository) -> None:
    with opened(project.root) as first, first.client() as client:
        cookies, port, address = dict(client.cookies), first.port, first.next_address()
        first.kill()
        with opened(project.root, port=port) as second, stranger(second) as again:
            assert second.address != address
            again.cookies.update(cookies)
            assert again.get("/").status_code == 403
            assert again.get(address).status_code == 403


@pytest.mark.parametrize("path", ["/", "/nothing", "/evaluation?address=tone", "/static/overview.js", "/evalops.yaml",
                                  "/../evalops.yaml", "/static/../../api.py", "//", "/enter"])  # fmt: skip
@pytest.mark.parametrize("method", ["GET", "POST", "DELETE", "OPTIONS"])
def test_without_the_cookie_a_path_says_nothing(ui: Ui, method: str, path: str) -> None:
    with stranger(ui) as client:
        answer = client.request(method, path, headers={"origin": ui.url})
        assert answer.status_code == 403
        assert "tone" not in answer.text and "project" not in answer.text.replace("project folder", "")


def test_only_with_the_cookie_an_unknown_path_is_not_found(page: httpx.Client) -> None:
    for path in ("/nothing", "/static/", "/static/nothing.js", "/static/..%2f..%2fapi.py", "/static/../api.py"):
        assert page.get(path).status_code == 404


def test_what_a_refusal_needs_to_be_readable_is_there_for_all(ui: Ui) -> None:
    with stranger(ui) as client:
        assert client.get("/static/style.css").headers["content-type"].startswith("text/css")
        assert client.get("/static/icon.svg").status_code == 200
        assert client.post("/static/style.css").status_code == 403


# --- other names, other sites ---


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1", "127.0.0.1:1", "localhost.evil.example:{port}", "[::2]:{port}",
                                  "127.0.0.1.nip.io:{port}", "0.0.0.0:{port}", "evil.example:{port}"])  # fmt: skip
def test_another_name_for_this_machine_is_refused(ui: Ui, page: httpx.Client, host: str) -> None:
    """Even with the cookie, and even the entry: a page of a stranger may have its name lead here."""
    named = {"host": host.format(port=ui.port)}
    assert page.get("/", headers=named).status_code == 403
    assert page.get(ui.next_address(), headers=named).status_code == 403
    assert page.get("/static/style.css", headers=named).status_code == 403


@pytest.mark.parametrize("name", ["127.0.0.1", "localhost", "LOCALHOST", "[::1]"])
def test_our_own_names_are_answered(ui: Ui, page: httpx.Client, name: str) -> None:
    assert page.get("/static/overview.js", headers={"host": f"{name}:{ui.port}"}).status_code == 200


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
def test_a_request_for_another_site_is_refused(page: httpx.Client, site: str) -> None:
    """All ports of a machine are one site, so that the cookie comes along from a local stranger."""
    answer = page.get("/", headers={"sec-fetch-site": site})
    assert answer.status_code == 403 and "tone" not in answer.text


@pytest.mark.parametrize("origin", ["", "null", "https://evil.example", "http://127.0.0.1", "http://127.0.0.1:1",
                                    "http://localhost:{port}", "https://127.0.0.1:{port}"])  # fmt: skip
@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "OPTIONS", "PROPFIND"])
def test_what_could_change_something_needs_our_own_origin(ui: Ui, page: httpx.Client, method: str, origin: str) -> None:
    answer = page.request(method, "/", headers={"origin": origin.format(port=ui.port)})
    assert answer.status_code == 403 and "may change anything" in answer.text


def test_a_get_changes_nothing_and_the_overview_takes_nothing_else(page: httpx.Client) -> None:
    assert page.post("/").status_code == 405
    assert page.head("/").status_code == 200


# --- every answer ---


@pytest.mark.parametrize("path", ["/", "/nothing", "/static/style.css", "/enter?token=x"])
def test_every_answer_has_the_headers(page: httpx.Client, path: str) -> None:
    headers = page.get(path).headers
    policy = headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self'") and "unsafe" not in policy
    assert "frame-ancestors 'none'" in policy and "base-uri 'none'" in policy and "form-action 'self'" in policy
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "same-origin"
    assert headers["cache-control"] == "no-store"
    assert headers["cross-origin-resource-policy"] == "same-origin"
    assert "access-control-allow-origin" not in headers and "server" not in headers


def test_a_script_gets_its_problem_as_json(page: httpx.Client) -> None:
    found: Any = page.get("/nothing", headers={"accept": "application/json"}).json()
    assert found["error"]["code"] == "not_found"


# --- the overview ---


def test_the_overview_has_every_evaluation(page: httpx.Client) -> None:
    text = page.get("/").text
    assert "3 evaluations" in text and "1 to run" in text
    assert "90.0 [79.9, 95.3]" in text and "1 passed" in text and "1 of 1 failed" in text
    assert "column good" in text and "local, rows.jsonl" in text
    assert "up 30.0 points" in text and "since 20" in text and "60.0" in text and "85.0" in text


def test_names_are_text_and_cannot_turn_around_what_is_read(page: httpx.Client) -> None:
    text = page.get("/").text
    assert "<img" not in text and "alert(2)</script>" not in text
    assert "&lt;img src=x" in text
    assert BIDI not in text and "\\u202egnp.exe" in text


@pytest.mark.slow
@pytest.mark.parametrize(
    ("asked", "count"),
    [("q=TONE", 1), ("q=support", 1), ("q=rows.jsonl+good", 1), ("gates=failed", 1), ("state=create", 1), ("type=score", 0),
     ("type=classify&provider=local", 3), ("q=%22%3E%3Cimg", 1), ("nonsense=1", 3)],
)  # fmt: skip
def test_filters_leave_what_fits(page: httpx.Client, asked: str, count: int) -> None:
    text = page.get(f"/?{asked}").text
    assert text.count('<th scope="row">') == count
    assert "<img" not in text


@pytest.mark.slow
def test_a_broken_spec_is_told_as_validate_does(tmp_path: Path) -> None:
    made = Repository.make(tmp_path / "project").spec("tone").spec("other", labels=["polite", "polite"])
    said = made.folder.run("validate", "--format", "json").json
    with opened(made.root) as ui, ui.client() as page:
        text = page.get("/").text
        assert "There is no plan" in text and "not planned" in text and "tone" in text
        for each in said:
            assert each["code"] in text and f"{each['path']}:{each['line']}:{each['column']}" in text
        (made.root / "evalops.yaml").write_text("version: 9\n")
        answer = page.get("/")
        assert answer.status_code == 409 and "evalops.yaml:1:" in answer.text


@pytest.mark.slow
def test_an_empty_project_says_how_to_begin(tmp_path: Path) -> None:
    (tmp_path / "project").mkdir()
    with opened(Folder(tmp_path / "project", "http://127.0.0.1:9").settings().root) as ui, ui.client() as page:
        assert "evalops init" in page.get("/").text
