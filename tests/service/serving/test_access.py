"""Who may come in: keys at rest and in requests, and pages that open streams."""

import argparse
import hashlib
from pathlib import Path

import pytest

from indrnn.service.command import run
from indrnn.service.errors import Unauthorized
from indrnn.service.serving.request import ANONYMOUS, Access, KeysError, new_key, read_keys


def hashed(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


KEYS = Access([("ann", hashed("a-secret")), ("ann", hashed("her new one")), ("bob", hashed("b-secret"))])


@pytest.mark.parametrize(
    ("headers", "owner"),
    [
        ({"authorization": "Bearer a-secret"}, "ann"),
        ({"authorization": "bearer  b-secret"}, "bob"),
        ({"x-api-key": "her new one"}, "ann"),
        ({"authorization": "Basic xyz", "x-api-key": "b-secret"}, "bob"),
    ],
)
def test_a_key_names_its_owner(headers: dict[str, str], owner: str) -> None:
    assert KEYS.owner_of(headers) == owner


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"authorization": "Bearer"},
        {"authorization": "a-secret"},
        {"x-api-key": ""},
        {"x-api-key": hashed("a-secret")},
        {"x-api-key": "é"},
    ],
)
def test_no_key_and_no_known_key_are_refused(headers: dict[str, str]) -> None:
    with pytest.raises(Unauthorized):
        KEYS.owner_of(headers)


def test_a_bad_bearer_is_not_mended_by_another_header() -> None:
    with pytest.raises(Unauthorized):
        KEYS.owner_of({"authorization": "Bearer wrong", "x-api-key": "a-secret"})


def test_a_refusal_never_repeats_the_key() -> None:
    with pytest.raises(Unauthorized) as caught:
        KEYS.owner_of({"x-api-key": "hunter2"})
    assert "hunter2" not in str(caught.value.body())


@pytest.mark.parametrize("key", [7, ["a-secret"], {"a": 1}, True, "\ud800"])
def test_a_key_that_is_no_text_is_refused(key: object) -> None:
    with pytest.raises(Unauthorized):
        KEYS.owner_of_key(key)


def test_without_keys_everybody_is_one_and_with_an_empty_file_nobody_may_come() -> None:
    assert Access(None).owner_of({"x-api-key": "whatever"}) == ANONYMOUS
    with pytest.raises(Unauthorized):
        Access([]).owner_of({"x-api-key": ""})


def test_metrics_are_open_or_need_a_key() -> None:
    keys = [("ann", hashed("a-secret"))]
    assert Access(keys).owner_of_scrape({}) == ANONYMOUS
    assert Access(keys, metrics_open=False).owner_of_scrape({"x-api-key": "a-secret"}) == "ann"
    with pytest.raises(Unauthorized):
        Access(keys, metrics_open=False).owner_of_scrape({})


@pytest.mark.parametrize(
    ("origin", "host", "allowed"),
    [
        (None, "a:8000", True),
        ("http://a:8000", "a:8000", True),
        ("https://A.example", "a.example", True),
        ("http://a", "a:80", True),
        ("http://a:8001", "a:8000", False),
        ("http://b:8000", "a:8000", False),
        ("null", "a:8000", False),
        ("", "", False),
        ("http://a:99999", "a:99999", False),
        ("https://front.example", "a:8000", True),
        ("https://front.example.evil", "a:8000", False),
    ],
)
def test_only_this_host_and_the_allowed_pages_open_streams(origin: str | None, host: str, allowed: bool) -> None:
    access = Access(None, ["https://front.example/", ""])
    headers = {"host": host} if origin is None else {"host": host, "origin": origin}
    assert access.allows_origin(headers) == allowed


def test_any_page_may_where_the_setting_says_so() -> None:
    assert Access(None, ["*"]).allows_origin({"origin": "null", "host": "a"})


def test_a_new_keys_line_knows_the_secret_and_does_not_hold_it(tmp_path: Path) -> None:
    secret, line = new_key("ann")
    file = tmp_path / "keys"
    file.write_text(f"# who may\n\n{line}\n")
    assert secret not in line
    assert Access(read_keys(file)).owner_of({"x-api-key": secret}) == "ann"


@pytest.mark.parametrize("end", ["\n", ""])
def test_a_key_is_added_on_a_line_of_its_own(tmp_path: Path, capsys: pytest.CaptureFixture[str], end: str) -> None:
    """Also to a file that an editor has left without an end of its last line."""
    secret, line = new_key("ann")
    file = tmp_path / "keys"
    file.write_text(line + end)
    assert run("key", argparse.Namespace(name="bob"), []) == 1, "no file is named"
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("INDRNN_KEYS", str(file))
        assert run("key", argparse.Namespace(name="bob"), []) == 0
    added = capsys.readouterr().out.strip()
    assert [name for name, _ in read_keys(file)] == ["ann", "bob"]
    access = Access(read_keys(file))
    assert [access.owner_of_key(key) for key in (secret, added)] == ["ann", "bob"]


@pytest.mark.parametrize("line", ["ann", "ann:abc", f"an n:{'0' * 64}", f":{'0' * 64}", f"ann:{'0' * 65}"])
def test_a_line_that_is_no_key_is_named(tmp_path: Path, line: str) -> None:
    file = tmp_path / "keys"
    file.write_text(f"# first\n{line}\n")
    with pytest.raises(KeysError, match=r"keys: line 2: expected name:sha256"):
        read_keys(file)


@pytest.mark.parametrize("name", ["", "a:b", "a\nb", "x" * 65, "../x"])
def test_a_name_that_would_break_the_file_is_refused(name: str) -> None:
    with pytest.raises(KeysError):
        new_key(name)
