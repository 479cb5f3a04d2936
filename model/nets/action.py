"""The action network: raw skeleton frames in, class scores after every frame out, all state in one vector.

The way of one frame; the network takes T of them in each of B rows, [B, T, ...]:

    x           [P, J, 3]        metres, y up; an absent person is zeros, and contributes nothing from here to the end
    places      [P, J, 3]        each joint from its person's root, the hip centre: who stands where no longer shows     `places`
    velocities  [P, J, 3]        each joint from where it was in the frame before
    own         2 x [P, J, 3]    with `across`: both once more, as the body itself would say them                        `facing`, `turned`
    distances   [P, J (J-1)/2]   with `apart`: between all joints of a person                                            `distances`
    features    [F]              all these numbers, times a fixed scale that brings them to about unit size              `_features`
    layers      [H]              y_1 = r(features), y_l = y_{l-1} + r(y_{l-1}), where r(a): a -> W a + b, batch norm,
                                 h_t = relu(a_t + u * h_{t-1}); h is what r answers and carries (another `cell`: its own equations)
    pool        [C, H]           leaky means of the last layer, for each leak one, whose weights the network chooses     `_pool`
    logits      [K]              V [y, pool] + c; where answers are steadied, a leaky mean of these when served          `_steadied`

Nothing looks ahead and everything forgets, so that a stream may go on for ever. For serving, batch norm and the features' scale are folded
into W and b, and the mean over the classes is taken out of V and c (`fold_`).
"""

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from indrnn.model.cells.cell import StatePart
from indrnn.model.cells.recurrence import recurrence
from indrnn.model.cells.stacks import StackOptions, skip_chain
from indrnn.model.nets.network import StateNet, centre_, last_valid
from indrnn.model.nets.options import BOUND, CELL, CLASSES, DROPOUT, HIDDEN, LAYERS, NORM, READOUT_DROPOUT

# Features reach the first layer at about unit size; a scale without a shift keeps an absent person (zeros) at no contribution.
# Measured on the training subjects: joints relative to the hip have a deviation of 0.3 m, velocities of 0.019 m a frame.
POSITION_SCALE = 3.0
VELOCITY_SCALE = 50.0

# The least weight of a frame in the pool. Without it trained weights went down to 1e-33, and their quotient was no number to rely on.
GATE_FLOOR = 0.01

FARTHEST = 1e3  # metres; what is farther counts as here, so that no number that a client sends overflows a square in the features


@dataclass(frozen=True)
class ActionConfig(StackOptions):
    """Sizes of the network. root: index of the hip centre. pools: leak a of each leaky mean, which remembers 1 / (1 - a) frames.

    position_scale, velocity_scale: what the features are multiplied by. across: pairs (left, right) of joints that say where a body faces;
    with them the network sees places and velocities also in the body's own directions, without them (an empty tuple) in the camera's only.
    own: with `across`, only in the body's own directions. together: places of all persons relative to the first one's root, not each
    to its own, so that it shows how they stand to each other. apart: also the distances between all joints of a person. jump: metres a
    frame that no part of a velocity exceeds, 0: no limit. steady: leak of the mean over the frames' logits that is the answer outside of
    training, 0: each frame's own. A clip's last frames show the way back to rest, and often less than the frames before.
    """

    joints: int = field(default=20, metadata={"help": "joints J of a body"})
    persons: int = field(default=1, metadata={"help": "persons P of a clip"})
    root: int = field(default=3, metadata={"help": "index of the hip centre"})
    classes: int = field(default=27, metadata=CLASSES)
    hidden: int = field(default=256, metadata=HIDDEN)
    layers: int = field(default=4, metadata=LAYERS)
    bound: float = field(default=0.99, metadata=BOUND)
    pools: tuple[float, ...] = field(
        default=(0.9, 0.97, 0.99), metadata={"help": "leak a of each leaky mean, which remembers 1 / (1 - a) frames"}
    )
    dropout: float = field(default=0.3, metadata=DROPOUT)
    readout_dropout: float = field(default=0.5, metadata=READOUT_DROPOUT)
    norm: bool = field(default=True, metadata=NORM)
    position_scale: float = field(default=POSITION_SCALE, metadata={"help": "what places are multiplied by"})
    velocity_scale: float = field(default=VELOCITY_SCALE, metadata={"help": "what velocities are multiplied by"})
    across: tuple[tuple[int, int], ...] = field(default=(), metadata={"help": "pairs of left and right joints that say where a body faces"})
    own: bool = field(default=False, metadata={"help": "show bodies in their own directions only"})
    together: bool = field(default=False, metadata={"help": "places of all persons relative to the first one's root"})
    apart: bool = field(default=False, metadata={"help": "show the distances between all joints of a person"})
    jump: float = field(default=0.0, metadata={"help": "metres a frame that no part of a velocity exceeds; 0: no limit"})
    steady: float = field(default=0.0, metadata={"help": "leak a of a mean of the logits, the answer when served; 0: none"})
    cell: str = field(default="indrnn", metadata=CELL)

    @property
    def vectors(self) -> int:
        """Numbers a frame that are places and velocities."""
        return 2 * self.persons * self.joints * 3 * (2 if self.across and not self.own else 1)

    @property
    def features(self) -> int:
        """Numbers a frame that the network sees."""
        return self.vectors + (self.persons * self.joints * (self.joints - 1) // 2 if self.apart else 0)


def places(frames: Tensor, root: int, together: bool = False) -> tuple[Tensor, Tensor]:
    """frames [B, T + 1, P, J, 3], the first of them the last of the piece before -> places from the root and steps, both [B, T, P, J, 3].

    together: from the root of the first person who is there, not from each one's own. A person absent in a frame has neither place nor
    step; one absent in the frame before has no step: so begins a sequence.
    """
    x = frames[:, 1:]  # [B, T, P, J, 3]
    seen = (frames.abs().amax((3, 4)) > 0)[..., None, None]  # [B, T + 1, P, 1, 1]
    zero = torch.zeros((), dtype=x.dtype, device=x.device)
    centre = x[:, :, :, root : root + 1]  # [B, T, P, 1, 3]
    if together:
        first = seen[:, 1:].to(x.dtype).cumsum(2) == 1  # [B, T, P, 1, 1], from the first person there to before the second
        centre = torch.where(first & seen[:, 1:], centre, zero).sum(2, keepdim=True)  # [B, T, 1, 1, 3]
    position = torch.where(seen[:, 1:], x - centre, zero)  # [B, T, P, J, 3]
    velocity = torch.where(seen[:, 1:] & seen[:, :-1], x - frames[:, :-1], zero)  # [B, T, P, J, 3]
    return position, velocity


def facing(position: Tensor, across: Tensor) -> Tensor:
    """Return where a body faces: position [B, T, P, J, 3], across [J] (+ right, - left) -> cosine and sine of its turn, [B, T, P, 1, 2].

    (1, 0) faces the camera. The line across shoulders and hips, seen from above, says it; a body that has none, such as an absent one,
    has no turn: (0, 0), and with it no features of its own.
    """
    line = (position[..., 0::2] * across[:, None]).sum(3, keepdim=True)  # [B, T, P, 1, 2], x and z
    # No "+ 1e-8": the exporter takes so small a sum for none and leaves it out, and an absent person becomes 0 / 0.
    return line / line.square().sum(-1, keepdim=True).clamp_min(1e-8).sqrt()


def turned(v: Tensor, turn: Tensor) -> Tensor:
    """Vectors v [B, T, P, J, 3] as a body of that turn [B, T, P, 1, 2] says them: to its right, up, behind it."""
    c, s = turn[..., :1], turn[..., 1:]  # [B, T, P, 1, 1], [B, T, P, 1, 1]
    x, y, z = v[..., :1], v[..., 1:2], v[..., 2:]  # [B, T, P, J, 1], [B, T, P, J, 1], [B, T, P, J, 1]
    return torch.cat([c * x + s * z, y, c * z - s * x], -1)


def distances(position: Tensor) -> Tensor:
    """Return how far apart each pair of a person's joints is: position [B, T, P, J, 3] -> metres [B, T, P, J (J - 1) / 2].

    The same from every side. Pairs in the order (0, 1), (0, 2), ..., (J - 2, J - 1).
    """
    first, second = torch.triu_indices(position.shape[3], position.shape[3], 1)
    square = (position[:, :, :, first] - position[:, :, :, second]).square().sum(-1)
    # The slope of a square root is infinite at 0, which is where an absent person's joints are: the gradient there is to be 0.
    some = square > 0
    return torch.where(some, torch.where(some, square, 1).sqrt(), 0)


class ActionNet(StateNet):
    """x [B, T, P, J, 3] metres, y up; lengths [B] int64; state [B, N] -> logits [B, T, K] after each frame, state [B, N].

    A zero row of state is the start. State parts in order: hidden of each layer, last_frame, pool, where answers are steadied the pool of
    logits, last_logits (`parts`).
    Frames at t >= lengths never influence anything, whatever they hold.
    """

    leak: Tensor
    leaks: Tensor
    steady: Tensor
    scale: Tensor | None
    across: Tensor

    def __init__(self, config: ActionConfig) -> None:
        super().__init__()
        c = self.config = config
        frame = c.persons * c.joints * 3
        self.stack = skip_chain(c.features, c.hidden, c.layers, c.bound, c.dropout, c.norm, c.cell, c.bidirectional).taking(c)
        self.gate = nn.Linear(c.hidden, len(c.pools))
        self.readout = nn.Linear(c.hidden * (1 + len(c.pools)), c.classes)
        nn.init.zeros_(self.readout.weight)  # an untrained net knows nothing: uniform scores
        nn.init.zeros_(self.readout.bias)
        leak = torch.tensor(c.pools)
        self.register_buffer("leak", leak, persistent=False)  # [C]
        self.register_buffer("steady", torch.full((c.classes + 1,), c.steady), persistent=False)  # [K + 1]
        self.register_buffer("leaks", leak.repeat_interleave(c.hidden), persistent=False)  # [CH]
        scale = torch.tensor([c.position_scale, c.velocity_scale]).repeat_interleave(frame).repeat(c.vectors // (2 * frame))
        scale = torch.cat([scale, torch.full((c.features - c.vectors,), c.position_scale)])
        self.register_buffer("scale", scale if c.norm else None, persistent=False)
        across = torch.zeros(c.joints)
        for left, right in c.across:
            across[left], across[right] = -1, 1
        self.register_buffer("across", across, persistent=False)
        self.sizes = [self.stack.state_size, frame, len(c.pools) * (c.hidden + 1), c.classes + 1 if c.steady else 0, c.classes]

    def forward(self, x: Tensor, lengths: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """Run the network on the shapes that the class names: frames in, the state of before taken apart, and put together again."""
        c = self.config
        carried, last_frame, pool, answers, last_logits = torch.split_with_sizes(state, self.sizes, 1)  # [B, S], [B, PJ3]
        x = x.clamp(-FARTHEST, FARTHEST)  # [B, T, P, J, 3]
        f = self._features(x, last_frame)  # [B, T, F]
        if self.scale is not None:  # a folded net has it in its weights
            f = f * self.scale  # [B, T, F]
        y, carried = self.stack(f.transpose(0, 1), lengths, carried)  # [T, B, H], [B, S]
        means, pool = self._pool(y, lengths, pool)  # [T, B, CH], [B, CH + C]
        seen = torch.cat([y, means], 2)  # [T, B, H + CH]
        if self.training and c.readout_dropout > 0:  # one mask over time, as in the stack; one a step took a sixth of a step's time
            seen = seen * nn.functional.dropout(seen.new_ones(1, *seen.shape[1:]), c.readout_dropout)  # [T, B, H + CH]
        logits = self.readout(seen).float()  # [T, B, K]
        if c.steady and not self.training:  # learned through the mean, 84.3 % of NW-UCLA's view 2 were right, else 86.9
            logits, answers = self._steadied(logits, lengths, answers)  # [T, B, K], [B, K + 1]
        logits = logits.transpose(0, 1)  # [B, T, K]
        last_frame = last_valid(last_frame, x.flatten(2), lengths)  # [B, PJ3]
        return logits, torch.cat([carried, last_frame, pool, answers, last_valid(last_logits, logits, lengths)], 1)

    def _features(self, x: Tensor, last_frame: Tensor) -> Tensor:
        """x [B, T, P, J, 3], last_frame [B, PJ3] -> what the network sees, [B, T, F]."""
        c = self.config
        before = last_frame.view(-1, 1, c.persons, c.joints, 3)  # [B, 1, P, J, 3]
        frames = torch.cat([before, x], 1)  # [B, T + 1, P, J, 3]
        position, velocity = places(frames, c.root, c.together)  # [B, T, P, J, 3], [B, T, P, J, 3]
        if c.jump:
            velocity = velocity.clamp(-c.jump, c.jump)  # [B, T, P, J, 3]
        seen = [position, velocity]
        if c.across:
            turn = facing(position, self.across)  # [B, T, P, 1, 2]
            own = [turned(position, turn), turned(velocity, turn)]
            seen = own if c.own else seen + own
        if c.apart:
            seen.append(distances(position))  # of [B, T, P, J (J - 1) / 2]
        return torch.cat([v.flatten(2) for v in seen], 2)

    def _pool(self, y: Tensor, lengths: Tensor, pool: Tensor) -> tuple[Tensor, Tensor]:
        """Leaky weighted means of y [T, B, H], one for each leak a, with weights g_t in (GATE_FLOOR, 1) that the network chooses itself:

        p_t = a p_{t-1} + (1 - a) g_t y_t,  w_t = a w_{t-1} + (1 - a) g_t,  mean_t = p_t / w_t.

        Both are IndRNNs with identity activation and U = a. Frames of little weight, such as rest, dilute nothing, and no frames are
        counted: a counter would grow. -> means [T, B, CH], pool after [B, CH + C].
        """
        C, H = len(self.config.pools), self.config.hidden
        p, w = torch.split_with_sizes(pool, [C * H, C], 1)  # [B, CH], [B, C]
        g = GATE_FLOOR + (1 - GATE_FLOOR) * self.gate(y).float().sigmoid()  # [T, B, C]
        weighted = (y[:, :, None] * g[..., None]).flatten(2)  # [T, B, CH]
        sums, p = recurrence(weighted * (1 - self.leaks), self.leaks, lengths, p, activation="identity")  # [T, B, CH], [B, CH]
        weights, w = recurrence(g * (1 - self.leak), self.leak, lengths, w, activation="identity")  # [T, B, C], [B, C]
        share = weights.clamp_min(1e-6).reciprocal()  # [T, B, C]; the clamp is for steps past a row's length, 0 * 1e6: within it w is above
        means = sums.view(*y.shape[:2], C, H) * share[..., None]  # [T, B, C, H]
        return means.flatten(2), torch.cat([p, w], 1)

    def _steadied(self, logits: Tensor, lengths: Tensor, pool: Tensor) -> tuple[Tensor, Tensor]:
        """Leaky means of logits [T, B, K], sums and weights as in `_pool` with g = 1 -> means [T, B, K], pool after [B, K + 1]."""
        weighted = torch.cat([logits, torch.ones_like(logits[..., :1])], 2) * (1 - self.steady)  # [T, B, K + 1]
        sums, pool = recurrence(weighted, self.steady, lengths, pool, activation="identity")  # [T, B, K + 1], [B, K + 1]
        return sums[..., :-1] / sums[..., -1:].clamp_min(1e-6), pool

    def parts(self) -> tuple[StatePart, ...]:
        """Return the state's parts in order, as the manifest lists them."""
        leak = (*self.leaks.tolist(), *self.leak.tolist())
        answers = StatePart("pool", self.sizes[3], activation="identity", u=tuple(self.steady.tolist()))
        return (
            *self.stack.parts(),
            StatePart("last_frame", self.sizes[1]),
            StatePart("pool", self.sizes[2], activation="identity", u=leak),
            *([answers] if self.config.steady else []),
            StatePart("last_logits", self.config.classes),
        )

    def fold_(self) -> None:
        """Moves batch norm and the features' scale into the weights, as far as they take them; centres the logits."""
        if self.stack.fold_(self.scale):
            self.scale = None
        centre_(self.readout)
