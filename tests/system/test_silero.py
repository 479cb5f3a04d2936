"""The six files of PyPI's silero-vad, which nobody of us made: adopted, and streamed as the package's own wrapper feeds them.

pip download --no-deps silero-vad && INDRNN_TEST_SILERO=silero_vad-….whl pytest tests/system/test_silero.py
"""

import importlib.util
import os
import warnings
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
import torch
import tritonclient.http as triton
from conftest import Server
from numpy.typing import NDArray

from indrnn.export.adopt.adoption import adopt
from indrnn.export.adopt.layout import Told
from indrnn.export.adopt.write import write

WHEEL = os.environ.get("INDRNN_TEST_SILERO", "")
pytestmark = pytest.mark.skipif(not WHEEL, reason="needs the wheel of silero-vad: set INDRNN_TEST_SILERO to its path")

RATE = {"sr": np.array(16_000)}
FILES = {
    "silero_vad": RATE,
    "silero_vad_16k_op15": RATE,
    "silero_vad_16k_sequence": {},
    "silero_vad_half": {},
    "silero_vad_op18_ifless": RATE,
    "silero_vad_openvino_16k": {},
}
WRAPPED = ("silero_vad", "silero_vad_16k_op15", "silero_vad_op18_ifless")  # those that the wrapper takes: it always gives a rate
SERVED = "silero_vad_16k_op15"


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("silero")
    with zipfile.ZipFile(WHEEL) as wheel:
        wheel.extractall(folder)
    return folder / "silero_vad"


def bundle(package: Path, name: str, root: Path, window: int = 512, context: int = 64, **constants: Any) -> None:
    told = Told(constants=constants or FILES[name], window=window, context=context)
    adoption = adopt(package / "data" / f"{name}.onnx", told, steps=50_000)
    assert adoption.faults == []
    write(adoption, root, name, "1", command="", hz=float(constants.get("sr", 16_000)))


@pytest.fixture(scope="module")
def server(package: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("served")
    bundle(package, SERVED, folder / "bundles")
    made = Server(folder, {"INDRNN_BUNDLES": str(folder / "bundles")}).start()
    yield made
    made.stop()


def pcm(n: int, seed: int = 0) -> NDArray[np.float32]:
    """Something like a voice, as 16-bit PCM has it: a fundamental with overtones that comes and goes, in noise."""
    rng = np.random.default_rng(seed)
    t = np.arange(n) / 16_000
    voice = sum(np.sin(2 * np.pi * k * (120 + 30 * np.sin(2 * t)) * t) / k for k in range(1, 12))
    signal = 0.3 * voice * (np.sin(2 * np.pi * 0.8 * t + seed) > 0) + 0.01 * rng.normal(size=n)
    return (np.round(np.clip(signal, -1, 1) * 32767) / 32768).astype(np.float32)


def wrapper(package: Path, name: str, samples: NDArray[np.float32], rate: int = 16_000) -> NDArray[np.float32]:
    """What the package's own wrapper answers, window by window."""
    spec = importlib.util.spec_from_file_location("silero_utils", package / "utils_vad.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        spec.loader.exec_module(module)
        vad = module.OnnxWrapper(str(package / "data" / f"{name}.onnx"), force_onnx_cpu=True)
    size = 512 if rate == 16_000 else 256
    windows = samples[: len(samples) // size * size].reshape(-1, size)
    return np.array([float(vad(torch.from_numpy(w), rate)) for w in windows], np.float32)


@pytest.mark.parametrize("name", FILES)
def test_each_of_the_six_files_is_adopted(package: Path, tmp_path: Path, name: str) -> None:
    bundle(package, name, tmp_path)
    m = (tmp_path / name / "1" / "manifest.json").read_text()
    assert ('"max_batch": 1' in m) is (name in ("silero_vad_16k_sequence", "silero_vad_openvino_16k"))


@pytest.mark.parametrize("name", WRAPPED)
def test_its_bundle_answers_what_the_wrapper_does(package: Path, tmp_path: Path, name: str) -> None:
    from indrnn.kernels.runtime import ort

    bundle(package, name, tmp_path)
    x = pcm(512 * 40)
    session = ort.InferenceSession(tmp_path / name / "1" / "model.onnx", providers=["CPUExecutionProvider"])
    feeds = {"x": x[None, :, None], "lengths": np.array([len(x)]), "state": np.zeros((1, 834), np.float32)}
    logits = session.run(["logits"], feeds)[0][0]
    want = wrapper(package, name, x)
    assert want.max() > 0.5 > want.min()  # it hears the voice and the pauses
    assert logits[511::512, 0] == pytest.approx(want, abs=1e-5)


def test_the_file_for_two_rates_is_adopted_for_the_other_too(package: Path, tmp_path: Path) -> None:
    bundle(package, "silero_vad", tmp_path, 256, 32, sr=np.array(8_000))


@pytest.mark.parametrize("size", [1, 300, 511, 512, 1_000])
def test_pcm_in_pieces_of_any_size_is_answered_as_by_the_wrapper(server: Server, package: Path, size: int) -> None:
    x = pcm(3_000 if size == 1 else 20_000, size)
    heard: list[list[float]] = []
    with server.socket(SERVED) as stream:
        stream.send(orjson.dumps({"type": "open"}).decode())
        stream.recv()
        for n, at in enumerate(range(0, len(x), size), 1):
            piece = x[at : at + size].astype(float).tolist()
            stream.send(orjson.dumps({"type": "step", "step": n, "values": piece}).decode())
            told = orjson.loads(stream.recv())
            assert (told["type"], told["position"]) == ("result", at + len(piece)), told
            assert len(told["outputs"]["output"]) == (at + len(piece)) // 512 - at // 512
            heard += told["outputs"]["output"]
    assert np.array(heard)[:, 0] == pytest.approx(wrapper(package, SERVED, x), abs=1e-5)


@pytest.mark.parametrize("size", [300, 512, 1_000])
def test_tritonclient_streams_a_sequence(server: Server, package: Path, size: int) -> None:
    x = pcm(10_000, 7)
    client = triton.InferenceServerClient(f"127.0.0.1:{server.port}")
    heard: list[float] = []
    for at in range(0, len(x), size):
        piece = x[None, at : at + size, None]
        given = triton.InferInput("x", list(piece.shape), "FP32")
        given.set_data_from_numpy(piece)
        ends = at + size >= len(x)
        told = client.infer(SERVED, [given], sequence_id=size, sequence_start=at == 0, sequence_end=ends)
        logits = told.as_numpy("logits")
        assert logits is not None
        heard += logits[0][logits[0, :, 1] > 0, 0].tolist()
    client.close()
    assert heard == pytest.approx(wrapper(package, SERVED, x), abs=1e-5)


def test_64_streams_at_once_are_batched_and_each_hears_its_own(server: Server, package: Path) -> None:
    def listen(seed: int) -> list[float]:
        x, heard = pcm(6_144, seed), []
        with server.socket(SERVED) as stream:
            stream.send(orjson.dumps({"type": "open"}).decode())
            stream.recv()
            for n, at in enumerate(range(0, len(x), 512), 1):
                stream.send(orjson.dumps({"type": "step", "step": n, "values": x[at : at + 512].astype(float).tolist()}).decode())
                heard += [row[0] for row in orjson.loads(stream.recv())["outputs"]["output"]]
        return heard

    def runs_and_rows() -> NDArray[np.float64]:
        found = dict(line.rsplit(" ", 1) for line in server.get("/metrics").text.splitlines() if SERVED in line)
        return np.array([float(v) for k, v in sorted(found.items()) if k.startswith(("indrnn_batch_size_count", "indrnn_batch_size_sum"))])

    before = runs_and_rows()
    with ThreadPoolExecutor(64) as pool:
        heard = list(pool.map(listen, range(64)))
    runs, rows = runs_and_rows() - before
    assert rows == 64 * 12
    assert rows / runs > 3, (rows, runs)
    for seed in range(0, 64, 9):
        assert heard[seed] == pytest.approx(wrapper(package, SERVED, pcm(6_144, seed)), abs=1e-5)
