"""The server: a socket on this machine's own address, and a token that nobody can guess."""

from __future__ import annotations

import os
import secrets
import socket

from impq_opt.dashboard.folder import Folder
from impq_opt.errors import MissingPackageError, OptionError

__all__ = ["Server"]

_HOST = "127.0.0.1"
# Seconds that a request has to end in once the server is to stop.
_PATIENCE = 1


class Server:
    """Serves a folder to browsers on this machine until it is interrupted.

    Parameters
    ----------
    folder : path
    port : int
        0 takes one that is free.

    Raises
    ------
    FileError
        Where ``folder`` is none.
    OptionError
        Where the port is taken or none.
    MissingPackageError
        Where starlette or uvicorn is not installed.
    """

    def __init__(self, folder: str | os.PathLike[str], port: int = 0) -> None:
        try:
            import starlette  # noqa: F401
            import uvicorn
        except ImportError as error:
            raise MissingPackageError(error.name or "starlette", "the dashboard", "'impq-opt[dashboard]'") from None
        from impq_opt.dashboard.app import application

        self.folder = Folder(folder)
        self._socket = _listening(port)
        self.port = int(self._socket.getsockname()[1])
        token = secrets.token_urlsafe(24)
        self.address = f"http://{_HOST}:{self.port}/{token}/"
        hosts = frozenset(f"{name}:{self.port}" for name in (_HOST, "localhost"))
        settings = uvicorn.Config(
            application(self.folder, token, hosts),
            log_config=None,
            log_level="critical",
            access_log=False,
            server_header=False,
            proxy_headers=False,
            ws="none",
            lifespan="on",
            timeout_graceful_shutdown=_PATIENCE,
        )
        self._server = uvicorn.Server(settings)

    def run(self) -> None:
        """Serve until :meth:`stop`, or until Ctrl-C raises KeyboardInterrupt."""
        try:
            self._server.run(sockets=[self._socket])
        finally:
            self._socket.close()

    def stop(self) -> None:
        """Have :meth:`run` return; may be called from another thread."""
        self._server.should_exit = True


def _listening(port: int) -> socket.socket:
    if not 0 <= port < 1 << 16:
        raise OptionError("must be a port, 0 to 65535", where="--port", value=port)
    made = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind((_HOST, port))
        made.listen(128)
    except OSError as error:
        made.close()
        raise OptionError(
            f"cannot be listened on: {error.strerror}", where="--port", value=port, hint="0 takes one that is free"
        ) from None
    return made
