"""Sessions as every protocol sees them, beside their steps: opened, looked at, moved, forked and ended."""

from collections.abc import Awaitable, Callable
from typing import TypeVar

from indrnn.service.engine.requests import (
    CancelRequest,
    ClientProtocol,
    CreateRequest,
    DeleteRequest,
    ForkRequest,
    ImportRequest,
    LookRequest,
    MarkRequest,
    ResetRequest,
)
from indrnn.service.errors import ModelGone, ServiceError, StoreFailed
from indrnn.service.serving.models import ServedModel
from indrnn.service.serving.steps import StepRouter, rewind_step
from indrnn.service.session.machine import Generated, Result, Rewound, Session, Snapshot

R = TypeVar("R")


class Sessions:
    """Opens, looks, moves, forks and ends. `owner` is whose key the client holds; without keys it is empty."""

    def __init__(self, steps: StepRouter) -> None:
        self._steps = steps
        self._registry = steps.registry

    async def open(
        self, model: ServedModel, owner: str, at: Snapshot | None = None, protocol: ClientProtocol = "http", keep: int = 0
    ) -> Session:
        """Open a new session, stored: at the start of a sequence, or where a downloaded one stood. Raises SessionLimit.

        keep: how many states after earlier steps it keeps. Raises BadInput where the model has no stream.
        """
        model.need_stream()
        made = await self._make(owner, 1 + keep, lambda: self._steps.ask(model, CreateRequest(owner, at, protocol, keep)))
        self._steps.remember(made.session.id, model, owner)
        return made.session

    async def fork(self, session_id: str, owner: str) -> Session:
        """Make a second session that stands where this one does, stored. Waits for what is in flight. Raises SessionLimit, ModelGone."""
        model = await self._steps.model_of(session_id, owner)
        request = ForkRequest(session_id, owner)
        keep = (await self._registry.find(session_id, owner)).keep if self._registry.quotas.counts_sessions else 0
        made = await self._make(
            owner, 1 + keep, lambda: self._steps.where_it_runs(session_id, owner, model, lambda on: self._steps.ask(on, request))
        )
        self._steps.remember(made.session.id, self._steps.route(session_id) or model, owner)
        return made.session

    async def _make(self, owner: str, weight: int, make: Callable[[], Awaitable[R]]) -> R:
        """Make a session where its owner may have one more, and the states that it keeps."""
        quotas = self._registry.quotas
        await quotas.new_session(owner, weight=weight)
        try:
            return await make()
        except BaseException:
            quotas.session_ended(owner, weight)
            raise

    async def reset(self, session_id: str, owner: str) -> Session:
        """Put the session back at the start of a sequence, stored. Waits for what is in flight. Raises ModelGone."""
        return await self._place(session_id, owner, ResetRequest(session_id, owner))

    async def put(self, session_id: str, owner: str, at: Snapshot) -> Session:
        """Put the session where a downloaded one stood, stored. Waits for what is in flight. Raises ModelGone."""
        return await self._place(session_id, owner, ImportRequest(session_id, owner, at))

    async def _place(self, session_id: str, owner: str, request: ImportRequest | ResetRequest) -> Session:
        placed = await self._where_it_runs(session_id, owner, lambda model: self._steps.ask(model, request))
        return placed.session

    async def rewind(self, session_id: str, owner: str, number: int | None, to: int | str) -> Rewound:
        """Go back to the state after a step, or to a mark, stored: a step like any other, and charged as one. Raises NotKept, ModelGone."""
        self._steps.charge(owner)
        request = rewind_step(session_id, owner, number, to)
        return await self._where_it_runs(session_id, owner, lambda model: self._steps.ask(model, request))

    async def mark(self, session_id: str, owner: str, name: str, remove: bool) -> Session:
        """Name the present step, stored, or take the name away. Waits for what is in flight. Raises NotKept, MarkLimit, ModelGone."""
        request = MarkRequest(session_id, owner, name, remove)
        return (await self._where_it_runs(session_id, owner, lambda model: self._steps.ask(model, request))).session

    async def look(self, session_id: str, owner: str, in_order: bool = False) -> Session:
        """Return the session as it stands; in order: after what is in flight or waits. Raises UnknownSession, Gone."""
        request = LookRequest(session_id, owner, in_order)
        try:
            return (await self._where_it_runs(session_id, owner, lambda model: self._steps.ask(model, request))).session
        except ModelGone:
            return await self._registry.find_living(session_id, owner)  # it cannot step, but it is still the client's

    async def cancel(self, model: ServedModel, session_id: str, owner: str, number: int | None) -> Result[Generated] | None:
        """End a generate; None where there was none to end."""
        return await self._steps.ask(model, CancelRequest(session_id, owner, number))

    async def delete(self, session_id: str, owner: str) -> None:
        """End a session. Raises UnknownSession, Gone."""
        request = DeleteRequest(session_id, owner)
        try:
            keep = (await self._where_it_runs(session_id, owner, lambda model: self._steps.ask(model, request))).keep
        except ModelGone:
            keep = (await self._registry.remove(session_id, owner)).keep
        else:
            self._steps.leave_route(session_id)
        self._registry.quotas.session_ended(owner, 1 + keep)

    async def list(self, owner: str, limit: int) -> list[Session]:
        """Return an owner's living sessions, newest first."""
        return await self._registry.list(owner, limit)

    async def runs_on(self, model: ServedModel, session_id: str, owner: str) -> bool:
        """Whether a session runs on a model, or will by what is in flight or waits there; also where there is none. Raises StoreFailed."""
        try:
            await self._steps.ask(model, LookRequest(session_id, owner, in_order=True))
        except StoreFailed:
            raise
        except ServiceError as error:
            return not isinstance(error, ModelGone)
        return True

    async def _where_it_runs(self, session_id: str, owner: str, act: Callable[[ServedModel], Awaitable[R]]) -> R:
        model = await self._steps.model_of(session_id, owner)
        return await self._steps.where_it_runs(session_id, owner, model, act)

    # --- sequences of the Open Inference Protocol, which count as sessions ----------------------------------------------------------------

    def sequence_left(self, session_id: str, holder: str, model: ServedModel, counted: bool) -> None:
        """After a sequence has not begun, or has ended with its first step: where it is, if anywhere, is for the store to say."""
        self._steps.leave_route(session_id, model)
        if counted:
            self._registry.quotas.session_ended(holder)

    def sequence_ended(self, session_id: str, holder: str, model: ServedModel) -> None:
        """After the answer to a step that ends one, of which only the first makes room: a repeat finds no route."""
        if self._steps.leave_route(session_id, model):
            self._registry.quotas.session_ended(holder)
