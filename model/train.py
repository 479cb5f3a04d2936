"""`python -m model train TASK`: trains, keeps what it needs to go on (last.ckpt) and what it has learned so far (model.pt)."""

import ctypes
import dataclasses
import time
import warnings
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import lightning
from lightning.pytorch.callbacks import Callback, ModelCheckpoint, TQDMProgressBar

from model import checkpoint, data, skeletons, text
from model.action import ActionConfig
from model.chars import CharsConfig
from model.layouts import LAYOUTS
from model.learner import Learner
from model.train_action import ActionLearner, ActionRecipe
from model.train_chars import CharsLearner, CharsRecipe


@dataclass(frozen=True)
class Job:
    """What to train and where to put it. out: a folder; resume goes on from its last.ckpt; max_time: minutes after which to stop."""

    seed: int
    out: Path
    command: str
    steps: int
    decay: int
    resume: bool = False
    max_time: float | None = None
    validate_every: int = 10
    progress: bool = True


def chars(job: Job, config: dict[str, Any], recipe: dict[str, Any]) -> tuple[Learner[Any, Any], checkpoint.Meta]:
    """The chars task: its learner and all that its checkpoint will say."""
    parts = {name: text.read(name) for name in text.TEXTS}
    alphabet = text.alphabet_of([p["train"] for p in parts.values()])
    lightning.seed_everything(job.seed, verbose=False)
    sizes = CharsConfig(classes=len(alphabet), **config)
    learner = CharsLearner(sizes, CharsRecipe(steps=job.steps, decay=job.decay, **recipe), alphabet, parts, job.seed)
    sources = (data.SHAKESPEARE, data.WAR_AND_PEACE)
    return learner, checkpoint.Meta("chars", job.command, job.seed, job.steps, alphabet=alphabet, data=sources)


def action(job: Job, config: dict[str, Any], recipe: dict[str, Any], held: int) -> tuple[Learner[Any, Any], checkpoint.Meta]:
    """The action task; subject `held` of the training half is kept to select by; with 0 all are trained on: a recipe's last run."""
    clips, labels = skeletons.read()
    lightning.seed_everything(job.seed, verbose=False)
    sizes = ActionConfig(classes=len(labels), **config)
    train = skeletons.of_subjects(clips, set(skeletons.SUBJECTS["train"]) - {held})
    validation = skeletons.of_subjects(clips, set(skeletons.SUBJECTS["train"]) & {held})
    learner = ActionLearner(sizes, ActionRecipe(steps=job.steps, decay=job.decay, **recipe), train, validation, job.seed)
    meta = checkpoint.Meta("action", job.command, job.seed, job.steps, labels=labels, layout="utd20", layouts=LAYOUTS)
    return learner, dataclasses.replace(meta, persons=sizes.persons, hz=skeletons.HZ, held=held or None, data=(data.UTD_MHAD,))


class RunError(Exception):
    """A run cannot begin or go on as asked; the message names its folder and what would work."""


def check_folder(job: Job) -> None:
    """Nothing is overwritten, and nothing is gone on from that is not there. Raises RunError."""
    last = job.out / "last.ckpt"
    if not job.resume and last.exists():
        raise RunError(f"{job.out} holds a run already: --resume goes on with it, --out takes another folder")
    if job.resume and not last.exists():
        raise RunError(f"{last}: there is no run to go on from")


def check_same(job: Job, learner: Learner[Any, Any], meta: checkpoint.Meta) -> None:
    """A resumed run goes on with the same network, data and seed, further than it has come. Raises RunError."""
    if not job.resume:
        return
    net, before = checkpoint.load_trained(job.out / "model.pt")
    pairs = {"network": (net.config, learner.averaged.config), "seed": (before.seed, meta.seed), "held": (before.held, meta.held)}
    for name, (old, new) in pairs.items():
        if old != new:
            raise RunError(f"{job.out}: expected to go on with the same {name}, {old}, got {new}")
    if before.steps > job.steps:
        raise RunError(f"{job.out}: expected at least the {before.steps} steps that are made, got --steps {job.steps}")


class Keeper(Callback):
    """Every so many epochs measures the averaged weights, writes them to out/model.pt and a line to out/log.txt."""

    def __init__(self, job: Job, meta: checkpoint.Meta) -> None:
        self.job, self.meta, self.begin = job, meta, time.monotonic()

    def on_train_epoch_end(self, trainer: lightning.Trainer, learner: Learner[Any, Any]) -> None:  # type: ignore[override]  # ours
        """Lightning's hook."""
        last = trainer.global_step >= self.job.steps
        if (trainer.current_epoch + 1) % self.job.validate_every and not last:
            return
        figures = learner.validate()
        loss = float(trainer.callback_metrics["loss"])
        line = " ".join([f"step {trainer.global_step}", f"seconds {time.monotonic() - self.begin:.0f}", f"loss {loss:.4f}"])
        line += "".join(f" {name} {value:.4f}" for name, value in figures.items())
        with (self.job.out / "log.txt").open("a") as log:
            log.write(line + "\n")
        checkpoint.save(self.job.out / "model.pt", learner.averaged, dataclasses.replace(self.meta, steps=trainer.global_step))


def run(job: Job, learner: Learner[Any, Any], meta: checkpoint.Meta) -> Path:
    """Trains to the end (or to max_time) and returns the checkpoint's path, out/model.pt."""
    job.out.mkdir(parents=True, exist_ok=True)
    if learner.recipe.checkpoint_activations:
        return_memory()
    else:
        keep_memory()
    keeping = ModelCheckpoint(job.out, filename="last", every_n_epochs=1, save_on_train_epoch_end=True, enable_version_counter=False)
    bar = [TQDMProgressBar(refresh_rate=20)] if job.progress else []
    trainer = lightning.Trainer(
        accelerator="cpu",
        precision="bf16-mixed",
        max_steps=job.steps,
        max_time=None if job.max_time is None else timedelta(minutes=job.max_time),
        gradient_clip_val=learner.recipe.clip,
        callbacks=[Keeper(job, meta), keeping, *bar],
        enable_progress_bar=job.progress,
        enable_model_summary=False,
        logger=False,
        default_root_dir=job.out,
    )
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Checkpoint directory .* exists and is not empty")  # last.ckpt is replaced on purpose
        trainer.fit(learner, ckpt_path=job.out / "last.ckpt" if job.resume else None, weights_only=False)
    return job.out / "model.pt"


def keep_memory() -> None:
    """Tells glibc to keep freed memory: a step frees and takes back the same gigabyte, and page faults were 5/6 of its time."""
    trim_threshold, top_pad, mmap_max, arena_max = -1, -2, -4, -8
    _mallopt({mmap_max: 0, trim_threshold: 2**31 - 1, arena_max: 1, top_pad: 2**28})


def return_memory() -> None:
    """Tells glibc to give each freed array of 64 KiB and more back at once.

    By default the states that checkpointed pieces leave lie scattered between freed arrays: of a step in need of 25 MiB (T = 784, 6 x 128
    neurons, B = 32) the process took 353 MiB, and so 58.
    """
    mmap_threshold = -3
    _mallopt({mmap_threshold: 2**16})


def _mallopt(options: dict[int, int]) -> None:
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except AttributeError:  # another C library
        return
    for option, value in options.items():
        mallopt(option, value)
