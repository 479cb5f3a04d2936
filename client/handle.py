"""What a session and a text show of themselves, in both shells."""

from indrnn.client.answers import Pending
from indrnn.client.conversation import Conversation, Emission


class SessionHandle:
    """A session as its user sees it."""

    def __init__(self, conversation: Conversation) -> None:
        self._conversation = conversation

    @property
    def id(self) -> str:
        """Keep it to go on later, from anywhere."""
        return self._conversation.session_id or ""

    @property
    def model(self) -> str:
        """Return the name of the session's model."""
        return self._conversation.model

    @property
    def version(self) -> str:
        """Return the version of the session's model."""
        return self._conversation.version

    @property
    def number(self) -> int:
        """Return the number of the last step."""
        return self._conversation.step

    @property
    def position(self) -> int:
        """Return the number of frames or characters consumed."""
        return self._conversation.position

    @property
    def pending(self) -> Pending | None:
        """A generate that had been cut when the session was opened: `generate` with its options and `number` goes on."""
        return self._conversation.pending


class GenerationHandle:
    """A generate as its user sees it. Each character is in `text` once the session has consumed it."""

    def __init__(self, wish: dict[str, object], number: int | None, timeout: float | None) -> None:
        self._wish = wish
        self._number = number
        self._timeout = timeout
        self._emission: Emission | None = None  # nothing is sent before somebody iterates

    @property
    def text(self) -> str:
        """Return the text that was drawn so far."""
        return "" if self._emission is None else self._emission.text

    @property
    def reason(self) -> str | None:
        """`length`, `stop` or `cancelled`; None before the end."""
        return None if self._emission is None else self._emission.reason
