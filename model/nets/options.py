"""Words on the options that several networks have, each written once: metadata of their configurations' fields."""

HIDDEN = {"help": "neurons H of a layer"}
LAYERS = {"help": "IndRNN layers"}
BOUND = {"help": "largest |u|: below 1 a stream may be endless"}
DROPOUT = {"help": "after each layer, one mask for all steps"}
READOUT_DROPOUT = {"help": "before the last product"}
NORM = {"help": "batch norm"}
CLASSES = {"help": "answers K"}
