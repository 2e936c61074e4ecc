"""From a host name to a connected TCP socket that notices a dead path.

Keepalive and TCP_USER_TIMEOUT are set before connect, so they hold for TLS and handshake as well. With (idle, every, probes):
a silent connection whose path is cut ends after idle + every * probes; one with unacknowledged bytes ends that long after
they were sent, which is at most idle s after the cut (later the probes have begun). (3, 1, 3): 6 s and 9 s, so that a cut
path is always seen within 10 s. With an idle of 5 s the second figure would be 13 s.
"""

from __future__ import annotations

import asyncio
import socket

from obs.errors import ConnectionLost


async def dial(host: str, port: int, keepalive: tuple[int, int, int], timeout_s: float) -> socket.socket:
    """Return a connected, non-blocking socket, owned by the caller; try the addresses of `host` in the resolver's order.

    Raises OSError (the last address's), socket.gaierror, TimeoutError. Each address gets an equal share of `timeout_s`, so that
    an unreachable first one does not use it up.
    """
    loop = asyncio.get_running_loop()
    infos = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    if not infos:
        raise ConnectionLost("name has no address", reason="dns", host=host)
    failure: OSError = OSError(f"no address of {host!r} was tried")
    for family, kind, proto, _, address in infos:
        sock = socket.socket(family, kind, proto)
        try:
            sock.setblocking(False)
            _watch_path(sock, keepalive)
            async with asyncio.timeout(timeout_s / len(infos)):
                await loop.sock_connect(sock, address)
        except OSError as error:  # TimeoutError included
            sock.close()
            failure = error
        except BaseException:
            sock.close()
            raise
        else:
            return sock
    raise failure


def _watch_path(sock: socket.socket, keepalive: tuple[int, int, int]) -> None:
    idle_s, every_s, probes = keepalive
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, idle_s)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, every_s)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, probes)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, (idle_s + every_s * probes) * 1000)
