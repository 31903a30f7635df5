"""A small HTTP/1.1 server on h11, for the control socket, the exporter and the simulated engine."""

from opsboard.httpd.messages import (
    JSON,
    Broken,
    Handler,
    Limits,
    Peer,
    Request,
    Response,
    StreamResponse,
    error_response,
    json_response,
)
from opsboard.httpd.server import Server, bind_tcp, bind_unix, refuse_served, serve

__all__ = [
    "JSON",
    "Broken",
    "Handler",
    "Limits",
    "Peer",
    "Request",
    "Response",
    "Server",
    "StreamResponse",
    "bind_tcp",
    "bind_unix",
    "error_response",
    "json_response",
    "refuse_served",
    "serve",
]
