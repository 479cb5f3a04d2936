"""`indrnn train TASK`: trains, keeps what it needs to go on (last.ckpt) and what it has learned so far (model.pt)."""

import ctypes
import dataclasses
import os
import shlex
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import Callback, ModelCheckpoint, TQDMProgressBar
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_only

from indrnn.model.training import checkpoint
from indrnn.model.training.learner import Learner
from indrnn.model.training.lightning_messages import quiet
from indrnn.model.training.optimisation.optimisers import OPTIMISERS
from indrnn.model.training.task import Job


class RunError(Exception):
    """A run cannot begin or go on as asked; the message names its folder and what would work."""


class StoppedError(Exception):
    """Somebody stopped the run; the message says how it goes on."""


def check_folder(job: Job) -> None:
    """Nothing is overwritten, and nothing is gone on from that is not there. Raises RunError."""
    last = job.out / "last.ckpt"
    for folder in (job.out, *job.out.parents):
        if folder.exists():
            if not folder.is_dir():
                raise RunError(f"{folder}: expected a folder, got a file")
            if not os.access(folder, os.W_OK):
                raise RunError(f"{folder}: nothing can be written there")
            break
    if not job.resume and last.exists():
        raise RunError(f"{job.out} holds a run already: --resume goes on with it, --out takes another folder")
    if job.resume and not last.exists():
        raise RunError(f"{last}: there is no run to go on from")


def check_same(job: Job, learner: Learner[Any, Any], meta: checkpoint.Meta) -> None:
    """A resumed run goes on with the same network, data and seed, further than it has come. Raises RunError."""
    if not job.resume:
        return
    net, before = checkpoint.load_trained(job.out / "model.pt")
    pairs = {"network": unlike(net.config, learner.averaged.config), "seed": (before.seed, meta.seed), "held": (before.held, meta.held)}
    pairs["optimizer"] = (before.optimizer or "adamw", meta.optimizer or "adamw")
    for name, (old, new) in pairs.items():
        if old != new:
            raise RunError(f"{job.out}: expected to go on with the same {name}, {old}, got {new}")
    if before.steps > job.steps:
        raise RunError(f"{job.out}: expected at least the {before.steps} steps that are made, got --steps {job.steps}")


def unlike(before: Any, now: Any) -> tuple[Any, Any]:
    """Return what two configurations say where they differ, each as words; two of different classes as they are."""
    if type(before) is not type(now):
        return before, now
    names = [f.name for f in dataclasses.fields(now) if f.compare and getattr(before, f.name) != getattr(now, f.name)]
    old, new = (", ".join(f"{name} {getattr(config, name)}" for name in names) for config in (before, now))
    return old, new


class Work:
    """Minutes of work since the beginning of a run, resumed ones included: CPU time over threads.

    Not wall-clock time: a process that waits for a core, or is stopped for somebody's measurement, has not worked.
    """

    def __init__(self, before: float = 0.0) -> None:
        self.begin, self.before, self.began = time.process_time(), before, time.monotonic()

    def minutes(self) -> float:
        """Return the minutes of work so far, those before this process included."""
        return self.before + self.here()

    def clock(self) -> float:
        """Return the minutes by the clock since this process began to train."""
        return (time.monotonic() - self.began) / 60

    def here(self) -> float:
        """Return the minutes of work of this process alone."""
        return (time.process_time() - self.begin) / torch.get_num_threads() / 60


class Bar(TQDMProgressBar):
    """One progress bar for all steps: epoch of epochs, time left, the loss and the last figure on validation data."""

    def on_train_epoch_start(self, trainer: lightning.Trainer, *_: Any) -> None:
        """Lightning's hook: the first one begins the bar, which the others go on with."""
        bar, epochs = self.train_progress_bar, -(-trainer.max_steps // max(1, int(self.total_train_batches)))
        if bar.total is None:
            bar.reset(trainer.max_steps)
            bar.initial = bar.n = bar.last_print_n = trainer.global_step
        bar.set_description(f"epoch {trainer.current_epoch + 1} of {epochs}")

    def on_train_batch_end(self, trainer: lightning.Trainer, learner: Any, *_: Any) -> None:
        """Lightning's hook: moves the bar to the step."""
        bar, step = self.train_progress_bar, trainer.global_step
        if step % self.refresh_rate == 0 or step == trainer.max_steps:
            bar.update(step - bar.n)
            bar.set_postfix(self.get_metrics(trainer, learner))

    def get_metrics(self, *of: Any) -> dict[str, Any]:
        """Return the figures beside the bar: without Lightning's number of the version, of which there is one."""
        found = {name: value for name, value in super().get_metrics(*of).items() if name != "v_num"}
        return found | {name: f"{value:.3f}" for name, value in getattr(of[-1], "shown", {}).items()}


class Stop(Callback):
    """Ends training at the first epoch's end after so many minutes of work, or by the clock."""

    def __init__(self, work: Work, minutes: float | None, clock: float | None) -> None:
        self.work, self.limit, self.clock = work, minutes, clock

    def on_train_epoch_end(self, trainer: lightning.Trainer, learner: Any) -> None:
        """Lightning's hook; an epoch's end is where last.ckpt is written."""
        over = self.limit is not None and self.work.here() >= self.limit
        over = over or (self.clock is not None and self.work.clock() >= self.clock)
        trainer.should_stop = trainer.should_stop or trainer.strategy.reduce_boolean_decision(over, all=False)  # processes stop together


class Keeper(Callback):
    """Every so many epochs measures the averaged weights, writes them to out/model.pt and a line to out/log.txt and TensorBoard."""

    def __init__(self, job: Job, meta: checkpoint.Meta, work: Work) -> None:
        self.job, self.meta, self.work = job, meta, work

    def on_train_epoch_end(self, trainer: lightning.Trainer, learner: Learner[Any, Any]) -> None:  # type: ignore[override]  # ours
        """Measure and keep the averaged weights when they are due; Lightning calls this hook."""
        last = trainer.global_step >= self.job.steps or trainer.should_stop
        if trainer.global_step // learner.recipe.epoch % self.job.validate_every and not last:
            return
        if not trainer.is_global_zero:
            return  # the first process measures; the others wait for it at the next step
        learner.settle()
        learner.shown = learner.validate()
        figures = {"loss": float(trainer.callback_metrics["loss"])} | learner.shown
        work = self.work.minutes()
        line = f"step {trainer.global_step} seconds {60 * work:.0f}" + "".join(f" {name} {value:.4f}" for name, value in figures.items())
        with (self.job.out / "log.txt").open("a") as log:
            log.write(line + "\n")
        for logger in trainer.loggers:
            logger.log_metrics(figures | {"work_minutes": work}, trainer.global_step)
        meta = dataclasses.replace(self.meta, steps=trainer.global_step, work=work)
        checkpoint.save(self.job.out / "model.pt", learner.averaged, meta)


def run(job: Job, learner: Learner[Any, Any], meta: checkpoint.Meta) -> Path:
    """Trains to the end (or to max_time) and returns the checkpoint's path, out/model.pt. Raises RunError."""
    if job.devices > 1 and not learner.parallel:
        raise RunError("expected --devices 1: this task carries its state from batch to batch, in one process")
    job.out.mkdir(parents=True, exist_ok=True)
    if learner.recipe.checkpoint_activations:
        return_memory()
    else:
        keep_memory()
    work = Work(checkpoint.load_trained(job.out / "model.pt")[1].work if job.resume else 0.0)
    with quiet(), no_denormals():
        try:
            trainer = _trainer(job, learner, Keeper(job, meta, work), work)
        except (MisconfigurationException, ValueError) as error:  # no such accelerator here, no such strategy or precision
            raise RunError(f"expected what Lightning can train with: {error}") from error
        if job.resume:
            _cut_log(job.out)
        _begin(job, learner)
        with _stopped(job, trainer):
            trainer.fit(learner, ckpt_path=job.out / "last.ckpt" if job.resume else None, weights_only=False)
        if trainer.global_step < job.steps:
            clock = f"{work.here():.1f} minutes of work, {work.clock():.1f} by the clock"
            _say(f"stopped after {trainer.global_step:,} of {job.steps:,} steps, {clock}: {_resume(job)} goes on")
    return job.out / "model.pt"


@rank_zero_only
def _say(*lines: str) -> None:
    print(*lines, sep="\n", file=sys.stderr, flush=True)


def _begin(job: Job, learner: Learner[Any, Any]) -> None:
    """Says what is trained on what."""
    weights = sum(p.numel() for p in learner.net.parameters())
    late = (
        [("note", f"warning: --decay {job.decay} of --steps {job.steps}: the rate never has its height")]
        if job.decay >= job.steps > 1
        else []
    )
    _say(*(f"{what:10} {words}" for what, words in (*learner.about, ("network", f"{weights:,} weights"), *late)))


def _resume(job: Job) -> str:
    return f"indrnn train --resume {shlex.quote(str(job.out))}"


@contextmanager
def _stopped(job: Job, trainer: lightning.Trainer) -> Iterator[None]:
    """Turns Ctrl-C into a sentence on how to go on. Raises StoppedError."""
    handler = signal.getsignal(signal.SIGINT)
    try:
        yield
    except (KeyboardInterrupt, SystemExit) as error:  # Lightning ends the process, and leaves the signal ignored
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, handler)
        if isinstance(error, SystemExit) and not trainer.interrupted:
            raise
        if not (job.out / "last.ckpt").is_file():
            raise StoppedError(f"stopped before the end of the first {trainer.num_training_batches} steps: nothing is kept yet") from None
        made = torch.load(job.out / "last.ckpt", map_location="cpu", weights_only=False)["global_step"]
        raise StoppedError(f"stopped; {made:,} of {job.steps:,} steps are kept: {_resume(job)} goes on") from None


@rank_zero_only
def _cut_log(out: Path) -> None:
    """Leaves of log.txt what last.ckpt knows of: a kill between the two files leaves a line of steps that will be made again."""
    log = out / "log.txt"
    if not log.is_file():
        return
    step = torch.load(out / "last.ckpt", map_location="cpu", weights_only=False)["global_step"]
    lines = log.read_text().splitlines(keepends=True)
    kept = [line for line in lines if line.endswith("\n") and int(line.split()[1]) <= step]
    if kept != lines:
        partial = log.with_suffix(".partial")
        partial.write_text("".join(kept))
        partial.replace(log)


def _trainer(job: Job, learner: Learner[Any, Any], keeper: Keeper, work: Work) -> lightning.Trainer:
    keeping = ModelCheckpoint(job.out, filename="last", every_n_epochs=1, save_on_train_epoch_end=True, enable_version_counter=False)
    stop = [Stop(work, job.max_time, job.max_wall_time)] if (job.max_time, job.max_wall_time) != (None, None) else []
    bar = [Bar(refresh_rate=20)] if job.progress else []
    return lightning.Trainer(
        accelerator=job.accelerator,
        devices=job.devices,
        strategy=job.strategy,
        precision=learner.recipe.precision,
        max_steps=job.steps,
        gradient_clip_val=None if OPTIMISERS[learner.recipe.optimizer].whole else learner.recipe.clip,  # a line search wants it as it is
        callbacks=[*stop, keeper, keeping, *bar],  # in this order: what stops says so before the others keep
        enable_progress_bar=job.progress,
        enable_model_summary=False,
        logger=TensorBoardLogger(job.out, name="", version="curves"),
        log_every_n_steps=learner.recipe.epoch,
        default_root_dir=job.out,
    )


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


@contextmanager
def no_denormals() -> Iterator[None]:
    """Takes numbers below 1e-38 for 0: gradients that vanish through time end in such, and a CPU is slow with them.

    Forward and backward at T = 500 of the adding problem's GRU took 602 ms, and so 161, of its tanh RNN 149 and 49.
    """
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(False)


def _mallopt(options: dict[int, int]) -> None:
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except AttributeError:  # another C library
        return
    for option, value in options.items():
        mallopt(option, value)
