"""The table of tasks: the one line that each needs beside its own file."""

from model import train_action, train_adding, train_chars, train_mnist, train_ntu, train_ptb_char, train_ptb_word, train_skeleton
from model.task import Task

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
