"""The chars task: two books in many layouts, or anybody's text as it is, character by character."""

import dataclasses
import sys
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import lightning
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm  # type: ignore[import-untyped]  # Lightning's bar is one

from indrnn.model.data import sets, text
from indrnn.model.data.texts import own_text, typeset
from indrnn.model.data.texts.typeset import UNKNOWN, PageLayout
from indrnn.model.nets.chars import CharsConfig, CharsNet
from indrnn.model.nets.network import StateNet
from indrnn.model.tasks import warm_start
from indrnn.model.training.checkpoint import Meta, load_trained
from indrnn.model.training.measure import bits_per_char
from indrnn.model.training.stream_learner import Batches, StreamLearner, StreamRecipe, written
from indrnn.model.training.task import Figures, Job, Task, figure
from indrnn.model.training.training import RunError

MILLION = 1_000_000
RARE = 1e-3  # a symbol that is less of the text than this, and no letter, may be missing from an alphabet
GLANCE = 40_000  # characters of a book's part that a look during training measures, in each layout
LOOK = 160_000  # characters of a text of one's own that it measures
SHOWN = 300  # characters that the network writes then
PASSAGE = 12_000  # characters that are set in each width and compared
WIDTHS = (70, 100, 120, 200, None)
LAYOUTS = {
    "": ("as printed", PageLayout()),
    "_120": ("lines of 120", PageLayout(width=120)),
    "_paragraphs": ("a line for each paragraph", PageLayout(width=None)),
    "_one_line": ("one line", PageLayout(width=typeset.WHOLE)),
    "_typographic": ("lines of 100, typographic marks", PageLayout(width=100, quotes=("“", "”", "‘", "’"), dash="—", ellipsis="…")),
    "_indented": (
        "indented, lines of 64, two blanks between sentences, quotes of a typewriter",
        PageLayout(width=64, indent="  ", gap="  ", quotes=("`", "'", "'", "'")),
    ),
}
MEASURED = {"shakespeare": ("", "_one_line"), "war_and_peace": tuple(LAYOUTS)}  # each character of it takes as long as any other
BOOKS = (sets.SHAKESPEARE, sets.WAR_AND_PEACE)
ALICE = "text/alice.txt.gz"  # never trained or selected on


@dataclass(frozen=True)
class CharsRecipe(StreamRecipe):
    """layouts: whether the two books change their layout. begin_with: a bundle whose weights training begins with.

    text: files to learn from in place of the books; title, terms: what the card says of them.
    """

    layouts: bool = field(
        default=False, metadata={"help": "the two books in many layouts, with a symbol for what they lack; off: as printed"}
    )
    begin_with: str = field(default="", metadata={"help": "a bundle of text, bundles/<name>/<version>, whose weights it begins with"})
    text: tuple[str, ...] | str = field(default="", metadata={"nargs": "+", "help": "files to learn from, in place of the two books"})
    title: str = field(default="", metadata={"help": "whose text it is, for the card"})
    terms: str = field(default="", metadata={"help": "on what terms it may be used, for the card"})


class TextLearner(StreamLearner):
    """Learns from streams of text. validation: name -> symbols to measure on; out: folder where samples.txt shows what it writes."""

    def __init__(
        self,
        config: CharsConfig,
        recipe: StreamRecipe,
        alphabet: str,
        streams: Batches,
        validation: Mapping[str, NDArray[np.int64]],
        job: Job,
    ) -> None:
        super().__init__(CharsNet(config), recipe, np.zeros(0, np.int64), job.seed, streams, config.classes - 1 if config.unknown else None)
        self.alphabet, self.validation, self.job = alphabet, validation, job

    def validate(self) -> dict[str, float]:
        """Return bits per character of each part; the network also writes some characters."""
        folded = self.folded()
        unsaid = self.unread if self.unread >= 0 else None
        text_written = written(folded, self.alphabet, SHOWN, self.global_step, unsaid)
        with (self.job.out / "samples.txt").open("a", encoding="utf-8") as file:
            file.write(f"--- step {self.global_step}\n{text_written}\n")
        if self.job.progress:
            tqdm.write(text_written, file=sys.stderr)
        return {name: bits_per_char(folded, x, rows=_rows(len(x)), unread=self.unread) for name, x in self.validation.items()}


class CharsLearner(StreamLearner):
    """Learns from the training parts of some texts, joined, as they are; each text has a validation part of its own."""

    def __init__(self, config: CharsConfig, recipe: StreamRecipe, alphabet: str, parts: dict[str, dict[str, str]], seed: int) -> None:
        joined = np.concatenate([text.encode(p["train"], alphabet) for p in parts.values()])
        super().__init__(CharsNet(config), recipe, joined, seed)
        self.validation = {name: text.encode(p["val"], alphabet) for name, p in parts.items()}

    def validate(self) -> dict[str, float]:
        """Bits per character of each text's validation part."""
        folded = self.folded()
        return {f"val_bpc_{name}": bits_per_char(folded, symbols, rows=16) for name, symbols in self.validation.items()}


def _rows(characters: int) -> int:
    """Return into how many pieces a text is cut to be measured: each cut costs the bits of a start."""
    return 16 if characters > 100_000 else max(1, min(4, characters // 2_000))


def begin(job: Job, config: dict[str, Any], recipe: StreamRecipe) -> tuple[StreamLearner, Meta]:
    """Reads the books, or the files that the recipe names. Raises TextFileError, DataMissingError, CheckpointError, RunError."""
    recipe = recipe if isinstance(recipe, CharsRecipe) else CharsRecipe(**dataclasses.asdict(recipe))
    config = config | {"norm": not recipe.online}
    how = _begin_with_own if recipe.text else _begin_in_layouts if recipe.layouts else _begin_as_printed
    learner, meta = how(job, config, recipe)
    if job.resume:
        before = load_trained(job.out / "model.pt")[1]
        if (before.alphabet, before.clips) != (meta.alphabet, meta.clips):
            raise RunError(f"{job.out}: expected to go on with the same text, {_named(before)}, got {_named(meta)}")
    elif recipe.begin_with:
        assert isinstance(learner.net, CharsNet), "every learner of this task has one"
        batches = [learner.streams.batch(k)[0] for k in range(0, 640, 16)]
        warm_start.begin_(learner.net, meta.alphabet or "", Path(recipe.begin_with), batches)
        learner.averaged.load_state_dict(learner.net.state_dict())
    return learner, meta


def _named(meta: Meta) -> str:
    return f"{', '.join(d['name'] for d in meta.data)} ({len(meta.alphabet or '')} symbols)"


def _begin_in_layouts(job: Job, config: dict[str, Any], recipe: CharsRecipe) -> tuple[TextLearner, Meta]:
    """The alphabet is that of the training parts, what layouts add, and a place for all others."""
    parts = {name: text.read(name) for name in text.TEXTS}
    train = "\n\n".join(p["train"] for p in parts.values())
    alphabet = text.alphabet_of([train, typeset.TYPOGRAPHIC]) + UNKNOWN
    count = Counter(train)
    rare = "".join(c for c in alphabet[:-1] if count[c] < RARE * len(train) and not ("a" <= c.lower() <= "z"))
    lightning.seed_everything(job.seed, verbose=False)
    streams = typeset.LayoutStreams(train, {c: i for i, c in enumerate(alphabet)}, rare, recipe.rows, recipe.length, job.seed)
    validation = {
        f"val_bpc_{name}{layout}": text.encode_all(typeset.typeset(p["val"][:GLANCE], how), alphabet, UNKNOWN)
        for name, p in parts.items()
        for layout, (_, how) in LAYOUTS.items()
    }
    learner = TextLearner(CharsConfig(classes=len(alphabet), unknown=True, **config), recipe, alphabet, streams, validation, job)
    return learner, _meta(job, alphabet, BOOKS, {})


def _begin_as_printed(job: Job, config: dict[str, Any], recipe: CharsRecipe) -> tuple[CharsLearner, Meta]:
    """The books as they are printed, and the symbols of their training parts alone."""
    parts = {name: text.read(name) for name in text.TEXTS}
    alphabet = text.alphabet_of([p["train"] for p in parts.values()])
    lightning.seed_everything(job.seed, verbose=False)
    learner = CharsLearner(CharsConfig(classes=len(alphabet), **config), recipe, alphabet, parts, job.seed)
    return learner, dataclasses.replace(_meta(job, alphabet, BOOKS, {}), told={})


def _begin_with_own(job: Job, config: dict[str, Any], recipe: CharsRecipe) -> tuple[TextLearner, Meta]:
    own = own_text.read([Path(path) for path in recipe.text], job.out)
    lightning.seed_everything(job.seed, verbose=False)
    streams = text.Streams(own.train, recipe.rows, recipe.length, len(own.alphabet) - 1, job.seed)
    sizes = CharsConfig(classes=len(own.alphabet), unknown=True, **config)
    learner = TextLearner(sizes, recipe, own.alphabet, streams, {"val_bpc": own.val[:LOOK]}, job)
    names = ", ".join(Path(path).name for path in recipe.text)
    described = {
        "name": recipe.title or names,
        "terms": recipe.terms or "not stated",
        "citation": f"{names}, {sum(own.characters):,} characters, given by who trained it",
    }
    return learner, _meta(job, own.alphabet, (described,), {"text": tuple(recipe.text), "characters": own.characters})


def _meta(job: Job, alphabet: str, data: tuple[dict[str, str], ...], source: dict[str, Any]) -> Meta:
    return Meta("chars", job.command, job.seed, job.steps, alphabet=alphabet, data=data, clips=source, told={"unknown": UNKNOWN})


ONE_PASS = "one pass, running statistics, from a zero state, every character scored before it is read"


def figures(net: StateNet, meta: Meta, split: str) -> Figures:
    """Bits per character of each text's part, of a book's in each layout, and of a novel's after a million characters before."""
    if meta.clips:
        return _own_figures(net, meta, split)
    many = UNKNOWN in (meta.alphabet or "")
    texts = {name: text.read(name) for name in text.TEXTS}
    measured = []
    for name, parts in texts.items():
        for layout in MEASURED[name] if many else ("",):
            how, setting = LAYOUTS[layout]
            x = parts[split] if setting == PageLayout() else typeset.typeset(parts[split], setting)
            protocol = f"{split} part of the text{', ' + how if layout else ''}, {ONE_PASS}"
            measured.append((f"{name}{layout}", _bits(net, meta, x), protocol))
    novel = texts["war_and_peace"]
    if not many:
        late = _bits(net, meta, novel[split], before=novel["train"][:MILLION])
        measured.append(
            ("war_and_peace_late", late, f"{split} part of the text, {ONE_PASS}, after a million characters of the training part")
        )
    else:
        widths = [_bits(net, meta, typeset.typeset(novel[split][:PASSAGE], PageLayout(width=w))) for w in WIDTHS]
        how = (
            f"{PASSAGE} characters of the {split} part in lines of 70, 100, 120 and 200 and in paragraphs without: the most less the least"
        )
        measured.append(("war_and_peace_spread", max(widths) - min(widths), f"{how}, {ONE_PASS}"))
    if split == "test" and many:
        measured += _alice(net, meta)
    return tuple(figure(f"{split}_bpc_{name}", bits, "bits per character", how) for name, bits, how in measured)


def _alice(net: StateNet, meta: Meta) -> list[tuple[str, float, str]]:
    """Return figures of a book by another author, as it is printed and reflowed; none where it is not at hand."""
    try:
        whole = text.read_whole(ALICE)
    except sets.DataMissingError:
        return []
    left = sum(c not in (meta.alphabet or "") for c in whole)
    protocol = f"L. Carroll, Alice's Adventures in Wonderland, all of it, neither trained nor selected on; {ONE_PASS}"
    protocol += f", but {left} that the alphabet lacks, which are read and not scored" if left else ""
    reflowed = "\n\n".join(" ".join(p.split()) for p in whole.split("\n\n") if p.strip())
    return [
        ("alice", _bits(net, meta, whole), protocol),
        ("alice_paragraphs", _bits(net, meta, reflowed), f"{protocol}; a line for each paragraph"),
    ]


def _bits(net: StateNet, meta: Meta, x: str, before: str = "") -> float:
    alphabet = meta.alphabet or ""
    if UNKNOWN not in alphabet:
        return bits_per_char(net, text.encode(x, alphabet), before=text.encode(before, alphabet) if before else None)
    earlier = text.encode_all(before, alphabet, UNKNOWN) if before else None
    return bits_per_char(net, text.encode_all(x, alphabet, UNKNOWN), before=earlier, unread=alphabet.index(UNKNOWN))


def _own_figures(net: StateNet, meta: Meta, split: str) -> Figures:
    own = own_text.read([Path(path) for path in meta.clips["text"]], None)
    if (own.alphabet, own.characters) != (meta.alphabet, meta.clips["characters"]):
        raise own_text.TextFileError(f"{', '.join(meta.clips['text'])}: expected the text that was learned from, got another")
    x = own.val if split == "val" else own.test
    which = "the last 5 %" if split == "test" else "the 5 % before the last 5"
    protocol = f"{which} of each file, at most {own_text.MEASURED:,} characters of it, {len(x):,} in all; {ONE_PASS}"
    bits = bits_per_char(net, x, unread=len(own.alphabet) - 1)
    return (figure(f"{split}_bpc", bits, "bits per character", protocol),)


SUMMARY = "characters of Shakespeare and of War and Peace, or of texts of your own"
TASK = Task(
    "chars",
    CharsConfig,
    CharsRecipe,
    begin,
    figures,
    "test_bpc_war_and_peace",
    SUMMARY,
    steps=12000,
    decay=4500,
    given=frozenset({"classes", "unknown"}),
)
