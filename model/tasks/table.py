"""The table of tasks: the one line that each needs beside its own file."""

from indrnn.model.tasks import action as train_action
from indrnn.model.tasks import adding as train_adding
from indrnn.model.tasks import chars as train_chars
from indrnn.model.tasks import mnist as train_mnist
from indrnn.model.tasks import ntu as train_ntu
from indrnn.model.tasks import ptb_char as train_ptb_char
from indrnn.model.tasks import ptb_word as train_ptb_word
from indrnn.model.tasks import skeleton as train_skeleton
from indrnn.model.training.task import Task

_ALL = (
    train_action.TASK,
    train_adding.TASK,
    train_chars.TASK,
    train_mnist.MNIST,
    train_mnist.PMNIST,
    train_ptb_char.TASK,
    train_ptb_word.TASK,
    train_skeleton.SKELETON,
    train_skeleton.NWUCLA,
    train_skeleton.HDM05,
    train_ntu.TASK,
)
TASKS: dict[str, Task] = {task.name: task for task in _ALL}
