"""Words on the options that several recipes have, each written once: metadata of their fields."""

SEQUENCES = {"help": "sequences of a batch"}
ALIKE = {"help": "batches drawn at once and sorted by length"}
BALANCED = {"help": "every class as often as any other"}
SMOOTHING = {"help": "of the labels"}
ONLINE = {"help": "the exact gradient of the whole stream so far, without a horizon (docs/online.md)"}
FACING = {"help": "show bodies from their own side too; takes joints with names"}
CLIPS = {"help": "the clips, under INDRNN_DATA"}
