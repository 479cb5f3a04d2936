"""The native library: which file it is, and how it is compiled. Needs a C++17 compiler (GCC or Clang) and nothing else.

A library is named by its sources, its compiler and its contents: a changed source is never run with a library of the old one, and a
file that was cut short or changed is not loaded.
"""

import hashlib
import logging
import os
import platform
import shlex
import shutil
import subprocess
import tempfile
from pathlib import Path

log = logging.getLogger(__name__)

HERE = Path(__file__).parent
FOLDER = HERE / ".build"
COMPILERS = ("c++", "g++", "clang++")
# Contraction off: a multiplication and an addition rounded as one would give other bits than the same two elsewhere.
FLAGS = ("-std=c++17", "-O3", "-fPIC", "-fvisibility=hidden", "-ffp-contract=off", "-pthread", "-Wall", "-Wextra", "-Wno-psabi")
SANITIZE = ("-O1", "-g", "-fno-omit-frame-pointer", "-fsanitize=address,undefined", "-fno-sanitize-recover=undefined")
# Name of an instruction set -> bytes of a vector, vectors of state in registers, flags.
ISAS: dict[str, tuple[int, int, tuple[str, ...]]] = {
    "plain": (16, 4, ()),
    "avx2": (32, 4, ("-mavx2",)),
    "avx512": (64, 8, ("-mavx512f", "-mavx512dq", "-mavx512bw", "-mavx512vl", "-mprefer-vector-width=512")),
}


class KernelMissing(Exception):
    """There is no library, or none can be built; the message says why."""


def find() -> Path:
    """Return the library of these sources, whichever compiler made it. Raises KernelMissing with the reason."""
    built = intact(f"indrnn-{_sources_digest()}")
    if not built:
        raise KernelMissing(f"no library of these sources in {FOLDER} (indrnn kernels builds it)")
    return built


def intact(name: str) -> Path | None:
    """The newest library whose name begins so and ends with the digest of what is in it; None when there is none.

    The system maps a library into memory, and a process that meets the missing end of one that was cut short is killed (SIGBUS).
    """
    found = []
    for path in FOLDER.glob(f"{name}-*.so"):
        try:
            if path.stem.endswith(f"-{_contents_digest(path)}"):
                found.append((path.stat().st_mtime, path))
        except OSError as error:  # gone meanwhile, or not to be read
            log.warning("%s: %s", path, error)
    return max(found)[1] if found else None


def seal(made: Path, name: str) -> Path:
    """Moves a finished library to its place; the name ends with the digest of what is in it."""
    path = FOLDER / f"{name}-{_contents_digest(made)}.so"
    os.replace(made, path)
    return path


def compiler() -> list[str]:
    """Return the command of the C++ compiler: CXX, or the first of c++, g++ and clang++. Raises KernelMissing when there is none."""
    chosen = shlex.split(os.environ.get("CXX", ""))
    for command in [chosen] if chosen else [[name] for name in COMPILERS]:
        if shutil.which(command[0]):
            return command
    raise KernelMissing(f"no C++ compiler: {'CXX=' + shlex.join(chosen) if chosen else ', '.join(COMPILERS)} not found")


def build(sanitize: bool = False) -> Path:
    """Compiles the library unless it is there already; the path appears only when it is complete.

    sanitize: a slower one that stops at a wrong memory access or undefined behaviour (AddressSanitizer and UBSan).
    Raises KernelMissing with the compiler's own words.
    """
    command = compiler()
    flags = FLAGS + (SANITIZE if sanitize else ())
    said = _run([*command, "--version"]) + shlex.join([*command, *flags])
    kind = "sanitize" if sanitize else "indrnn"
    name = f"{kind}-{_sources_digest()}-{hashlib.sha256(said.encode()).hexdigest()[:12]}"
    if there := intact(name):
        return there
    try:
        FOLDER.mkdir(exist_ok=True)
        with tempfile.TemporaryDirectory(dir=FOLDER) as folder:
            _compile(command, flags, Path(folder))
            return seal(Path(folder) / "indrnn.so", name)
    except OSError as error:
        raise KernelMissing(f"cannot write {FOLDER}: {error}") from error


def _compile(command: list[str], flags: tuple[str, ...], folder: Path) -> None:
    x86 = platform.machine().lower() in ("x86_64", "amd64")
    own = ("-DINDRNN_X86",) if x86 else ()
    jobs = {}
    for name, (size, registers, isa_flags) in ISAS.items() if x86 else [("plain", ISAS["plain"])]:
        macros = (f"-DINDRNN_ISA={name}", f"-DINDRNN_ISA_BYTES={size}", f"-DINDRNN_ISA_REGISTERS={registers}")
        jobs[name] = [*command, *flags, *isa_flags, *macros, "-c", str(HERE / "isa.cpp")]
    for name in ("cpu", "pool", "bodies", "ort_op"):
        jobs[name] = [*command, *flags, *own, "-c", str(HERE / f"{name}.cpp")]
    started = [
        subprocess.Popen([*job, "-o", str(folder / f"{name}.o")], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        for name, job in jobs.items()
    ]
    said = [(process.communicate()[0], process.returncode) for process in started]
    for text, code in said:
        if code:
            raise KernelMissing(f"{command[0]} failed:\n{text}")
    objects = [str(folder / f"{name}.o") for name in jobs]
    _run([*command, *flags, "-shared", "-Wl,-z,defs" if "-g" not in flags else "-g", *objects, "-o", str(folder / "indrnn.so")])


def _run(command: list[str]) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError as error:
        raise KernelMissing(f"cannot run {command[0]}: {error}") from error
    if done.returncode:
        raise KernelMissing(f"{shlex.join(command[:1])} failed:\n{done.stdout}{done.stderr}")
    return done.stdout


def _contents_digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]


def _sources_digest() -> str:
    digest = hashlib.sha256(f"{platform.system()} {platform.machine()} {FLAGS} {ISAS}".encode())
    for path in sorted([*HERE.glob("*.h"), *HERE.glob("*.cpp")]):
        digest.update(f"{path.name} {path.stat().st_size}\n".encode() + path.read_bytes())
    return digest.hexdigest()[:16]
