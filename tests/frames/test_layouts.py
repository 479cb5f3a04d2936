"""Every joint order by name fills another's joints, and on recordings the joints stand where their parts say."""

import os
from pathlib import Path

import numpy as np
import pytest

from indrnn.frames.layouts import ALIASES, ENOUGH, KINECT20, LAYOUTS, NTU25, ORDERS, UTD20, likely, offered, order, table, twins

SKELETON = Path(os.environ.get("INDRNN_DATA", "data")) / "skeleton"
SIZES = {"utd20": 20, "kinect20": 20, "kinect25": 25, "azure32": 32, "mediapipe33": 33, "coco17": 17, "openpose18": 18, "openpose25": 25}


def test_the_orders_have_their_joints_and_the_old_name_stays():
    sizes = {name: len(o.names) for name, o in ORDERS.items()}
    assert SIZES.items() <= sizes.items()
    assert all(len(set(o.names)) == len(o.names) for o in ORDERS.values())
    assert order("ntu25") is order("kinect25") is ORDERS["kinect25"]
    assert order("kinect26") is None
    assert set(ALIASES) == {"ntu25"}


@pytest.mark.parametrize("name", ORDERS)
def test_an_order_swaps_every_left_joint_with_its_right_twin(name):
    names = ORDERS[name].names
    sided = [n for n in names if n.startswith(("left", "right")) or "_@_l" in n or "_@_r" in n]
    sided = [n for n in sided if "lowerback" not in n and "lowerneck" not in n]
    assert len(ORDERS[name].twins) == len(sided) // 2
    for a, b in ORDERS[name].twins:
        assert names[a] != names[b]
        assert names[a].replace("left", "right").replace("_l", "_r")[1:] == names[b][1:]


@pytest.mark.parametrize("name", ORDERS)
def test_every_order_tells_all_twenty_joints_or_has_no_such_limb(name):
    filled = dict(zip(UTD20, table(ORDERS[name], UTD20), strict=True))
    lost = {part for part, sources in filled.items() if not sources}
    hands = {f"{side} hand" for side in ("left", "right")}
    feet = {f"{side} foot" for side in ("left", "right")}
    assert lost == {"coco17": hands | feet, "openpose18": hands | feet, "florence15": hands | feet, "openpose25": hands}.get(name, set())
    assert all(table(ORDERS[name], UTD20, near=True))
    for part, sources in filled.items():
        for side, other in (("left", "right"), ("right", "left")):
            if part.startswith(side):
                assert not any(other in ORDERS[name].names[s] for s in sources), part


def test_a_networks_own_joints_stay_in_their_order_and_orders_that_tell_too_few_are_not_offered():
    assert offered(KINECT20)["kinect20"][1] == tuple((i,) for i in range(20))
    assert offered(NTU25, "kinect25")["ntu25"][1] == tuple((i,) for i in range(25))
    assert set(offered(UTD20)) == {*ORDERS, "ntu25"}
    assert all(offered(UTD20)[name][1] == LAYOUTS[name][1] for name in LAYOUTS)
    assert offered(("nose", "tail")) == {}
    few = offered(("nose", *NTU25))
    assert all(sum(map(bool, filled)) >= ENOUGH * 26 for _, filled in few.values())


@pytest.mark.parametrize(
    ("joints", "dims", "first"),
    [(25, 3, "kinect25"), (25, 2, "openpose25"), (33, 3, "mediapipe33"), (17, 2, "coco17"), (32, 3, "azure32"), (20, 3, "kinect20")],
)
def test_a_number_of_joints_suggests_an_order(joints, dims, first):
    assert likely(joints, dims)[0] == first
    assert likely(26, 3) == []


@pytest.mark.parametrize(
    ("file", "name"),
    [("utd_mhad", "utd20"), ("nwucla", "kinect20"), ("msraction3d", "msr20"), ("florence3d", "florence15"), ("hdm05", "hdm31")],
)
def test_recorded_bodies_of_every_set_have_one_build(file, name):
    """Heights above the hip centre, in bodies from foot to head, agree with UTD-MHAD's within 0.1: median of all first frames."""
    if not (SKELETON / f"{file}.npz").is_file():
        pytest.skip(f"skeleton/{file}.npz is not under INDRNN_DATA")
    utd = {  # of bodies 1.49 m from foot to head
        "head": 0.59, "shoulder centre": 0.40, "spine": 0.06, "left shoulder": 0.29, "left hip": -0.07, "left knee": -0.50,
        "left ankle": -0.84, "right shoulder": 0.29, "right knee": -0.52, "right ankle": -0.85,
    }  # fmt: skip
    with np.load(SKELETON / f"{file}.npz") as d:
        sent = d["x"][d["off"][:-1]]
        if "joint_names" in d:
            assert tuple(d["joint_names"].tolist()) == ORDERS[name].names
    own = np.stack([sent[:, list(sources)].mean(1) for sources in table(ORDERS[name], UTD20, near=True)], 1)
    up = np.nanmedian(own[:, :, 1] - own[:, 3:4, 1], 0)
    up /= up[UTD20.index("head")] - up[UTD20.index("left foot")]
    for part, height in utd.items():
        assert up[UTD20.index(part)] == pytest.approx(height / 1.49, abs=0.1), part


def test_names_without_sides_have_no_twins():
    assert twins(["head", "tail", "leftover"]) == ()


def test_the_page_lists_every_order_with_what_it_usually_comes_in():
    page = (Path(__file__).parents[2] / "docs" / "skeletons.md").read_text(encoding="utf-8")
    for name, o in ORDERS.items():
        row = next(line for line in page.splitlines() if line.startswith(f"| `{name}`"))
        assert f"| {len(o.names)} | {o.told} |" in row
        assert o.unit in row or name == "hdm31"
        assert (f"`{o.axes if o.dims == 3 else o.axes[:5]}`" in row) == (o.axes != "x y z")
