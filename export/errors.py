"""Why an export is refused.

ExportError
├── AdoptError
└── GraphError
"""


class ExportError(Exception):
    """No bundle is written; the message says what was expected and what came, in one line."""


class GraphError(ExportError):
    """The exported graph is not the model it should be."""


class AdoptError(ExportError):
    """A file is not adopted; the message names the tensor and what would help."""
