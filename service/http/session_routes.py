"""Define the routes of sessions: open, look, list, delete, download, upload, fork, reset, rewind, mark."""

from datetime import UTC, datetime
from typing import Any

from fastapi import APIRouter, Query, Request, Response
from starlette.responses import JSONResponse

from indrnn.service.errors import BadInput, said
from indrnn.service.http import schema
from indrnn.service.http.routes import JSON, problems
from indrnn.service.serving.request import MAX_STEP, aside, boolean, integer, only, raw_body, read_body
from indrnn.service.serving.services import Services
from indrnn.service.session import state_file
from indrnn.service.session.machine import History, Session
from indrnn.service.settings import Settings

LISTED = 1_000  # sessions of one answer
MAX_MARK = 64  # characters of a mark
BYTES = "application/octet-stream"

_FILE = {BYTES: {"schema": {"type": "string", "format": "binary", "description": "safetensors, as docs/state.md describes"}}}
_UPLOAD: dict[str, Any] = {"requestBody": {"required": True, "content": _FILE}}
_OPEN: dict[str, Any] = {
    "requestBody": {"required": True, "content": {JSON: {"schema": {"$ref": "#/components/schemas/OpenRequest"}}, **_FILE}}
}
_REWIND: dict[str, Any] = {"requestBody": {"required": True, "content": {JSON: {"schema": {"$ref": "#/components/schemas/RewindBody"}}}}}
_MARK: dict[str, Any] = {"requestBody": {"required": True, "content": {JSON: {"schema": {"$ref": "#/components/schemas/MarkBody"}}}}}
_DOWNLOAD: dict[int | str, dict[str, Any]] = {200: {"description": "the state, with a file name", "content": _FILE}}
_NAMED = (401, 404, 409, 410, 503)  # what may be wrong wherever a session is named


def session_info(session: Session) -> dict[str, object]:
    """Return a session as the API shows it; of one that keeps states also which."""
    return _listed(session) if session.history is None else {**_listed(session), **_kept(session, session.history)}


def _made(session: Session) -> Response:
    """Return the answer that a session was made, whose id routers find in its headers."""
    return JSONResponse(session_info(session), 201, {"x-session-id": session.id})


def _kept(session: Session, history: History) -> dict[str, object]:
    return {"keep": history.keep, "kept": [*history.steps, session.step], "marks": dict(history.marks)}


def _listed(session: Session) -> dict[str, object]:
    return {
        "session_id": session.id,
        "model": session.model,
        "version": session.version,
        "step": session.step,
        "position": session.position,
        "created_at": _time(session.created_at),
        "expires_at": _time(session.expires_at),
    }


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def build_session_router(services: Services) -> APIRouter:
    """Return the routes over the running service."""
    router = APIRouter(prefix="/sessions", tags=["sessions"])
    settings, served, access, sessions = services.settings, services.models, services.access, services.sessions

    @router.post(
        "",
        status_code=201,
        response_model=schema.SessionInfo,
        responses=problems(400, 401, 404, 408, 413, 415, 422, 429, 503),
        openapi_extra=_OPEN,
    )
    async def open_session(request: Request) -> Response:
        """Open a session at the start of a sequence, or, with a body of `application/octet-stream`, where a downloaded state stood.

        With `keep` the session keeps the states after its last steps, and can be rewound to them.
        """
        owner = access.owner_of(request.headers)
        if request.headers.get("content-type", "").partition(";")[0].strip().lower() == BYTES:
            file = await _state(request, settings)
            model = served.of_digest(file.digest, file.model, file.version)
            return _made(await sessions.open(model, owner, state_file.check(file, model.manifest)))
        body = await read_body(request, settings)
        only(body, ("model", "version", "keep"))
        if "model" not in body:
            raise BadInput("expected the name of a model, got nothing", field="model")
        keep = integer(body.get("keep"), "keep", 0, settings.max_keep, 0)
        return _made(await sessions.open(served.choose(body["model"], body.get("version")), owner, keep=keep))

    @router.get("", response_model=schema.SessionList, responses=problems(401, 422, 503))
    async def list_sessions(request: Request, limit: int = Query(100, ge=1, le=LISTED)) -> Response:
        """List the living sessions of the key that asks, newest first; a service without keys lists all sessions."""
        return JSONResponse({"sessions": [_listed(s) for s in await sessions.list(access.owner_of(request.headers), limit)]})

    @router.get("/{session_id}", response_model=schema.SessionInfo, responses=problems(*_NAMED))
    async def get_session(request: Request, session_id: str) -> Response:
        """Tell where a session stands. The request does not make the session live longer."""
        return JSONResponse(session_info(await sessions.look(session_id, access.owner_of(request.headers))))

    @router.delete("/{session_id}", status_code=204, responses=problems(*_NAMED))
    async def delete_session(request: Request, session_id: str) -> Response:
        """End a session and delete its state. A generate that is in flight ends with the session."""
        await sessions.delete(session_id, access.owner_of(request.headers))
        return Response(status_code=204)

    _add_moves(router, services)
    _add_rewind(router, services)
    return router


def _add_moves(router: APIRouter, services: Services) -> None:
    settings, access, sessions = services.settings, services.access, services.sessions

    @router.get("/{session_id}/state", response_class=Response, responses={**_DOWNLOAD, **problems(*_NAMED)})
    async def download(request: Request, session_id: str) -> Response:
        """Download the session's stored state, also while a step is in flight, and also when the session's model is no longer loaded."""
        session = await sessions.look(session_id, access.owner_of(request.headers))
        name = f"{session.model}-{session.version}-step{session.step}.safetensors"
        content = state_file.encode(session, services.models.state_size(session.digest))
        return Response(content, media_type=BYTES, headers={"Content-Disposition": f'attachment; filename="{name}"'})

    @router.put(
        "/{session_id}/state",
        response_model=schema.SessionInfo,
        responses=problems(400, 401, 404, 408, 409, 410, 413, 415, 422, 503),
        openapi_extra=_UPLOAD,
    )
    async def upload(request: Request, session_id: str) -> Response:
        """Replace the session's state by a downloaded one; the session then stands at the file's step and position.

        The request waits for the step in flight. The file holds no stored result: repeating the last step is answered `no_stored_reply`.
        """
        owner = access.owner_of(request.headers)
        model = await services.steps.model_of(session_id, owner)
        at = state_file.check(await _state(request, settings), model.manifest)
        return JSONResponse(session_info(await sessions.put(session_id, owner, at)))

    @router.post("/{session_id}/fork", status_code=201, response_model=schema.SessionInfo, responses=problems(*_NAMED, 429))
    async def fork(request: Request, session_id: str) -> Response:
        """Open a second session with this one's state and last result, after the step that is in flight."""
        return _made(await sessions.fork(session_id, access.owner_of(request.headers)))

    @router.post("/{session_id}/reset", response_model=schema.SessionInfo, responses=problems(*_NAMED))
    async def reset(request: Request, session_id: str) -> Response:
        """Put the session back to the start of a sequence, step 0 and position 0, after the step that is in flight."""
        return JSONResponse(session_info(await sessions.reset(session_id, access.owner_of(request.headers))))


def _add_rewind(router: APIRouter, services: Services) -> None:
    settings, access, sessions = services.settings, services.access, services.sessions

    @router.post(
        "/{session_id}/rewind",
        response_model=schema.RewoundInfo,
        responses=problems(400, 401, 404, 408, 409, 410, 413, 415, 422, 429, 503),
        openapi_extra=_REWIND,
    )
    async def rewind(request: Request, session_id: str) -> Response:
        """Put the session back to where it stood after an earlier step that is kept, or where a mark was set.

        A rewind is a step: it takes the next number, waits its turn, and a repeat of its number is answered from the stored result.
        """
        owner = access.owner_of(request.headers)
        body = await read_body(request, settings)
        only(body, ("step", "mark", "number"))
        if (body.get("step") is None) == (body.get("mark") is None):
            raise BadInput("expected either a step or a mark", field="step")
        to = _mark_name(body["mark"]) if body.get("step") is None else integer(body["step"], "step", 0, MAX_STEP)
        number = None if body.get("number") is None else integer(body["number"], "number", 1, MAX_STEP)
        rewound = await sessions.rewind(session_id, owner, number, to)
        return JSONResponse({**session_info(rewound.session), "rewound_to": rewound.to})

    @router.post(
        "/{session_id}/mark",
        response_model=schema.SessionInfo,
        responses=problems(400, 401, 404, 408, 409, 410, 413, 415, 422, 503),
        openapi_extra=_MARK,
    )
    async def mark(request: Request, session_id: str) -> Response:
        """Name the step where the session stands, after what is in flight; its state is kept until the mark is moved or removed.

        Marking takes no step number and does not make the session live longer.
        """
        owner = access.owner_of(request.headers)
        body = await read_body(request, settings)
        only(body, ("mark", "remove"))
        remove = boolean(body.get("remove"), "remove")
        return JSONResponse(session_info(await sessions.mark(session_id, owner, _mark_name(body.get("mark")), remove)))


def _mark_name(value: object) -> str:
    if not isinstance(value, str) or not 1 <= len(value) <= MAX_MARK:
        raise BadInput(f"expected a name of 1 to {MAX_MARK} characters, got {said(value)}", field="mark")
    return value


async def _state(request: Request, settings: Settings) -> state_file.StateFile:
    data = await raw_body(request, settings)
    return await aside(state_file.decode, len(data), data)
