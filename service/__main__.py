"""python -m service: serves the bundles. `openapi` prints openapi.yaml instead, `settings` the variables that can be set."""

import argparse
import gc
import logging
import sys
from types import FrameType

import orjson
import uvicorn

from export.bundle import BundleError
from service.app import Backend, create_app
from service.engine import EngineError
from service.oip.infer_http import InferHttp
from service.settings import Settings, SettingsError, read_settings, variable
from service.store import StoreError


def main() -> int:
    """The command. Returns 1 when the service cannot start, with one line that says why."""
    parser = argparse.ArgumentParser(prog="python -m service", description=__doc__)
    parser.add_argument("command", nargs="?", choices=["serve", "openapi", "settings"], default="serve")
    args = parser.parse_args()
    if args.command == "openapi":
        return _print_openapi()
    if args.command == "settings":
        return _print_settings()
    try:
        return _serve(read_settings())
    except (SettingsError, BundleError, EngineError, StoreError) as error:
        print(f"indrnn: {error}", file=sys.stderr)
        return 1


def _serve(settings: Settings) -> int:
    sys.setswitchinterval(5e-4)  # seconds the engine thread waits for the interpreter at most; Python's 5 ms would be a batch
    logging.basicConfig(level=settings.log_level.upper(), format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    backend = Backend.open(settings)
    app = create_app(settings, backend)
    config = uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        log_level=settings.log_level,
        access_log=False,
        http=InferHttp.of(app.state.oip),
        ws="websockets-sansio",
        ws_max_size=settings.max_drain,  # a longer message than max_body is answered, a longer one than this closes the connection
        ws_per_message_deflate=False,
        timeout_graceful_shutdown=10,
    )
    server = _Server(config, backend)
    gc.freeze()  # what start-up made stays; and frames are lists of lists, which would set off a collection every few messages
    gc.set_threshold(50_000, 20, 50)
    server.run()
    return 0 if server.started else 1


class _Server(uvicorn.Server):
    """Drains the engines at the signal, not after uvicorn has waited for its connections."""

    def __init__(self, config: uvicorn.Config, backend: Backend) -> None:
        super().__init__(config)
        self._backend = backend

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self._backend.drain()
        super().handle_exit(sig, frame)


def _print_openapi() -> int:
    """The document of the default settings, as YAML that is also JSON, key by key."""
    import yaml

    yaml.safe_dump(orjson.loads(orjson.dumps(create_app(Settings()).openapi())), sys.stdout, sort_keys=False, width=120, allow_unicode=True)
    return 0


def _print_settings() -> int:
    """Each variable, its default, and what it means."""
    for name, field in Settings.model_fields.items():
        print(f"{variable(name):24} {field.default!s:18} {field.description or ''}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
