"""Every session of the service, whichever engine has it or none: where it is, whose it is, how many there are and may be."""

import asyncio
import time

from indrnn.service.engine.quota import Quotas
from indrnn.service.errors import Gone, Overloaded, SequenceLimit, SessionLimit
from indrnn.service.session.ids import not_there
from indrnn.service.session.machine import KEPT, Session
from indrnn.service.store.protocol import Change, Store
from indrnn.service.store.refreshed import census_of

DELETE_TRIES = 16  # of a session that another process keeps moving; the fifth has always won


class Registry:
    """What the engines of one process share beside the store itself. Everything here runs on the event loop; the store blocks a thread.

    ttl: seconds that a session lives after its last step.
    """

    def __init__(self, store: Store, ttl: float, quotas: Quotas) -> None:
        self.quotas = quotas
        self.census = census_of(store)
        self._store = store
        self._ttl = ttl

    async def find(self, session_id: str, owner: str) -> Session:
        """Return an owner's session as the store has it. Raises UnknownSession, also for somebody else's, Gone, StoreFailed."""
        session = (await asyncio.to_thread(self._store.load, [session_id])).get(session_id)
        if session is not None and session.owner == owner:
            return session
        raise not_there(self._store.key, session_id, owner, somebody_elses=session is not None)

    async def find_living(self, session_id: str, owner: str) -> Session:
        """Return a session that no engine owns, as the store has it. Raises UnknownSession, Gone, StoreFailed."""
        session = await self.find(session_id, owner)
        if session.expires_at <= time.time():
            raise Gone("the session has expired")
        return session

    async def remove(self, session_id: str, owner: str) -> Session:
        """End a session that no engine owns, and return it.

        Raises UnknownSession, Gone, StoreFailed, Overloaded while another process moves it.
        """
        for lost in range(DELETE_TRIES):
            session = await self.find_living(session_id, owner)
            if not await asyncio.to_thread(self._store.commit, [Change(session, None, lost)]):
                return session
        raise Overloaded("another process keeps moving the session: try again")

    async def list(self, owner: str, limit: int) -> list[Session]:
        """Return an owner's living sessions, newest first. Raises StoreFailed."""
        return await asyncio.to_thread(self._store.list, owner, time.time(), limit)

    async def count_sequence(self, session_id: str, holder: str) -> bool:
        """Before a sequence begins: return whether it is one more. Raises SequenceLimit, StoreFailed; one that lives may begin anew.

        The store is asked, since elsewhere it may have ended: what is remembered here would let it in beside as many as are allowed.
        """
        if not self.quotas.counts_sessions:
            return False
        there = (await asyncio.to_thread(self._store.load, [session_id])).get(session_id)
        if there is not None and not there.ended and there.expires_at > time.time():
            return False
        horizon = KEPT if self._ttl > 2 * KEPT else 0.0  # the ended ones, which are kept for so long, do not count
        try:
            await self.quotas.new_session(holder, horizon)
        except SessionLimit as error:
            raise SequenceLimit(error.detail, retry_after=error.extra.get("retry_after")) from None
        return True
