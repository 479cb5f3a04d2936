"""The table of cells: the one line that each needs beside its own file."""

from collections import ChainMap

from indrnn.model.cells.cell import Cell
from indrnn.model.cells.classic.deep import DeepInputRNN, DeepOutputRNN, DeepShortcutRNN, DeepTransitionRNN
from indrnn.model.cells.classic.goru import GORU
from indrnn.model.cells.classic.gru_before import ResetBeforeGRU
from indrnn.model.cells.classic.memory import Memory
from indrnn.model.cells.classic.peephole import PeepholeLSTM
from indrnn.model.cells.classic.scrn import SCRN
from indrnn.model.cells.classic.urnn import UnitaryRNN
from indrnn.model.cells.diagonal.hgrn import HGRN
from indrnn.model.cells.diagonal.lru import LRU
from indrnn.model.cells.diagonal.mingru import MinGRU
from indrnn.model.cells.diagonal.minlstm import MinLSTM
from indrnn.model.cells.diagonal.qrnn import QRNN
from indrnn.model.cells.diagonal.rglru import RGLRU
from indrnn.model.cells.diagonal.sru import SRU
from indrnn.model.cells.grid.table import LAYERS, Layers
from indrnn.model.cells.gru import GRU
from indrnn.model.cells.independent import Independent
from indrnn.model.cells.lstm import LSTM
from indrnn.model.cells.rnn import IRNN, PositiveDefiniteRNN, ReluRNN, TanhRNN

_ALL: tuple[type[Cell], ...] = (
    Independent,
    GRU,
    ResetBeforeGRU,
    LSTM,
    PeepholeLSTM,
    TanhRNN,
    ReluRNN,
    IRNN,
    PositiveDefiniteRNN,
    SCRN,
    UnitaryRNN,
    GORU,
    DeepInputRNN,
    DeepTransitionRNN,
    DeepShortcutRNN,
    DeepOutputRNN,
    MinGRU,
    MinLSTM,
    RGLRU,
    HGRN,
    SRU,
    QRNN,
    LRU,
)
# Cells that are a network of their own, of which no stack is made; so none is an option of other tasks.
_ALONE: tuple[type[Cell], ...] = (Memory,)
CELLS: dict[str, type[Cell]] = {cell.name: cell for cell in _ALL}


def described(name: str) -> type[Cell] | Layers:
    """Return what says on a card what a network is made of: a cell, or layers that look at whole pictures. Raises KeyError."""
    return ChainMap[str, type[Cell] | Layers]({**LAYERS}, {**CELLS}, {cell.name: cell for cell in _ALONE})[name]
