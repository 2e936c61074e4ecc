"""The command: arguments, configuration, locks, the embedded database, the turn, and with --for the ledger at the end."""

from __future__ import annotations

import argparse
import faulthandler
import math
import os
import signal
import sys
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Final

import orjson

from obs.clock import NS, SYSTEM
from obs.config import Config, demo_config, demo_environ, load, require_start
from obs.config.options import DEFAULT_DATA_DIR, DEFAULT_DEMO_DATA_DIR
from obs.errors import EXIT_FOUND, EXIT_GOOD, ConfigError, ObsError, OwnedElsewhere
from obs.log import Log
from obs.supervisor import simulators
from obs.supervisor.adopted import Adopted
from obs.supervisor.calendar import CalendarRenewal
from obs.supervisor.database import Database
from obs.supervisor.limits import require_limits
from obs.supervisor.locks import Ownership, writing
from obs.supervisor.notify import Notifier, Pulse, journal_stream, watchdog_s
from obs.supervisor.plan import Plan, plan
from obs.supervisor.process import Child
from obs.supervisor.state import State
from obs.supervisor.tree import TURN_S, Tree

_FIRST_RECORD_S: Final = 60
_CHILDREN_S: Final = 30
_EXCHANGES_S: Final = 20
_READY_S: Final = 20  # so long READY=1 waits for the children: what is ordered behind us (other collectors, a boot) must not wait for ever
_EXAMPLES: Final = """examples:
  python -m obs.supervisor --demo                     simulated KIS and Upbit, data in ./demo-data
  python -m obs.supervisor --demo --for 60            the same for a minute, then the ledger; exit 0 only if it closes
  python -m obs.supervisor --demo --for 60 --json     the ledger as JSON; the log is JSON lines on stderr anyway
  python -m obs.supervisor --config /etc/obs.toml     everything of this host
  python -m obs.supervisor --provider kis             one provider, as a systemd unit does
  python -m obs.supervisor --services                 the embedded database, the monitor and the keeper

exit codes: 0 stopped as asked (with --for: and the ledger closes), 1 something was found wrong, 2 usage or configuration,
3 incompatible state, or another supervisor owns this data directory"""


def _arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m obs.supervisor", description="Start, watch and stop the collectors.", epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("--config", metavar="FILE", help="configuration (OBS_CONFIG, ./obs.toml)")
    parser.add_argument("--data", metavar="DIR", help="data directory, instead of the configured one")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--provider", metavar="NAME", help="run this provider's processes alone")
    what.add_argument("--services", action="store_true", help="run the host's services alone")
    parser.add_argument("--demo", action="store_true", help="collect from simulated exchanges on loopback; needs no account")
    parser.add_argument("--recordings", metavar="DIR", help="with --demo: replay the captured data of this folder")
    parser.add_argument("--script", metavar="FILE", help="with --demo: faults of the simulated exchanges (see obs/sim/script.py)")
    parser.add_argument("--for", dest="seconds", type=_seconds, metavar="SECONDS", help="stop by itself, print the ledger")
    parser.add_argument("--json", action="store_true", help="with --for: print the ledger as JSON, as `obs audit --json` does")
    return parser


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds above 0")
    return seconds


def main(argv: Sequence[str] | None = None) -> int:
    """Run until a signal, or for --for seconds; return the exit code."""
    parser = _arguments()
    arguments = parser.parse_args(argv)
    for name in ("recordings", "script"):
        if getattr(arguments, name) and not arguments.demo:
            parser.error(f"--{name} goes with --demo")
    if arguments.json and arguments.seconds is None:
        parser.error("--json goes with --for")
    os.umask(0o027)
    try:
        config = _configure(arguments)
        chosen = plan(config, arguments.provider, arguments.services)
        require_limits(len(chosen.providers), config.ring.max_sessions)
    except ObsError as error:
        print(f"obs: {error}", file=sys.stderr)
        return error.exit_code
    log = Log("supervisor", arguments.provider or "", journal=journal_stream())
    try:
        return _Run(config, chosen, arguments.seconds, log, as_json=arguments.json).run()
    except ObsError as error:
        if not (sys.stderr.isatty() or isinstance(error, ConfigError)):
            log.error("supervisor_failed", error=type(error).__name__, text=str(error))
        else:
            log.close()  # what it has to say comes first
            print(f"obs: {_sentence(error)}", file=sys.stderr)
        return error.exit_code
    finally:
        log.close()


def _sentence(error: ObsError) -> str:
    """Return what a person at the terminal is told, where a program gets the facts."""
    if not isinstance(error, OwnedElsewhere):
        return str(error)
    of, data_dir, pid = (error.facts[name] for name in ("owner", "data_dir", "pid"))
    return f"another supervisor (pid {pid}) runs {of} in {data_dir} already: stop it first, or name another data directory with --data"


def _configure(arguments: argparse.Namespace) -> Config:
    default = DEFAULT_DEMO_DATA_DIR if arguments.demo else DEFAULT_DATA_DIR
    config = load(arguments.config, data=arguments.data, environ=os.environ, default_data=default)
    if arguments.demo:
        script = Path(arguments.script).resolve() if arguments.script else config.demo.script
        if script is not None and not script.is_file():
            named = f"--script = {arguments.script}" if arguments.script else f"demo.script = {script}"
            raise ConfigError("no script", problems=[f"{named}: a file of script lines"])
        if script is not None:
            simulators.check_script(script)
        with writing(config.data_dir):
            _refuse_real_data(config.data_dir)
        recordings = Path(arguments.recordings).resolve() if arguments.recordings else None
        if recordings is not None and not recordings.is_dir():
            raise ConfigError("no recordings", problems=[f"--recordings = {arguments.recordings}: a folder that exists"])
        os.environ.update(demo_environ(config.demo.seed))
        config = demo_config(config, simulators.free_ports(), recordings=recordings, script=script)
    require_start(config, os.environ, provider=arguments.provider, services=arguments.services)
    return config


def _refuse_real_data(data_dir: Path) -> None:
    """The demo never writes among real sessions; its own directory is marked."""
    mark = data_dir / ".demo"
    if mark.exists():
        return
    if data_dir.exists() and any((data_dir / name).exists() for name in ("system", "scalp", "pg")):
        raise ConfigError(
            "--demo refuses a data directory with real sessions", problems=[f"data_dir = {data_dir}: an empty or new directory for --demo"]
        )
    data_dir.mkdir(parents=True, exist_ok=True, mode=0o750)
    mark.touch()


class _Run:
    """One life of the supervisor."""

    def __init__(self, config: Config, chosen: Plan, seconds: float | None, log: Log, *, as_json: bool = False) -> None:
        self._config, self._plan, self._seconds, self._log, self._as_json = config, chosen, seconds, log, as_json
        self._signals = 0
        self._notify = Notifier(os.environ.get("NOTIFY_SOCKET"))
        self._database = Database(config, log) if not config.database.dsn else None

    def run(self) -> int:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._signalled)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        faulthandler.enable(2)  # systemd's watchdog sends SIGABRT: where it hung is then in the log
        owners = [Ownership(self._config.data_dir, name) for name in self._plan.owners]
        for owner in owners:
            owner.wait_for_children(_CHILDREN_S, lambda: self._log.info("waiting_for_children"))
        # The memory first: where there is no room for it, nothing has been started.
        tree = Tree(self._config, self._plan, self._log, SYSTEM, self._config.database.dsn or "")
        runs_database = self._database is not None and self._plan.services
        if runs_database and self._database is not None:
            self._database.start()
        if self._config.is_demo:
            tree.extra = self._exchanges(tree)
        try:
            try:
                self._turn_until_asked(tree)
            finally:
                clean = self._stop(tree)
            code = self._ledger() if self._seconds is not None else EXIT_GOOD
        finally:
            if runs_database and self._database is not None:
                self._database.stop()
            fatal = tree.fatal()
            tree.close()
            for owner in owners:
                owner.release()
        if fatal is not None:
            return fatal.life.exit_code or EXIT_FOUND
        self._log.info("stopped", clean=clean)
        return code

    def _signalled(self, *_: object) -> None:
        self._signals += 1

    def _exchanges(self, tree: Tree) -> list[Child]:
        """Start the simulated exchanges and wait until they answer, as real ones would."""
        children, ports = [], []
        for provider in self._plan.providers:
            port = int(provider.rest_url.rpartition(":")[2])
            start = partial(simulators.start, self._config, provider.type, port)
            children.append(Child("exchange", provider.name, start, None, 3600.0, SYSTEM))
            ports.append(port)
        end = SYSTEM.mono_ns() + _EXCHANGES_S * NS
        while not all(map(simulators.answers, ports)) and SYSTEM.mono_ns() < end and not self._signals:
            for child in children:
                child.turn(tree.report)
            time.sleep(TURN_S)
        return children

    def _turn_until_asked(self, tree: Tree) -> None:
        started, first_record = SYSTEM.mono_ns(), 0
        pulse = Pulse(self._notify, watchdog_s(), SYSTEM)
        tree.pulse = lambda: pulse.beat(_status(tree))
        calendar = CalendarRenewal(self._config, self._plan.providers, self._log)
        adopted = Adopted(SYSTEM)
        told, ready = False, False
        while not self._signals:
            tree.turn()
            calendar.turn()
            adopted.turn()
            now = SYSTEM.mono_ns()
            if self._database is not None and self._plan.services:
                self._database.watch()
            if tree.fatal() is not None and self._plan.services is False:
                break
            steady = ready or tree.steady()
            if not told and (steady or now - started > _READY_S * NS):
                told = self._notify.send("READY=1")
            if told and steady and not ready:
                ready = True
                self._log.info("ready", children=len(tree.children()), seconds=round((now - started) / NS, 2))
            tree.pulse()
            if self._seconds is not None:
                if not first_record and (tree.recorded() or now - started > _FIRST_RECORD_S * NS):
                    first_record = now
                if first_record and now - first_record > self._seconds * NS:
                    break
            time.sleep(TURN_S)
        calendar.stop()

    def _stop(self, tree: Tree) -> bool:
        self._notify.send("STOPPING=1")
        self._log.info("stopping")
        asked = self._signals
        return tree.stop(lambda: self._signals > max(1, asked))

    def _ledger(self) -> int:
        """Judge what was recorded and print it; the last thing on stdout."""
        from obs.monitor.audit import run as audit

        if self._database is not None:
            self._database.join()
        report = audit(self._config)
        print(orjson.dumps(report.to_json(), default=str).decode() if self._as_json else "\n".join(report.lines()), flush=True)
        return EXIT_GOOD if report.ok else EXIT_FOUND


def _status(tree: Tree) -> str:
    children = tree.children()
    others = [f"{child.role} {child.owner} {child.life.state.value}" for child in children if child.life.state is not State.RUNNING]
    return ", ".join([f"{len(children) - len(others)} of {len(children)} processes running", *others])


