"""`python -m obs.sim`: read the options, listen, say so in one JSON line, run until told to stop."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import ctypes
import json
import os
import signal
import sys
from pathlib import Path

import uvloop

from obs.errors import EXIT_CONFIG, EXIT_GOOD, ConfigError
from obs.sim.build import build_exchange, clock_start_ns, start_clock
from obs.sim.now import wall_ns
from obs.sim.options import SOURCES, VENUES, SimOptions
from obs.sim.server import build

_PR_SET_PDEATHSIG = 1

_EPILOG = """examples:
  python -m obs.sim kis --port 9443
  python -m obs.sim upbit --source numbered --rate 5000 --log upbit.log.jsonl
  python -m obs.sim kis --source recordings --recordings DIR --rate 600
  python -m obs.sim kis --script faults.jsonl          with lines such as
      {"at_s":12.5,"do":"drop"}
      {"at_s":20,"do":"malformed","variant":"neighbour","symbol":"005930"}
      {"at_s":30,"every_s":60,"do":"mute","s":100}
  python -m obs.sim kis --universe 2500 --clock-start 2026-11-20T08:55:00+09:00 --clock-rate 60 --script day.jsonl
      {"at_s":3900,"do":"surge","symbol":"005930","factor":8,"for_s":600}
      {"at_s":7200,"do":"answer","path":"intstock-multprice","with":"html","for_s":30}
  curl -d '{"do":"burst","x":20,"s":3}' http://127.0.0.1:PORT/sim/do

The WebSocket is at ws://HOST:PORT/tryitout (kis) or /websocket/v1 (upbit), REST on the same port. One JSON line on stdout
says when it listens. The script's actions are listed in obs/sim/script.py, the log's lines in obs/sim/log.py, the numbers of
--source numbered in obs/sim/numbered.py.

exit codes: 0 stopped as asked, 2 usage or configuration, or the port is taken"""


def parse(arguments: list[str]) -> tuple[SimOptions, int | None]:
    """Return the options, and whether to die with the parent. Exits 2 with a usage message on a bad argument."""
    plain = SimOptions(venue="")
    parser = argparse.ArgumentParser(
        prog="python -m obs.sim",
        description="A simulated exchange: the venue's real protocol on one loopback port.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("venue", choices=VENUES)
    parser.add_argument("--host", default=plain.host, help="default %(default)s")
    parser.add_argument("--port", type=int, default=plain.port, help="default: any free one")
    parser.add_argument("--source", choices=SOURCES, default=plain.source, help="what makes the market move (default %(default)s)")
    parser.add_argument("--rate", type=float, default=plain.rate, help="inputs per second in all (default %(default)s)")
    parser.add_argument("--seed", type=int, default=plain.seed, help="the same seed gives the same market (default %(default)s)")
    parser.add_argument("--recordings", type=Path, metavar="DIR", help="folder with kis/, upbit/ and tape/, for --source recordings")
    parser.add_argument("--script", type=Path, metavar="FILE", help="JSON lines of faults")
    parser.add_argument("--log", type=Path, metavar="FILE", help="append a JSON line for every input sent")
    parser.add_argument("--start-k", type=int, help="numbered: number before the first trade (default: from the venue's clock)")
    parser.add_argument(
        "--universe", type=int, default=plain.universe, metavar="N",
        help="a market of N symbols that are functions of seed, symbol and time, with all of REST; --rate has no part in it",
    )  # fmt: skip
    parser.add_argument("--clock-rate", type=float, default=plain.clock_rate, help="times as fast as time (default %(default)s)")
    parser.add_argument(
        "--clock-lull-rate", type=float, default=plain.clock_lull_rate,
        help="and so fast from 05:30 of each ten minutes on, when a sweep is over (default: as fast)",
    )  # fmt: skip
    parser.add_argument("--clock-start", default=plain.clock_start, metavar="ISO", help="the venue's time at the start (default: now)")
    parser.add_argument(
        "--jitter-s", type=float, default=plain.jitter_s,
        help="with a fast clock: host seconds over which calls per venue second are counted (default %(default)s)",
    )  # fmt: skip
    parser.add_argument("--clock-mono-ns", type=int, metavar="NS", help="CLOCK_MONOTONIC at --clock-start (default: when it is ready)")
    parser.add_argument("--buffer-bytes", type=int, default=plain.buffer_bytes, help="unsent bytes that cut a client (default %(default)s)")
    parser.add_argument(
        "--die-with-parent", type=int, nargs="?", const=0, metavar="PID",
        help="stop when the parent process dies (also OBS_SIM_PDEATHSIG=1); PID: its number, which may be 1 in a container",
    )  # fmt: skip
    kis = parser.add_argument_group("kis")
    kis.add_argument("--width", type=int, default=plain.width, help="fields of a trade record (default %(default)s)")
    kis.add_argument("--book-width", type=int, default=plain.book_width, help="fields of a book record (default %(default)s)")
    kis.add_argument("--slots", type=int, default=plain.slots, help="registrations of an appkey (default %(default)s)")
    kis.add_argument("--pingpong-s", type=float, default=plain.pingpong_s, help="between two PINGPONG (default %(default)s)")
    kis.add_argument(
        "--pong-timeout-s", type=float, default=plain.pong_timeout_s, help="until an unanswered one ends it (default %(default)s)"
    )
    kis.add_argument("--zombie-s", type=float, default=plain.zombie_s, help="an appkey stays taken after a break (default %(default)s)")
    kis.add_argument("--token-spacing-s", type=float, default=plain.token_spacing_s, help="between two tokens (default %(default)s)")
    kis.add_argument("--approval-spacing-s", type=float, default=plain.approval_spacing_s, help="between two keys (default %(default)s)")
    kis.add_argument("--rest-rate", type=float, default=plain.rest_rate, help="data calls per second (default %(default)s)")
    kis.add_argument("--hours", default=plain.hours, help="with --universe: HH:MM-HH:MM KST, or always (default 09:00-15:30)")
    kis.add_argument(
        "--holiday", type=int, action="append", default=[], dest="holidays", metavar="YYYYMMDD", help="with --universe: a closed day"
    )
    kis.add_argument("--connects-per-min", type=int, default=plain.connects_per_min, help="more are a loop (default %(default)s)")
    upbit = parser.add_argument_group("upbit")
    upbit.add_argument("--idle-s", type=float, default=plain.idle_s, help="until an idle connection ends (default %(default)s)")
    upbit.add_argument("--connects-per-s", type=int, default=plain.connects_per_s, help="handshakes per second (default %(default)s)")
    upbit.add_argument("--messages-per-s", type=int, default=plain.messages_per_s, help="client messages per second (default %(default)s)")
    upbit.add_argument("--messages-per-min", type=int, default=plain.messages_per_min, help="and per minute (default %(default)s)")
    upbit.add_argument("--origin-s", type=float, default=plain.origin_s, help="between requests with Origin (default %(default)s)")
    given = vars(parser.parse_args(arguments))
    parent = given.pop("die_with_parent")
    if parent is None and os.environ.get("OBS_SIM_PDEATHSIG") == "1":
        parent = 0
    given["holidays"] = tuple(given["holidays"])
    return SimOptions(**given), parent


def follow_parent(pid: int) -> None:
    """Ask the kernel for SIGTERM when the parent dies. Linux alone can. `pid`: the parent's, 0 if it is not known; then it is not 1."""
    parent = pid or os.getppid()
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent or (parent == 1 and not pid):
        raise SystemExit(EXIT_GOOD)  # it died before we had asked


async def serve(options: SimOptions) -> None:
    """Listen and run until SIGTERM or SIGINT. Raises OSError if the port is taken, ConfigError if the options are wrong."""
    exchange = build_exchange(options)
    loop = asyncio.get_running_loop()
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    http = build(exchange)
    listener = await loop.create_server(http, options.host, options.port)
    port = listener.sockets[0].getsockname()[1]
    path = {"kis": "/tryitout", "upbit": "/websocket/v1"}[options.venue]
    address = f"{options.host}:{port}"
    if exchange.universe is not None:
        # A whole morning takes a second, which a compressed clock has not got to spare.
        exchange.universe.day_at((clock_start_ns(options) or wall_ns()) // 10**6)
    clock = start_clock(options)
    exchange.start(loop)
    exchange.log.do("start", venue=options.venue, source=options.source, rate=options.rate, seed=options.seed, port=port, pid=os.getpid())
    ready = {"ready": True, "port": port, "ws": f"ws://{address}{path}", "rest": f"http://{address}", "pid": os.getpid()}
    print(json.dumps(ready | ({"clock": clock} if clock else {})), flush=True)
    await stopping.wait()
    listener.close()
    exchange.stop()
    await asyncio.sleep(0.25)  # the close frames' way out
    await http.shutdown(1.0)
    exchange.log.close()


def main(arguments: list[str] | None = None) -> int:
    options, parent = parse(sys.argv[1:] if arguments is None else arguments)
    if parent is not None:
        follow_parent(parent)
    with contextlib.suppress(ImportError):
        import setproctitle

        setproctitle.setproctitle(f"obs sim {options.venue}")
    try:
        uvloop.run(serve(options))
    except ConfigError as error:
        print(error, file=sys.stderr)
        return EXIT_CONFIG
    except OSError as error:
        print(f"cannot listen on {options.host}:{options.port}: {error}", file=sys.stderr)
        return EXIT_CONFIG
    return EXIT_GOOD


if __name__ == "__main__":
    sys.exit(main())
