"""Words on the options that several networks have, each written once: metadata of their configurations' fields."""

from indrnn.model.cells.table import CELLS

HIDDEN = {"help": "neurons H of a layer"}
LAYERS = {"help": "recurrent layers"}
BOUND = {"help": "IndRNN: largest |u|; below 1 a stream may be endless"}
DROPOUT = {"help": "after each layer, one mask for all steps"}
READOUT_DROPOUT = {"help": "before the last product"}
NORM = {"help": "batch norm"}
CLASSES = {"help": "answers K"}
KIND = "stack of layers (model/cells/stacks.py)"
WINDOW = {"help": "subsampled: outputs of the layer below that are read at once"}
CELL = {"choices": CELLS, "help": "what the layers are made of"}
