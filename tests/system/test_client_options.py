"""The Python client's options for other cameras and unknown characters, and what it hands over of the answers."""

import json

import numpy as np
from conftest import ROOT, Server

from indrnn.client.aio import Client as AsyncClient
from indrnn.client.sync import Client

WAVE = json.loads((ROOT / "examples" / "wave.json").read_text())["sequences"][0]


def test_other_cameras_and_unknown_characters_through_the_client(server: Server) -> None:
    millimetres = [[[1000 * number for number in joint] for joint in frame] for frame in WAVE]
    down = [[[x, -y, z] for x, y, z in frame] for frame in WAVE]
    with Client(server.url) as client:
        told = client.predict([millimetres], model="action", unit="mm")
        assert (told.predictions[0].label, told.warnings) == ("wave", ())
        timed = client.predict([WAVE[::2]], model="action", t=[[n / 15 for n in range(len(WAVE[::2]))]])
        assert timed.predictions[0].label == "wave"
        upside = client.predict([down], model="action")
        assert upside.predictions[0].label == "other"
        assert upside.warnings
        with client.session("action", unit="mm", lost="zero") as session:
            answer = session.step(millimetres)
            assert (answer.predictions[0].label, answer.warnings) == ("wave", ())
        with client.session("chars", unknown="replace") as session:
            answer = session.step("a☃b")
            assert answer.replaced == {"count": 1, "chars": "☃"}


async def test_frames_that_come_unevenly_say_when_through_both_shells(server: Server) -> None:
    taken = [n / 30 for n in range(0, len(WAVE), 2)]
    some = WAVE[::2]
    with Client(server.url) as client, client.session("action", every=True) as session:
        first = session.step(some[:20], t=taken[:20])
        answer = session.step(some[20:], t=np.array(taken[20:]))
        assert (answer.predictions[0].label, answer.position) == ("wave", len(some))
        assert len(first.scores) + len(answer.scores) == len(WAVE) - 1, "one for each frame of the model's rate"
    async with AsyncClient(server.url) as other, other.session("action") as session:
        answer = await session.step(some, t=taken)
        assert answer.predictions[0].label == "wave"
