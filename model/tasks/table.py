"""The table of tasks: the one line that each needs beside its own file."""

from indrnn.model.tasks import action, adding, chars, detect, mnist, motions, ntu, ptb_char, ptb_word, skeleton, tensor
from indrnn.model.tasks.drawn import copying, stories
from indrnn.model.tasks.pictures import images, strokes
from indrnn.model.training.task import Task

_ALL = (
    action.TASK,
    motions.TASK,
    adding.TASK,
    chars.TASK,
    copying.TASK,
    detect.TASK,
    images.TASK,
    mnist.MNIST,
    mnist.PMNIST,
    ptb_char.TASK,
    ptb_word.TASK,
    skeleton.SKELETON,
    skeleton.NWUCLA,
    skeleton.HDM05,
    ntu.TASK,
    strokes.TASK,
    stories.TASK,
    tensor.TASK,
)
TASKS: dict[str, Task] = {task.name: task for task in _ALL}
