"""The action task: UTD-MHAD by its published protocol, training subjects 1, 3, 5, 7, test subjects 2, 4, 6, 8 (Chen et al., 2015)."""

from dataclasses import dataclass, field
from typing import Any

from model import data
from model.action import ActionConfig
from model.checkpoint import Meta
from model.clip_learner import ClipLearner, ClipRecipe
from model.network import StateNet
from model.skeletons import SUBJECTS
from model.task import Figures, Job, Task
from model.train_skeleton import GIVEN, Source, learn, measure

HOLDABLE = (0, *SUBJECTS["train"])
TEST = "subject=" + ",".join(map(str, SUBJECTS["test"]))


@dataclass(frozen=True)
class ActionRecipe(ClipRecipe):
    """held: the training subject that is kept to select by; with 0 all are trained on: a recipe's last run.

    Half of the streams lose joints and half come from a camera of another rate, as clients' do. left_out: classes that nothing is learned
    of, for asking how often their motions are called `other`.
    """

    held: int = field(default=7, metadata={"choices": HOLDABLE, "help": "training subject to select by; 0: train on all"})
    lossy: float = 0.5
    other_rate: float = 0.5
    facing: bool = False
    left_out: tuple[int, ...] = ()


def begin(job: Job, config: dict[str, Any], recipe: ActionRecipe) -> tuple[ClipLearner, Meta]:
    """Reads the clips; trains on the training subjects but the held one."""
    source = Source(
        "skeleton/utd_mhad.npz",
        TEST,
        f"subject={recipe.held}" if recipe.held else "none",
        "utd20",
        left_out=tuple(map(int, recipe.left_out)),
    )
    return learn(job, config, recipe, source, (data.UTD_MHAD,), recipe.facing)


def figures(net: StateNet, meta: Meta, split: str) -> Figures:
    """Accuracy on single clips after parts of them, and at the end of each clip in streams without a reset."""
    return measure(net, meta, split)


TASK = Task(
    "action",
    ActionConfig,
    ActionRecipe,
    begin,
    figures,
    headline="test_accuracy_100",
    steps=800,
    decay=400,
    published=(("--held", "0", "--seed", "1"), ("--held", "0", "--seed", "2"), ("--held", "0", "--seed", "3")),
    given=GIVEN,
)
