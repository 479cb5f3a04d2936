"""Explanations without a graph: what is asked for, what is refused, and how many may wait."""

import asyncio
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import orjson
import pytest
from fastapi import APIRouter
from starlette.requests import ClientDisconnect, Request

from indrnn.export.bundle import Manifest
from indrnn.service.engine.requests import Exact, Frames
from indrnn.service.errors import BadInput, Overloaded, TooLarge
from indrnn.service.http.explain import add_explain
from indrnn.service.http.explanation import MOST_STEPS, WAITING, Explained, Explainer, need_explanation, read, weights_of
from indrnn.service.serving.models import Models, ServedModel
from indrnn.service.serving.services import Services


def manifest(**told: Any) -> Manifest:
    """As much of one as an explanation asks for."""
    facts = {"labels": None, "alphabet": None, "values": None, "classes": 3, "hz": 30.0, "name": "m", "version": "1", "explain": True}
    facts |= {"unknown_symbol": None, "modality": "text"}
    return cast(Manifest, SimpleNamespace(**facts | told))


def test_a_label_stands_against_the_mean_of_the_others() -> None:
    assert weights_of(manifest(labels=("a", "b", "c")), "b", None).tolist() == [-0.5, 1.0, -0.5]
    assert weights_of(manifest(alphabet="xyz"), "x", None).tolist() == [1.0, -0.5, -0.5]
    assert weights_of(manifest(labels=("a",), classes=1), "a", None).tolist() == [1.0]


def test_events_behind_the_labels_have_no_weight() -> None:
    assert weights_of(manifest(labels=("a", "b", "c"), classes=6), "a", None).tolist() == [1.0, -0.5, -0.5, 0, 0, 0]


def test_a_value_has_no_others_against_it() -> None:
    values = [SimpleNamespace(name=name) for name in ("speed", "angle", "load")]
    assert weights_of(manifest(values=values), "angle", None).tolist() == [0.0, 1.0, 0.0]


def test_weights_take_the_place_of_a_label() -> None:
    assert weights_of(manifest(), None, [1, -2.5, 0]).tolist() == [1.0, -2.5, 0.0]
    for wrong in ([1, 2], [1, 2, True], [1, 2, 1e39], [1, 2, "3"], "abc", 3):
        with pytest.raises(BadInput, match="expected 3 numbers"):
            weights_of(manifest(), None, wrong)
    with pytest.raises(BadInput, match="so weights are expected"):
        weights_of(manifest(), "a", None)


@pytest.mark.parametrize(
    ("label", "weights", "got"),
    [(None, [1, True, 3], r"got true at \[1\]"), (None, [1, 2], "got a list of 2"), ("a", [1, 2, 3], "got the label 'a' too")],
)
def test_weights_that_are_refused_are_told_what_is_wrong_with_them(label: Any, weights: Any, got: str) -> None:
    with pytest.raises(BadInput, match=got):
        weights_of(manifest(labels=("a", "b", "c")), label, weights)


def test_the_symbol_of_what_an_alphabet_lacks_is_no_label() -> None:
    told = manifest(alphabet="xy\ufffd", unknown_symbol=2)
    assert weights_of(told, "x", None).tolist() == [1.0, -0.5, -0.5]
    with pytest.raises(BadInput, match="expected one of x, y, got"):
        weights_of(told, "\ufffd", None)


@pytest.mark.parametrize(("weight", "logit"), [(1.0, 2.0), (3e38, None)])
def test_what_is_beyond_float32_is_refused_and_warns_nobody(weight: float, logit: float | None) -> None:
    """Warnings are errors here."""
    explainer, x, weights = Explainer(Path()), np.full((2, 1), 2, np.float32), np.full(2, weight, np.float32)
    told = manifest(explain=SimpleNamespace(sha256="it"))
    answers = [np.full((1, 2, 1), weight, np.float32), np.ones((1, 2), np.float32), np.zeros((1, 2), np.float32)]
    explainer._open["it"] = cast(Any, SimpleNamespace(run=lambda *asked: answers))
    if logit is None:
        with pytest.raises(BadInput, match="finite"):
            explainer._run(told, x, weights, cast(Any, None))
    else:
        assert explainer._run(told, x, weights, cast(Any, None)).logit == logit


def test_a_rate_is_refused_in_words_where_the_model_has_none_and_where_times_are_given() -> None:
    x = np.ones((3, 1, 2, 3), np.float32)
    with pytest.raises(BadInput, match="at the model's rate, so that hz may be left out, got 25"):
        read(manifest(hz=None), Frames(x, 25.0))
    with pytest.raises(BadInput, match="got a time of each frame"):
        read(manifest(), Frames(x, None, t=np.arange(3.0)))


def test_frames_are_held_and_must_be_at_the_model_s_rate() -> None:
    x = np.ones((3, 1, 2, 3), np.float32)
    x[1, 0, 1] = np.nan
    x[2] = 2
    assert read(manifest(), Frames(x, None))[1].tolist() == [[[1, 1, 1], [1, 1, 1]]]
    assert len(read(manifest(), Frames(x, 30.0))) == 3
    with pytest.raises(BadInput, match="expected frames at the model's rate, 30"):
        read(manifest(), Frames(x, 25.0))
    with pytest.raises(BadInput, match="at the model's rate"):
        read(manifest(), Frames(x, None, t=np.arange(3.0)))


def test_a_long_sequence_and_a_model_without_one_are_refused() -> None:
    with pytest.raises(TooLarge, match="at most 512"):
        read(manifest(), Exact(np.zeros(MOST_STEPS + 1, np.int64)))
    with pytest.raises(BadInput, match=r"has no explain\.onnx"):
        read(manifest(explain=None), Exact(np.zeros(3, np.int64)))


def test_what_cannot_have_one_is_not_told_to_write_one() -> None:
    with pytest.raises(BadInput, match=r"has no explain\.onnx: numbers of words have no gradient$"):
        need_explanation(manifest(explain=None, modality="sentences"))


async def test_a_model_without_one_says_so_before_it_asks_for_a_label() -> None:
    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b'{"sequence": "text", "model": "m"}'}

    model = SimpleNamespace(manifest=manifest(labels=("a", "b", "c"), explain=None))
    settings = SimpleNamespace(bundles=Path(), max_body=100, max_drain=100, body_timeout=10)
    models, access = SimpleNamespace(choose=lambda *asked: model), SimpleNamespace(owner_of=lambda headers: "")
    router = APIRouter()
    add_explain(router, cast(Services, SimpleNamespace(settings=settings, models=models, access=access)), {})
    with pytest.raises(BadInput, match=r"has no explain\.onnx"):
        await cast(Any, router.routes[0]).endpoint(Request({"type": "http", "method": "POST", "headers": []}, receive))


async def test_some_may_wait_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """One runs, and those that wait get their turn after it, however it ends."""
    go = threading.Event()

    def slow(self: Explainer, m: Manifest, x: Any, weights: Any, options: Any) -> Explained:
        go.wait(10)
        return Explained(0.0, x, x, x)

    monkeypatch.setattr(Explainer, "_run", slow)
    explainer, model = Explainer(Path()), cast(ServedModel, SimpleNamespace(manifest=manifest()))
    content, weights = Exact(np.zeros(3, np.int64)), np.zeros(3, np.float32)
    waiting = [asyncio.create_task(explainer.explain(model, content, weights)) for _ in range(WAITING)]
    await asyncio.sleep(0)
    with pytest.raises(Overloaded, match=f"{WAITING} explanations wait already"):
        await explainer.explain(model, content, weights)
    waiting[3].cancel()
    go.set()
    done = await asyncio.gather(*waiting, return_exceptions=True)
    assert [type(one) for one in done].count(Explained) == WAITING - 1
    assert (await explainer.explain(model, content, weights)).logit == 0.0


async def test_a_run_ends_with_whoever_asked_for_it_and_the_next_waits_for_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    running, ended = threading.Event(), threading.Event()
    at_once: list[int] = []

    def run(self: Explainer, m: Manifest, x: Any, weights: Any, options: Any) -> Explained:
        at_once.append(1)
        running.set()
        if len(at_once) == 1:
            for _ in range(2000):
                if options.terminate:
                    break
                ended.wait(0.005)
            assert options.terminate, "it was told"
            ended.set()
            raise RuntimeError("what a runtime says of a run that was ended")
        assert ended.is_set(), "one runs at a time"
        return Explained(1.0, x, x, x)

    monkeypatch.setattr(Explainer, "_run", run)
    explainer, model = Explainer(Path()), cast(ServedModel, SimpleNamespace(manifest=manifest()))
    content, weights = Exact(np.zeros(3, np.int64)), np.zeros(3, np.float32)
    leaving = asyncio.create_task(explainer.explain(model, content, weights))
    await asyncio.to_thread(running.wait, 10)
    next_one = asyncio.create_task(explainer.explain(model, content, weights))
    await asyncio.sleep(0)
    leaving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await leaving
    assert (await next_one).logit == 1.0


def test_explanations_of_models_that_left_are_closed() -> None:
    told = {"a": SimpleNamespace(sha256="a"), "b": SimpleNamespace(sha256="b"), "none": None}
    served = {n: cast(ServedModel, SimpleNamespace(manifest=manifest(name=n, sha256=n, state_size=1, explain=e))) for n, e in told.items()}
    models, explainer = Models(served.values()), Explainer(Path())
    for _ in range(2):
        explainer.follow(models)
    explainer._open.update({"a": cast(Any, 1), "b": cast(Any, 2)})
    models.remove(served["none"])
    assert list(explainer._open) == ["a", "b"]
    models.remove(served["a"])
    assert list(explainer._open) == ["b"]


@pytest.mark.parametrize(("named", "said"), [({}, True), ({"model": "m"}, False)])
async def test_a_refusal_says_which_model_was_taken_where_none_was_named(named: dict[str, str], said: bool) -> None:
    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": orjson.dumps({"sequence": "text", "label": "z", **named})}

    model = SimpleNamespace(manifest=manifest(labels=("a", "b", "c")))
    settings = SimpleNamespace(bundles=Path(), max_body=100, max_drain=100, body_timeout=10)
    models, access = SimpleNamespace(choose=lambda *asked: model), SimpleNamespace(owner_of=lambda headers: "")
    router = APIRouter()
    add_explain(router, cast(Services, SimpleNamespace(settings=settings, models=models, access=access)), {})
    (route,) = router.routes
    with pytest.raises(BadInput) as refused:
        await cast(Any, route).endpoint(Request({"type": "http", "method": "POST", "headers": []}, receive))
    assert ('so "action" was taken' in refused.value.detail) == said


async def test_a_client_that_leaves_takes_its_explanation_along(monkeypatch: pytest.MonkeyPatch) -> None:
    left, ended = asyncio.Event(), asyncio.Event()

    async def explain(self: Explainer, *asked: Any) -> Explained:
        left.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()
        raise AssertionError("nobody wakes it")

    async def receive() -> dict[str, Any]:
        if not body:
            await left.wait()
            return {"type": "http.disconnect"}
        return {"type": "http.request", "body": body.pop()}

    monkeypatch.setattr(Explainer, "explain", explain)
    body = [b'{"sequence": [[1, 2]], "label": "a"}']
    modality = SimpleNamespace(read=lambda *given: Exact(np.zeros(1, np.int64)))
    model = SimpleNamespace(manifest=manifest(labels=("a", "b", "c")), modality=modality)
    settings = SimpleNamespace(bundles=Path(), max_body=100, max_drain=100, body_timeout=10)
    models = SimpleNamespace(choose=lambda *asked: model, follow=lambda call: None)
    access, steps = SimpleNamespace(owner_of=lambda headers: ""), SimpleNamespace(charge=lambda owner: None)
    router = APIRouter()
    add_explain(router, cast(Services, SimpleNamespace(settings=settings, models=models, access=access, steps=steps)), {})
    (route,) = router.routes
    request = Request({"type": "http", "method": "POST", "headers": []}, receive)
    with pytest.raises(ClientDisconnect):
        await asyncio.wait_for(cast(Any, route).endpoint(request), 20)
    assert ended.is_set()
