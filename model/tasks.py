"""The table of tasks: the one line that each needs beside its own file."""

from model import train_action, train_chars, train_ntu, train_ptb_char, train_skeleton
from model.task import Task

TASKS: dict[str, Task] = {task.name: task for task in (train_action.TASK, train_chars.TASK, train_ptb_char.TASK)}
TASKS |= {task.name: task for task in (train_skeleton.SKELETON, train_skeleton.NWUCLA, train_skeleton.HDM05, train_ntu.TASK)}
