"""A stranger's graph reads no file outside its own folder."""

import json
import os
import shutil
from pathlib import Path

import onnx
import pytest

from indrnn.export.bundle import digest, read
from indrnn.service.engine.runtime import Engine, EngineError

SOURCE = Path("bundles/action/1")


@pytest.mark.parametrize("where", ["../../secret.bin", "absolute", "link.bin"])
def test_external_data_outside_the_folder_is_refused(tmp_path: Path, where: str) -> None:
    folder = tmp_path / "action" / "1"
    shutil.copytree(SOURCE, folder)
    model = onnx.load(SOURCE / "model.onnx")
    tensor = max(model.graph.initializer, key=lambda t: len(t.raw_data))
    size = len(tensor.raw_data)
    (tmp_path / "secret.bin").write_bytes(bytes(size))
    os.symlink(tmp_path / "secret.bin", folder / "link.bin")
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    location = str(tmp_path / "secret.bin") if where == "absolute" else where
    for key, value in (("location", location), ("offset", "0"), ("length", str(size))):
        entry = tensor.external_data.add()
        entry.key, entry.value = key, value
    (folder / "model.onnx").write_bytes(model.SerializeToString())
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["sha256"] = digest(folder / "model.onnx")
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(EngineError, match=r"cannot load model.onnx: .*[Ee]xternal data"):
        Engine(read(folder), "cpu", 1, 2)
