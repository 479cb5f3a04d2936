"""Skeletons: x [B, T, P, J, 3], metres, y up; answers are scores of actions."""

from collections.abc import Mapping
from dataclasses import fields, replace

import numpy as np
from numpy.typing import NDArray

from indrnn.export.modalities.modality import Bodies, Content, Modality, Sample
from indrnn.frames.anatomy import ENTRIES, Anatomy, BodyLimits, usual
from indrnn.frames.layouts import LAYOUTS

OTHER = "other"  # the label of what looks like none of the classes
HZ = (1.0, 1000.0)  # frames a second, the least and the most


class SkeletonContent(Modality):
    """Human bodies frame by frame: joints in metres, in an order with a name."""

    name = "skeleton"
    kind = "action"
    reads = "skeletons"
    fields = ("labels", "layout", "layouts", "persons", "hz", "other_below", "unit", "metres", "axes", "dims", "bodies", "events")

    def check(self, m: Content, state: Mapping[str, int]) -> None:
        """Raise ValueError as the class says."""
        if m.labels is None or m.layout is None or m.persons is None or m.hz is None:
            raise ValueError("an action bundle has labels, layout, persons and hz")
        if not HZ[0] <= m.hz <= HZ[1]:
            raise ValueError(f"hz: expected a rate greater than or equal to {HZ[0]:g}, and at most {HZ[1]:g}, got {m.hz:g}")
        if m.alphabet is not None:
            raise ValueError("expected labels or an alphabet, got both")
        if m.other_below is not None and OTHER in m.labels:
            raise ValueError(f"labels: {OTHER!r} is what scores below other_below are called")
        own = m.layouts.get(m.layout)
        if own is None:
            raise ValueError(f"layouts: the model's own layout {m.layout!r} is not in {sorted(m.layouts)}")
        frame = m.persons * own.joints * 3
        if state.get("last_frame") != frame:
            raise ValueError(f"state: expected a last_frame part of {frame}")
        for name, layout in m.layouts.items():
            if len(layout.table) != own.joints:
                raise ValueError(f"layouts.{name}.table: expected {own.joints} joints, got {len(layout.table)}")
        if m.bodies is not None:
            _check_bodies(m.bodies, own.joints)

    def step(self, m: Content) -> tuple[int, ...]:
        """Return (P, J, 3). Raises ValueError where a checkpoint does not say which."""
        if m.persons is None or m.layout is None or m.layout not in m.layouts:
            raise ValueError(f"expected an action model to state persons and layout, got {m.persons} and {m.layout}")
        return m.persons, m.layouts[m.layout].joints, 3

    def answers(self, m: Content) -> int:
        """Return how many classes there are."""
        return len(m.labels or ())

    def sample(self, m: Content) -> Sample:
        """Return persons who swing their joints."""
        persons, joints, _ = self.step(m)
        return skeletons(persons, joints)

    def what(self, m: Content) -> str:
        """Return what a network of skeletons does."""
        if not m.streams:
            return "Reads whole sequences of human skeletons and says which action they show."
        return "Reads human skeletons frame by frame and says, after every frame, which action they show."

    def contract(self, m: Content) -> str:
        """Return axes, unit and joint order of x."""
        others = ", ".join(f"`{k}`" for k in sorted(m.layouts) if k != m.layout)
        flat = m.dims == 2
        axes = "x to the right of a person who faces the camera: negative at the left hand; y up" + (
            "" if flat else "; z away from the camera"
        )
        if m.axes is None and m.unit is not None:
            axes = "axes as in its data"
        unit = "metres" if m.metres in (None, 1.0) else "a unit in which a standing person's joints are some 0.5 from their middle"
        return (
            f"`x` is raw joint positions in {unit} ({axes}) at {m.hz:g} frames a second, "
            f"in the joint order `{m.layout}`"
            + (f" ({others} can be mapped to it)" if others else "")
            + (", two numbers of each and a third that is 0" if flat else "")
            + f"; persons at once: {m.persons}, an absent one is all zeros. Centring and scaling are part of the graph. "
            + _unit(m)
            + "Turning by some 30° and shifting do no harm; a mirrored or flipped axis or another unit gives wrong answers. "
            + f"`logits` are scores of the {self.answers(m)} classes below."
            + (_BODIES if anatomy(m) is not None else "")
        )

    def limits(self, m: Content, data: tuple[str, ...]) -> str:
        """Return how far its answers can be believed; of anybody's own clips nothing is known."""
        other = ""
        if m.other_below is not None:
            other = (
                f"A score below {m.other_below:g} is answered with the label `{OTHER}`: on validation clips 5 % of the known motions fall "
                "below. `top` then still lists the classes. "
            )
        recorded = "It knows the people, the places and the sensors of its recordings"
        if data == ("UTD-MHAD",):
            recorded = "It was trained on recordings of a few adults in one laboratory, facing one depth camera"
        elif len(data) > 1:
            recorded = (
                f"It was trained on recordings of {', '.join(data)}; the figures that begin with `without_` say what to expect elsewhere"
            )
        return (
            f"{other}It knows the actions listed below and no others: shown anything else, it may name one of them all the same, often "
            f"with a high score. {recorded}; expect less of other people, views and sensors, and measure before relying on it. It is not "
            "meant for surveillance, nor for decisions about persons."
        )


_BODIES = (
    " What can be no body (its size, the lengths between its joints, its head below its hips, hands and feet that point backwards) is "
    "answered with the label `other` and a warning that says why."
)


def _unit(m: Content) -> str:
    """Return the words on the unit of the data that a network learned from."""
    if m.unit is None or m.metres in (None, 1.0):
        return ""
    named = f"in its own unit, {m.unit}" if m.unit != "own" else "in a unit of its own"
    return f'The data was {named}, of which one is {m.metres:.4g} in `x`; the service takes it with `"unit": "{m.unit}"`. '


def _check_bodies(bodies: Bodies, joints: int) -> None:
    for k, (a, b, metres) in enumerate(bodies.pairs):
        if not (0 <= a < joints and 0 <= b < joints) or a == b or not metres > 0:
            raise ValueError(f"bodies.pairs[{k}]: expected two of {joints} joints and metres above 0, got {[a, b, metres]}")
    if strange := bodies.limits.keys() - {f.name for f in fields(BodyLimits)}:
        raise ValueError(f"bodies.limits: expected {', '.join(f.name for f in fields(BodyLimits))}, got {', '.join(sorted(strange))}")


def anatomy(m: Content) -> Anatomy | None:
    """Return what bodies of a model are like; None where nothing says it.

    A manifest of 0.1.0 says nothing: its bodies are adults of the usual build if its own joints are in one of the orders of that time,
    which were Kinect's in metres, and anybody's else.
    """
    own = None if m.layout is None else m.layouts.get(m.layout)
    if own is None or m.persons is None:
        return None
    if m.bodies is None:
        return usual(own.joint_names) if m.layout in LAYOUTS and m.dims != 2 else None
    limits = replace(BodyLimits(), **m.bodies.limits)  # type: ignore[arg-type]  # the one that is no None is checked
    return Anatomy(own.joint_names, m.bodies.pairs, limits) if m.bodies.pairs else None


def evidence_size(m: Content) -> int:
    """Return how many numbers of evidence on its bodies a session of the model keeps beside the graph's state."""
    found = anatomy(m)
    return 0 if found is None or m.persons is None else m.persons * ENTRIES


def skeletons(persons: int, joints: int) -> Sample:
    """Return persons of about 1.7 m, 3 m from the camera, who swing their joints; now and then one is absent, some rows only tremble.

    They move by some 2 cm a frame, as recorded ones do, the trembling rows by five times that. Far outside what a model was trained
    on its scores grow without bound, and so do the rounding errors of any two runtimes.
    """

    def sample(rng: np.random.Generator, B: int, T: int) -> NDArray[np.float32]:
        one = (B, 1, persons, joints, 3)
        seconds = np.arange(T).reshape(1, T, 1, 1, 1) / 30
        pose = rng.uniform([-0.4, -0.9, -0.15], [0.4, 0.8, 0.15], one) + np.array([0, 0, 3])
        swing = rng.uniform(0, 0.25, one) * np.sin(2 * np.pi * rng.uniform(0.3, 1.5, one) * seconds + rng.uniform(0, 6, one))
        trembling = rng.random((B, 1, 1, 1, 1)) < 0.25
        x: NDArray[np.float64] = pose + np.where(trembling, 0, swing) + rng.normal(size=(B, T, *one[2:])) * np.where(trembling, 0.07, 0.01)
        x[rng.random((B, T, persons)) < 0.05] = 0
        return x.astype(np.float32)

    return sample
