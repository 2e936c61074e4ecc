"""A network that is cut both ways, and peers that fall silent: every way in which a dead connection can look alive.

A cut path has no answer at all, so keepalive finds it (10 s). Behind a proxy that stops forwarding, the proxy's kernel goes on
acknowledging, and a venue that is mute answers pings: only silence shows, after the limits of the venues (Upbit 30 s, KIS 90 s).
The limits are the real ones, because the configuration cannot shorten them; KIS waits for its own while Upbit has two turns.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from checker import Verdict
from harness import LONG, PROVIDERS, Demo, World, steady_for, until

from obs.wire.backoff import BACKOFF_S, JITTER

Make = Callable[..., Demo]
pytestmark = pytest.mark.timeout(600)

# Venues that find the dead connection by themselves, and soon: else KIS would say for long that the app key is in use, and Upbit would
# send everything twice, to the dead connection and to the new one, which the checker does not allow.
VENUES = {"kis": ["--zombie-s", "0", "--pingpong-s", "1", "--pong-timeout-s", "3"], "upbit": ["--buffer-bytes", str(1 << 20)]}
BACK_S = 120.0
SETTLED = 41
CUT_S = 40.0 if LONG else 12.0
NOTICED_S = 10.0  # on a cut path, by keepalive; obs/wire/dial.py
MUTE_S = {"kis": 90.0, "upbit": 30.0}
SLACK_S = 5.0  # a busy machine, and the grace of obs/wire/liveness.py


class Network:
    """A network namespace for the exchanges, and the pair of interfaces that leads there. Needs root."""

    def __init__(self) -> None:
        number = os.getpid() % 16000
        self.name, self.outer, self.inner = f"obs-fault-{number}", f"obsf{number}a", f"obsf{number}b"
        third, fourth = divmod(4 * number, 256)
        self.address = f"10.{213 + third // 256}.{third % 256}.{fourth + 2}"
        self._run("ip", "netns", "add", self.name)
        try:
            self._run("ip", "link", "add", self.outer, "type", "veth", "peer", "name", self.inner, "netns", self.name)
            self._run("ip", "address", "add", f"{self.address[: self.address.rindex('.')]}.{fourth + 1}/30", "dev", self.outer)
            self._run("ip", "link", "set", self.outer, "up")
            self.inside("ip", "link", "set", "lo", "up")
            self.inside("ip", "address", "add", f"{self.address}/30", "dev", self.inner)
            self.plug(True)
        except BaseException:
            self.close()
            raise

    def plug(self, is_in: bool) -> None:
        """Set the far end of the link up or down: packets of both ways are lost, and nobody is told."""
        self.inside("ip", "link", "set", self.inner, "up" if is_in else "down")

    def world(self) -> World:
        return World(venue_prefix=("ip", "netns", "exec", self.name), host=self.address)

    def inside(self, *command: str) -> None:
        self._run("ip", "netns", "exec", self.name, *command)

    def close(self) -> None:
        self._run("ip", "netns", "delete", self.name)
        subprocess.run(["ip", "link", "delete", self.outer], capture_output=True, timeout=10, check=False)  # went with the namespace

    @staticmethod
    def _run(*command: str) -> None:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
        assert done.returncode == 0, f"{command}: {done.stderr}"


@pytest.fixture
def network() -> Iterator[Network]:
    if os.geteuid() != 0 or shutil.which("ip") is None:
        pytest.skip("a network namespace needs root and the command ip (Debian: iproute2)")
    if subprocess.run(["unshare", "--net", "true"], capture_output=True, timeout=10, check=False).returncode:
        pytest.skip("root may not make network namespaces here (a container without CAP_SYS_ADMIN)")
    made = Network()
    yield made
    made.close()


class Proxy:
    """Forwards TCP to one port, in a thread of its own; `hush` makes the connections of now silent, later ones are served.

    A silent one is still read, so that the kernel acknowledges and no buffer fills: neither side can know. The client is not told either
    that the server has gone; the server is told when the client has, for two at once would be sent everything twice.
    """

    def __init__(self, target_port: int) -> None:
        self._target = target_port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._clients: set[socket.socket] = set()
        self._servers: set[socket.socket] = set()
        self._silent: set[socket.socket] = set()
        self._hushing = self._stopping = False
        self.hushed = 0
        self._thread = threading.Thread(target=self._run, name="proxy", daemon=True)
        self._thread.start()

    def hush(self) -> None:
        self._hushing = True
        until("the proxy is silent", lambda: not self._hushing)

    def _run(self) -> None:
        while not self._stopping:
            for key, _ in self._selector.select(0.05):
                if key.fileobj is self._listener:
                    self._accept()
                else:
                    self._carry(key.fileobj, key.data)
            if self._hushing:
                self._silent = {one for one in self._clients | self._servers if one.fileno() >= 0}
                self.hushed = len(self._silent & self._clients)
                self._hushing = False

    def _accept(self) -> None:
        client = self._listener.accept()[0]
        server = socket.create_connection(("127.0.0.1", self._target))
        self._clients.add(client)
        self._servers.add(server)
        for one, other in ((client, server), (server, client)):
            self._selector.register(one, selectors.EVENT_READ, other)

    def _carry(self, source: Any, target: socket.socket) -> None:
        data = b""
        if source.fileno() < 0:
            return  # closed by the event before this one
        with contextlib.suppress(ConnectionError):
            data = source.recv(1 << 18)
        if source in self._silent:
            if data:
                return
            if source in self._servers:
                self._selector.unregister(source)
                return
        try:
            target.sendall(data)
            if data:
                return
        except OSError:
            pass
        for one in (source, target):
            with contextlib.suppress(KeyError):
                self._selector.unregister(one)
            one.close()

    def close(self) -> None:
        self._stopping = True
        self._thread.join(10)
        self._selector.close()
        for one in (self._listener, *self._clients, *self._servers):
            one.close()


@pytest.fixture
def proxies() -> Iterator[Callable[[int], Proxy]]:
    made: list[Proxy] = []

    def make(port: int) -> Proxy:
        made.append(Proxy(port))
        return made[-1]

    yield make
    for one in made:
        one.close()


def lines(one: Demo, event: str, provider: str) -> list[dict[str, Any]]:
    return [line for line in one.logged(event) if line["provider"] == provider]


def subscribed(one: Demo, provider: str, times: int) -> None:
    until(f"{provider} has confirmed everything {times} times", lambda: len(lines(one, "subscribed", provider)) >= times, BACK_S)


def restored(verdict: Verdict, times: int) -> None:
    """Every subscription was confirmed after each reconnect, and one gap row tells each loss."""
    events = [event for event in verdict.events if event["event_type"] == "reconnection_event"]
    assert [len(event["recovered_slot_list"]) for event in events if event["result"] == "SUCCESS"] == [SETTLED] * times
    for event in events:
        if event["result"] == "FAIL" and event["reason"] not in ("in_use", "auth"):
            step = BACKOFF_S[min(event["attempt_no"], len(BACKOFF_S)) - 1]
            assert step * (1 - JITTER) <= event["backoff_seconds"] <= step, event


def test_path_cut_both_ways(demo: Make, dsn: str, network: Network) -> None:
    """Found by keepalive within 10 s; tried again with a capped, jittered backoff; everything restored when the path is back."""
    one = demo(dsn=dsn, venues=VENUES, world=network.world())
    one.start()
    for provider in PROVIDERS:
        subscribed(one, provider, 1)
    begun, begun_ns = time.monotonic(), time.time_ns()
    network.plug(False)
    one.count("network cut")
    for provider in PROVIDERS:
        until(f"{provider} has noticed", lambda: lines(one, "disconnected", provider), NOTICED_S + SLACK_S)  # noqa: B023
    # Too: nothing more is sent to the dead connections, whose end cannot be told while the path is cut.
    until("KIS has noticed", lambda: one.venues["kis"].done("pingpong unanswered"), BACK_S)
    until("Upbit has noticed", lambda: one.venues["upbit"].done("overrun"), BACK_S)
    steady_for("the path is cut", CUT_S - (time.monotonic() - begun), lambda: all(len(lines(one, "subscribed", p)) == 1 for p in PROVIDERS))
    network.plug(True)
    ended_ns = time.time_ns()
    for provider in PROVIDERS:
        subscribed(one, provider, 2)
        one.more(provider, 500)
    for provider, verdict in one.finish().items():
        gaps = [gap for gap in verdict.gap_lines if gap["reason"] != "venue_count"]
        assert len(gaps) == 1, gaps
        assert gaps[0]["gap_start_ns"] <= begun_ns + NOTICED_S * 1e9
        assert gaps[0]["gap_end_ns"] >= ended_ns
        failures = [event for event in verdict.events if event.get("result") == "FAIL"]
        took = (failures[0]["ts_ns"] - begun_ns) / 1e9
        one.figures[f"noticed_s_{provider}"] = round(took, 1)
        one.figures[f"failures_{provider}"] = [(event["reason"], event["backoff_seconds"]) for event in failures]
        # Keepalive's ETIMEDOUT, or EHOSTUNREACH where the neighbour's address had to be asked for meanwhile: the kernel's choice.
        assert failures[0]["reason"] in ("timeout", "network"), failures
        assert took <= NOTICED_S, f"{provider}: noticed after {took} s"
        assert len(failures) >= 2, "nothing was tried while the path was cut"
        restored(verdict, 1)
    print("  figures", one.figures)


def left_for_silence(one: Demo, provider: str, begun: float, times: int) -> None:
    """Wait until it has left a silent connection for the `times`-th time; assert that it took the limit, neither more nor less."""
    until(f"{provider} has left", lambda: len(lines(one, "disconnected", provider)) >= times, MUTE_S[provider] + 2 * SLACK_S)
    took = time.monotonic() - begun
    one.figures[f"silent_s_{provider}_{times}"] = round(took, 1)
    line = lines(one, "disconnected", provider)[times - 1]
    assert line["reason"] in ("mute", "pong_timeout"), line
    assert took <= MUTE_S[provider] + SLACK_S


def test_silent_peers(demo: Make, dsn: str, proxies: Callable[[int], Proxy]) -> None:
    """Behind a proxy that stops forwarding: Upbit is left after 30 s, KIS after 90 s. Mute, yet answering pings: the same for Upbit.

    Long form: KIS is mute, too, once the proxy's turn is over (by then it is the same to see: its pings are messages).
    """
    one = demo(dsn=dsn, venues=VENUES)
    through = {provider: proxies(venue.port) for provider, venue in one.venues.items()}
    one.configure(**{f"providers.{provider}": {"ws_url": f"ws://127.0.0.1:{proxy.port}"} for provider, proxy in through.items()})
    one.start()
    for provider in PROVIDERS:
        subscribed(one, provider, 1)
    hushed = {}
    for provider in PROVIDERS:
        one.more(provider, 500)
        hushed[provider] = time.monotonic()
        through[provider].hush()
        one.count("half-open connection")
        assert through[provider].hushed == 1
    left_for_silence(one, "upbit", hushed["upbit"], 1)
    subscribed(one, "upbit", 2)
    one.more("upbit", 500)
    # The market goes on, and this connection alone hears nothing of it but pongs.
    begun = time.monotonic()
    one.venues["upbit"].do("mute", conn=one.venues["upbit"].done("connect")[-1]["conn"], s=600.0)
    one.count("mute connection")
    left_for_silence(one, "upbit", begun, 2)
    subscribed(one, "upbit", 3)
    assert not lines(one, "disconnected", "kis"), "left before its limit"
    left_for_silence(one, "kis", hushed["kis"], 1)
    subscribed(one, "kis", 2)
    if LONG:
        one.more("kis", 500)
        begun = time.monotonic()
        one.venues["kis"].do("mute", conn=one.venues["kis"].done("connect")[-1]["conn"], s=600.0)
        one.count("mute connection")
        left_for_silence(one, "kis", begun, 2)
        subscribed(one, "kis", 3)
    for provider in PROVIDERS:
        one.more(provider, 500)
    for provider, verdict in one.finish().items():
        times = 2 if provider == "upbit" or LONG else 1
        assert verdict.gaps["mute/None"] == times, verdict.gaps
        restored(verdict, times)
    print("  figures", one.figures)
