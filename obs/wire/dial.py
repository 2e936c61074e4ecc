"""From a host name to a connected TCP socket that notices a dead path.

Keepalive and TCP_USER_TIMEOUT are set before connect, so they hold for TLS and handshake as well. With (idle, every, probes)
and G = idle + every * probes: a silent connection whose path is cut ends G seconds later; one with unacknowledged bytes G
seconds after they were sent, because the kernel does not probe while it retransmits. Bytes sent just before the first G is over
make it 2 G, and the retransmission timer adds up to 0.6 s. The default (2, 1, 2) thus finds every cut within 8.6 s, the 10 s
that are allowed; measured: 4.1 s silent, 8.3 s with bytes sent 3.9 s after the cut. (3, 1, 3) took 6.2 s, and 11.5 s with bytes
sent after 5 s.
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
