"""Settings are refused in the words of the house: what was expected, and what came."""

import os

import pytest

from indrnn.service.oip.grpc import channel_options
from indrnn.service.settings import Settings, SettingsError, read_settings


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name in [name for name in os.environ if name.startswith("INDRNN_") or name in ("HOST", "PORT")]:
        monkeypatch.delenv(name)
    return monkeypatch


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("PORT", "x", "PORT: expected a whole number from 0 to 65535, got 'x'"),
        ("PORT", "70000", "PORT: expected a whole number from 0 to 65535, got '70000'"),
        ("INDRNN_PORT", "x", "PORT: expected a whole number from 0 to 65535, got 'x'"),
        ("INDRNN_GRPC_PORT", "1.5", "INDRNN_GRPC_PORT: expected a whole number from 0 to 65535, got '1.5'"),
        ("INDRNN_FRONTS", "some", "INDRNN_FRONTS: expected a whole number from 0 to 256 or 'auto', got 'some'"),
        ("INDRNN_FRONTS", "-1", "INDRNN_FRONTS: expected a whole number from 0 to 256 or 'auto', got '-1'"),
        ("INDRNN_POLL", "soon", "INDRNN_POLL: expected a number from 0, got 'soon'"),
        ("INDRNN_DRAIN_TIMEOUT", "0", "INDRNN_DRAIN_TIMEOUT: expected a number above 0 to 3600, got '0'"),
        ("INDRNN_MODEL_CONTROL", "maybe", "INDRNN_MODEL_CONTROL: expected true or false, got 'maybe'"),
        ("INDRNN_COMMIT_THREAD", "maybe", "INDRNN_COMMIT_THREAD: expected true or false or 'auto', got 'maybe'"),
        ("INDRNN_LOG_FORMAT", "xml", "INDRNN_LOG_FORMAT: expected 'text' or 'json', got 'xml'"),
        ("INDRNN_GRPC_PORT", "8000", "INDRNN_GRPC_PORT: expected another port than PORT, got 8000 for both"),
    ],
)
def test_a_wrong_value_is_refused_with_what_was_expected(environment: pytest.MonkeyPatch, name: str, value: str, said: str) -> None:
    environment.setenv(name, value)
    with pytest.raises(SettingsError) as refused:
        read_settings()
    assert str(refused.value) == said


@pytest.mark.parametrize(("value", "read"), [("auto", "auto"), ("0", 0), ("256", 256)])
def test_fronts_are_a_number_or_auto(environment: pytest.MonkeyPatch, value: str, read: object) -> None:
    environment.setenv("INDRNN_FRONTS", value)
    assert read_settings().fronts == read


@pytest.mark.parametrize(("value", "read"), [("auto", "auto"), ("true", True), ("0", False)])
def test_the_commit_thread_is_on_off_or_auto(environment: pytest.MonkeyPatch, value: str, read: object) -> None:
    environment.setenv("INDRNN_COMMIT_THREAD", value)
    assert read_settings().commit_thread == read


def test_no_setting_is_described_in_words_of_a_library(environment: pytest.MonkeyPatch) -> None:
    """Whatever its kind, a setting that cannot be read says what was expected of it."""
    for name, field in Settings.model_fields.items():
        if field.annotation in (str,) or name in ("bundles", "keys", "page"):  # any text is one
            continue
        environment.setenv(f"INDRNN_{name.upper()}", "?")
        with pytest.raises(SettingsError, match=r": expected [^;]*, got "):
            read_settings()
        environment.delenv(f"INDRNN_{name.upper()}")


@pytest.mark.parametrize("entry", ["example.org", "https://", "https://example.org/page", "https://a b", "://x"])
def test_an_entry_that_is_no_origin_is_refused(environment: pytest.MonkeyPatch, entry: str) -> None:
    environment.setenv("INDRNN_ORIGINS", f"https://example.org, {entry}")
    with pytest.raises(SettingsError) as refused:
        read_settings()
    assert str(refused.value) == f"INDRNN_ORIGINS: expected origins like https://example.org by commas, or *, got {entry!r}"


@pytest.mark.parametrize(("path", "read"), [("", ""), ("/", ""), ("/api", "/api"), ("/a/b.c/", "/a/b.c")])
def test_a_path_below_which_a_proxy_shows_the_service(environment: pytest.MonkeyPatch, path: str, read: str) -> None:
    environment.setenv("INDRNN_ROOT_PATH", path)
    assert read_settings().root_path == read


@pytest.mark.parametrize("path", ["api", "//api", "/a b", "https://example.org/api"])
def test_what_is_no_path_is_refused(environment: pytest.MonkeyPatch, path: str) -> None:
    environment.setenv("INDRNN_ROOT_PATH", path)
    with pytest.raises(SettingsError) as refused:
        read_settings()
    assert str(refused.value) == f"INDRNN_ROOT_PATH: expected a path like /api, got {path!r}"


def test_grpcs_signs_of_life_are_settings(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("INDRNN_GRPC_KEEPALIVE", "30")
    environment.setenv("INDRNN_GRPC_KEEPALIVE_TIMEOUT", "2.5")
    environment.setenv("INDRNN_GRPC_PING_INTERVAL", "1")
    options = dict(channel_options(read_settings()))
    assert options["grpc.keepalive_time_ms"] == 30_000
    assert options["grpc.keepalive_timeout_ms"] == 2_500
    assert options["grpc.http2.min_ping_interval_without_data_ms"] == 1_000
    assert options["grpc.keepalive_permit_without_calls"] == 1
    assert options["grpc.http2.max_pings_without_data"] == 0


@pytest.mark.parametrize("origins", ["", "*", "null", "https://example.org", "http://localhost:3000/ , app://x,", "http://[::1]:80"])
def test_origins_are_taken(environment: pytest.MonkeyPatch, origins: str) -> None:
    environment.setenv("INDRNN_ORIGINS", origins)
    assert read_settings().origins == origins
