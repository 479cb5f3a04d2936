"""What the protocol tells of server and models: metadata, configuration, statistics, index. Plain dictionaries, as JSON has them."""

from importlib.metadata import PackageNotFoundError, version

import orjson

from indrnn.export.bundle import Manifest
from indrnn.service.engine.statistics import Duration, Runs
from indrnn.service.serving.models import Models, ServedModel
from indrnn.service.serving.signature import Signature, Spec
from indrnn.service.settings import Settings

EXTENSIONS = [
    "sequence", "sequence(string_id)", "model_repository", "model_configuration", "binary_tensor_data", "parameters", "statistics",
]  # fmt: skip
PLATFORM = "onnxruntime_onnx"

Fields = dict[str, object]


def server() -> Fields:
    """Return the server's metadata."""
    try:
        ours = version("indrnn")
    except PackageNotFoundError:  # run from a folder that was never installed
        ours = "0"
    return {"name": "indrnn", "version": ours, "extensions": EXTENSIONS}


def metadata(model: ServedModel, models: Models) -> Fields:
    """Return the model's metadata; B and T are -1.

    Inputs and outputs a request can do without have lists of their own: Triton's load tool fills every input that is listed with random
    numbers, optional or not, and asks for every output.
    """
    s = model.tensors
    (inputs, outputs), (optional_inputs, optional_outputs) = s.asked, s.optional
    return {
        "name": s.model,
        "versions": [m.manifest.version for m in models.loaded(s.model) if not models.is_retired(m)],
        "platform": PLATFORM,
        "inputs": [_tensor(t) for t in inputs],
        "outputs": [_tensor(t) for t in outputs],
        "optional_inputs": [{**_tensor(t), "optional": True} for t in optional_inputs],
        "optional_outputs": [{**_tensor(t), "optional": True} for t in optional_outputs],
    }


def _tensor(spec: Spec) -> Fields:
    return {"name": spec.name, "datatype": spec.datatype, "shape": list(spec.shape)}


def _configured(spec: Spec) -> Fields:
    return {"name": spec.name, "data_type": f"TYPE_{spec.datatype}", "dims": list(spec.shape[1:])}


def _input(spec: Spec) -> Fields:
    """Return an input that every request has: Triton says of each whether it may be left out.

    Those that may be are among the parameters alone: Triton's load tool refuses a configuration with an input that metadata does not list.
    """
    return {**_configured(spec), "optional": False}


def config(model: ServedModel, settings: Settings, rows: int) -> Fields:
    """Return the model's configuration: sequences with state kept here, where it has a stream, or up to `rows` rows without."""
    s = model.tensors
    inputs, outputs = s.asked
    return {
        "name": s.model,
        "platform": PLATFORM,
        "backend": "onnxruntime",
        "version_policy": {"all": {}},
        "max_batch_size": rows,
        "input": [_input(t) for t in inputs],
        "output": [_configured(t) for t in outputs],
        **({"sequence_batching": _sequences(s, settings)} if model.manifest.streams else {}),
        "default_model_filename": "model.onnx",
        "parameters": _parameters(model.manifest, s),
    }


def _sequences(s: Signature, settings: Settings) -> Fields:
    return {
        "max_sequence_idle_microseconds": int(settings.session_ttl * 1e6),
        "oldest": {"max_candidate_sequences": settings.max_queue, "max_queue_delay_microseconds": 0},
        "state": [{"input_name": "state", "output_name": "state_out", "data_type": "TYPE_FP32", "dims": [s.state_size]}],
    }


def _parameters(m: Manifest, s: Signature) -> Fields:
    """Return what a client needs to fill x and to read logits."""
    window = None if m.window is None else str(m.window)
    known = {"window": window, "digest": m.sha256, "kind": m.kind, "layout": m.layout, "hz": m.hz and f"{m.hz:g}", "alphabet": m.alphabet}
    optional = [{**_configured(t), "optional": True} for tensors in s.optional for t in tensors]
    known["optional"] = orjson.dumps(optional).decode()
    if m.labels is not None:
        known["labels"] = "\n".join(m.labels)
    return {name: {"string_value": value} for name, value in known.items() if value is not None}


async def statistics(model: ServedModel) -> Fields:
    """Return the model's statistics. As in Triton, each request of a run counts the run's whole time."""
    s = (await model.port.look()).statistics
    runs = sorted(s.runs.items())
    return {
        "name": model.manifest.name,
        "version": model.manifest.version,
        "last_inference": int(s.last_inference * 1e3),
        "inference_count": s.rows,
        "execution_count": s.executions,
        "inference_stats": {
            "success": _duration(s.success),
            "fail": _duration(s.fail),
            "queue": _duration(s.queue),
            "compute_input": _times(s.rows, sum(size * r.input_ns for size, r in runs)),
            "compute_infer": _times(s.rows, sum(size * r.infer_ns for size, r in runs)),
            "compute_output": _times(s.rows, sum(size * r.output_ns for size, r in runs)),
            "cache_hit": _times(0, 0),
            "cache_miss": _times(0, 0),
        },
        "response_stats": {},
        "batch_stats": [_batch(size, r) for size, r in runs],
        "memory_usage": [],
    }


def _batch(size: int, r: Runs) -> Fields:
    return {
        "batch_size": size,
        "compute_input": _times(r.count, r.input_ns),
        "compute_infer": _times(r.count, r.infer_ns),
        "compute_output": _times(r.count, r.output_ns),
    }


def _duration(d: Duration) -> Fields:
    return _times(d.count, d.ns)


def _times(count: int, ns: int) -> Fields:
    return {"count": count, "ns": ns}
