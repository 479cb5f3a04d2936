"""/ and the files of the page: what is served, how it is kept, and that nothing else of the disk is."""

import gzip
import hashlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from conftest import ROOT, VERSION, Server
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

SCRIPT = "document.title = 'swapped';" + " " * 2000
FILES = {
    "index.html": "<!doctype html><title>page</title><script src=./assets/index-1.js></script>",
    "assets/index-1.js": SCRIPT,
    "assets/model.wasm": "\0asm",
    "icon.svg": "<svg/>",
    "motion.json": "[]",
    "viewer/index.html": "<!doctype html><title>viewer</title>",
    ".built": "digest",
    "assets/.hidden": "hidden",
}
PREFIX = "/indrnn"


def put(folder: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / f"{name}.new").write_text(text)
        os.replace(folder / f"{name}.new", folder / name)


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A service with keys below a proxy's path, and a made-up page."""
    folder = tmp_path_factory.mktemp("shown")
    (folder / "keys").write_text("ann:" + "0" * 64 + "\n")
    put(folder / "page", FILES)
    (folder / "page" / "assets" / "index-1.js.gz").write_bytes(gzip.compress(SCRIPT.encode()))
    (folder / "secret.txt").write_text("secret")
    (folder / "page" / "leads.out").symlink_to(folder / "secret.txt")
    (folder / "page" / "above").symlink_to(folder, target_is_directory=True)
    made = Server(folder, {"INDRNN_KEYS": str(folder / "keys"), "INDRNN_ROOT_PATH": PREFIX, "INDRNN_PAGE": str(folder / "page")}).start()
    yield made
    made.stop()
    assert "Traceback" not in made.log()


def raw(server: Server, path: str) -> int:
    """The status of a path as no client would write it."""
    with socket.create_connection(("127.0.0.1", server.port)) as s:
        s.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode("latin-1"))
        answer = s.makefile("rb").readline()
    return int(answer.split()[1])


@pytest.mark.parametrize("below", ["", PREFIX])
@pytest.mark.parametrize(
    ("path", "name", "kind", "cache"),
    [
        ("/", "index.html", "text/html; charset=utf-8", "no-cache"),
        ("/index.html", "index.html", "text/html; charset=utf-8", "no-cache"),
        ("/assets/index-1.js", "assets/index-1.js", "text/javascript; charset=utf-8", "public, max-age=31536000, immutable"),
        ("/assets/model.wasm", "assets/model.wasm", "application/wasm", "public, max-age=31536000, immutable"),
        ("/docs", "viewer/index.html", "text/html; charset=utf-8", "no-cache"),
        ("/icon.svg", "icon.svg", "image/svg+xml", "no-cache"),
        ("/motion.json", "motion.json", "application/json", "no-cache"),
    ],
)
def test_a_file_of_the_page_needs_no_key_and_says_what_it_is(
    shown: Server, below: str, path: str, name: str, kind: str, cache: str
) -> None:
    whole = shown.get(below + path)
    assert (whole.status_code, whole.text) == (200, FILES[name])
    assert (whole.headers["content-type"], whole.headers["cache-control"]) == (kind, cache)
    assert whole.headers["x-content-type-options"] == "nosniff"
    head = httpx.head(shown.url + below + path)
    assert (head.status_code, head.content, head.headers["etag"]) == (200, b"", whole.headers["etag"])
    again = httpx.get(shown.url + below + path, headers={"If-None-Match": whole.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")


def test_the_page_may_load_nothing_from_elsewhere_and_run_nothing_inline(shown: Server) -> None:
    for path in ("/", "/assets/index-1.js", "/docs"):
        policy = shown.get(path).headers["content-security-policy"]
        rules = {rule.split()[0]: rule.split()[1:] for rule in policy.split("; ")}
        assert rules["default-src"] == ["'none'"]
        assert "unsafe-inline" not in policy
        assert not re.search(r"[*]|https?:|'unsafe-eval'", policy)
        assert rules["connect-src"] == ["'self'"]
        assert rules["frame-ancestors"] == ["'none'"]
    assert "'wasm-unsafe-eval'" in shown.get("/").headers["content-security-policy"]


@pytest.mark.parametrize(
    ("accepted", "packed"),
    [("gzip", True), ("br, gzip;q=0.5", True), ("identity", False), ("gzip;q=0", False), ("gzip; q=0.0, br", False), ("x-gzipped", False)],
)
def test_a_compressed_copy_goes_to_whoever_takes_it(shown: Server, accepted: str, packed: bool) -> None:
    answer = httpx.get(f"{shown.url}/assets/index-1.js", headers={"Accept-Encoding": accepted})
    assert (answer.headers.get("content-encoding") == "gzip", answer.text) == (packed, SCRIPT)
    assert int(answer.headers["content-length"]) < 200 or not packed
    assert answer.headers["vary"] == "Accept-Encoding"
    both = {httpx.get(f"{shown.url}/assets/index-1.js", headers={"Accept-Encoding": e}).headers["etag"] for e in ("gzip", "identity")}
    assert len(both) == 2


@pytest.mark.parametrize(
    "path",
    [
        "/.built",
        "/assets/.hidden",
        "/assets/index-1.js.gz",
        "/assets",
        "/assets/",
        "/leads.out",
        "/above/secret.txt",
        "/../secret.txt",
        "/assets/../../secret.txt",
        "/..%2fsecret.txt",
        "/%2e%2e/secret.txt",
        "/assets/%2e%2e%2f%2e%2e%2fsecret.txt",
        "//etc/passwd",
        "/%2fetc%2fpasswd",
        "/index.html%00",
        "/assets\\index-1.js",
        "/./index.html",
    ],
)
def test_no_path_leads_to_another_file(shown: Server, path: str) -> None:
    assert raw(shown, path) == 404
    assert raw(shown, PREFIX + path) == 404


def test_the_api_keeps_its_keys_and_its_paths_beside_the_page(shown: Server) -> None:
    put(shown.folder / "page", {"models": "shadow", "health/live": "shadow"})
    put(shown.folder / "page", {"index.html": FILES["index.html"]})  # the listing is made anew
    assert shown.get("/models").status_code == 401
    assert shown.get("/health/live").json() == {"status": "live"}
    refused = httpx.post(shown.url + "/")
    assert (refused.status_code, refused.headers["allow"]) == (405, "GET, HEAD")
    assert shown.get("/nothing").json()["code"] == "not_found"


def test_a_page_of_the_same_origin_may_stream_and_another_may_not(shown: Server) -> None:
    at = f"ws://127.0.0.1:{shown.port}{PREFIX}/stream/chars"
    with connect(at, origin=f"http://127.0.0.1:{shown.port}", additional_headers={"Sec-Fetch-Site": "same-origin"}) as ws:  # type: ignore[arg-type]
        ws.send('{"type":"open"}')
        assert '"unauthorized"' in str(ws.recv(10))
    with pytest.raises(InvalidStatus):
        connect(at, origin="https://elsewhere.example")  # type: ignore[arg-type]


def test_a_build_is_swapped_in_while_the_service_runs(own_server: Callable[..., Server]) -> None:
    server = own_server()
    page = server.folder / "page"
    before = server.get("/")
    assert (before.status_code, before.headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert "make page" in before.text
    small = server.get("/docs")
    assert "<script>" in small.text
    for policy in (before.headers["content-security-policy"], small.headers["content-security-policy"]):
        assert "default-src 'none'" in policy
        assert "unsafe-inline" not in policy
    assert server.get("/index.html").status_code == 404
    put(page, {name: text for name, text in FILES.items() if name != "index.html"})
    assert "make page" in server.get("/").text, "a build without its index is not whole"
    assert server.get("/assets/index-1.js").status_code == 404
    put(page, {"index.html": FILES["index.html"]})
    assert server.get("/").text == FILES["index.html"]
    assert server.get("/assets/index-1.js").text == SCRIPT
    put(page, {"assets/index-2.js": "two", "index.html": "second"})
    (page / "assets" / "index-1.js").unlink()
    assert [server.get(p).text for p in ("/", "/assets/index-2.js")] == ["second", "two"]
    assert server.get("/assets/index-1.js").status_code == 404
    shutil.rmtree(page)
    assert "make page" in server.get("/").text


BUILT = ROOT / "service" / "http" / "static"


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A service with the page as it is."""
    if not (BUILT / "viewer").is_dir():
        pytest.skip("needs the built page: make page")
    made = Server(tmp_path_factory.mktemp("built"), {"INDRNN_PAGE": str(BUILT)}).start()
    yield made
    made.stop()


def test_the_viewer_of_the_api_shows_every_path_and_asks_no_other_host(built: Server, tmp_path: Path) -> None:
    server = built
    page = server.get("/docs")
    assert page.headers["cache-control"] == "no-cache"
    loaded = re.findall(r'(?:src|href)="([^"]+)"', page.text)
    assert len([name for name in loaded if name.startswith("viewer/")]) == 3
    for name in loaded:
        assert "//" not in name
        assert server.get(f"/{name}").status_code == 200
    if not shutil.which("chromium"):
        pytest.skip("needs chromium to look at it")
    command = ["chromium", "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'browser'}"]
    looked = [*command, "--virtual-time-budget=10000", "--enable-logging=stderr", "--dump-dom", server.url + "/docs"]
    done = subprocess.run(looked, capture_output=True, text=True, timeout=120)
    for path in server.get("/openapi.json").json()["paths"]:
        assert path in re.sub(r"<wbr>|\u200b", "", done.stdout), path
    assert "Content Security Policy" not in done.stderr


@pytest.mark.skipif(not shutil.which("chromium"), reason="needs chromium")
def test_the_api_can_be_tried_from_its_viewer_under_the_policy(built: Server) -> None:
    playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright: make install")
    server = built
    with playwright.sync_playwright() as playing:
        browser = playing.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        page, said, asked = browser.new_page(), [], set()
        page.on("console", lambda message: said.append(message.text))
        page.on("request", lambda request: asked.add(httpx.URL(request.url).netloc.decode()))
        page.goto(f"{server.url}/docs")
        page.click("#operations-models-models_models_get .opblock-summary-control")
        page.click("text=Try it out")
        page.click("button.execute")
        page.wait_for_selector(".live-responses-table tr.response td.response-col_status")
        assert page.inner_text(".live-responses-table tr.response td.response-col_status").startswith("200")
        assert (said, asked) == ([], {f"127.0.0.1:{server.port}"})
        browser.close()


def test_the_graph_of_a_model_is_given_to_whoever_may_ask_and_is_what_was_loaded(own_server: Callable[..., Server], tmp_path: Path) -> None:
    bundles = tmp_path / "bundles"
    shutil.copytree(ROOT / "bundles" / "action", bundles / "action")
    secret = subprocess.run(
        [sys.executable, "-m", "indrnn", "key", "ann"],
        env={**os.environ, "INDRNN_KEYS": str(tmp_path / "keys")},
        capture_output=True,
        text=True,
        check=True,
    )
    key = {"Authorization": f"Bearer {secret.stdout.split()[0]}"}
    settings = {"INDRNN_BUNDLES": str(bundles), "INDRNN_KEYS": str(tmp_path / "keys"), "INDRNN_POLL": "0"}
    server = own_server(INDRNN_MODEL_DOWNLOAD="false", **settings)
    assert httpx.get(f"{server.url}/models/action/graph", headers=key).json()["code"] == "not_found"
    del server.env["INDRNN_MODEL_DOWNLOAD"]
    server.restart(signal.SIGTERM)
    at = f"{server.url}/models/action/graph"
    assert httpx.get(at).status_code == 401
    whole = httpx.get(at, headers=key)
    assert hashlib.sha256(whole.content).hexdigest() == whole.headers["etag"].strip('"')
    (version,) = [v for v in (bundles / "action").iterdir() if v.name == VERSION]
    assert whole.content == (version / "model.onnx").read_bytes()
    assert httpx.get(at, headers={**key, "If-None-Match": whole.headers["etag"]}).status_code == 304
    assert httpx.get(at, params={"version": VERSION}, headers=key).headers["etag"] == whole.headers["etag"]
    for wrong in ("99", "..", "../../secret"):
        assert httpx.get(at, params={"version": wrong}, headers=key).json()["code"] == "unknown_model"
    with (version / "model.onnx").open("ab") as file:
        file.write(b"\0")
    assert httpx.get(at, headers=key).json()["code"] == "not_found"
