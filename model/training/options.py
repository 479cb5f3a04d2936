"""Words on the options that several recipes have, each written once: metadata of their fields."""

SEQUENCES = {"help": "sequences of a batch"}
ALIKE = {"help": "batches drawn at once and sorted by length"}
BALANCED = {"help": "every class as often as any other"}
SMOOTHING = {"help": "of the labels"}
ONLINE = {"help": "the exact gradient of the whole stream so far, without a horizon (docs/online.md)"}
PICTURES = {"help": "pictures of a batch"}
SETTLING = {"help": "batches that the norms of the averaged weights are measured on"}
FACING = {"help": "show bodies from their own side too; takes joints with names"}
CLIPS = {"help": "the clips, under INDRNN_DATA"}
