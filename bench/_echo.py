"""python bench/_echo.py PORT: what nobody can beat who serves WebSockets with FastAPI, a bare echo."""

import sys

import uvicorn
from fastapi import FastAPI, WebSocket, WebSocketDisconnect

app = FastAPI()


@app.websocket("/echo")
async def echo(ws: WebSocket) -> None:
    await ws.accept()
    try:
        while True:
            await ws.send_text(await ws.receive_text())
    except WebSocketDisconnect:
        pass


@app.get("/health/live")
async def live() -> dict[str, str]:
    return {}


if __name__ == "__main__":
    port = int(sys.argv[1])
    uvicorn.run(app, port=port, log_level="error", access_log=False, ws="websockets-sansio", ws_per_message_deflate=False)
