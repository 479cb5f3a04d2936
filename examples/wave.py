"""Makes wave.json: somebody made up who raises the right hand and waves. 72 frames at 30 Hz, 20 joints in the order `utd20`, metres.

python examples/wave.py > examples/wave.json
"""

import json
import math

STANDING = [
    *([0.0, 0.62, 2.85], [0.0, 0.42, 2.9], [0.0, 0.08, 2.9], [0.0, 0.0, 2.88]),  # head, shoulder centre, spine, hip centre
    *([-0.17, 0.32, 2.9], [-0.22, 0.05, 2.88], [-0.24, -0.18, 2.8], [-0.23, -0.25, 2.78]),  # left arm
    *([0.17, 0.32, 2.9], [0.22, 0.05, 2.88], [0.24, -0.18, 2.8], [0.23, -0.25, 2.78]),  # right arm
    *([-0.08, -0.07, 2.85], [-0.09, -0.53, 2.92], [-0.09, -0.88, 2.94], [-0.1, -0.96, 2.9]),  # left leg
    *([0.08, -0.07, 2.85], [0.09, -0.53, 2.92], [0.09, -0.88, 2.94], [0.1, -0.96, 2.9]),  # right leg
]
ELBOW, WRIST, HAND = 9, 10, 11
RAISED = {ELBOW: (0.27, 0.36, 2.6), WRIST: (0.22, 0.56, 2.47), HAND: (0.21, 0.61, 2.46)}


def frame(t: int) -> list[list[float]]:
    """The body at frame t: the arm goes up within 0.6 s, the hand swings three times, the arm goes down."""
    up = min(1.0, max(0.0, t / 18), max(0.0, (71 - t) / 18))
    up = (1 - math.cos(math.pi * up)) / 2
    swing = 0.12 * math.sin(2 * math.pi * (t - 18) / 12) * (18 <= t < 54)
    body = [list(joint) for joint in STANDING]
    for joint, (x, y, z) in RAISED.items():
        side = swing if joint != ELBOW else swing / 4
        body[joint] = [a + (b - a) * up for a, b in zip(STANDING[joint], (x + side, y, z), strict=True)]
    return [[round(v, 3) for v in joint] for joint in body]


print(json.dumps({"sequences": [[frame(t) for t in range(72)]], "top_k": 3}))
