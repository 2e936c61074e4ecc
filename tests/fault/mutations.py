"""Deliberate defects of the program, and the tests that must notice each: who watches the watchers.

    python tests/fault/mutations.py               all of them, as a table; exit code 1 if one survives (some minutes)
    python tests/fault/mutations.py NAME …        these alone

Each defect is a small patch of a private copy of the project. The tests named beside it run there and must fail; in the copy
without a patch all of them must pass. A patch whose text is not found any more is an error: the defect has to be written anew.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

_REPOSITORY = Path(__file__).parents[2]
_COPIED = ("obs", "tests", "sql", "ops", "pyproject.toml", "setup.cfg", "README.md")
_FAILED = 1  # pytest's exit code for "tests ran and some failed"; anything else is no verdict
_TEST_S = 300


@dataclass(frozen=True)
class Defect:
    """In `path` the text `old`, which stands there once, becomes `new`; `tests` must notice."""

    name: str
    what: str
    path: str
    old: str
    new: str
    tests: tuple[str, ...]
    slow: bool = False  # minutes, because the test waits for what does not come: in the long form


DEFECTS = (
    Defect(
        "no-fsync", "the segment writer does not fsync what it says is durable", "obs/segment/writer.py",
        "            self._disk.fsync_file(file.fd, file.path)\n", "",
        ("tests/fault/test_segment_power.py::test_the_archive_is_a_prefix_that_holds_everything_acknowledged",),
    ),
    Defect(
        "no-folder-fsync", "the name of a new segment is not made durable", "obs/segment/writer.py",
        "                self._disk.fsync_folder(file.path.parent)\n        except", "                pass\n        except",
        ("tests/fault/test_segment_power.py::test_the_archive_is_a_prefix_that_holds_everything_acknowledged",),
    ),
    Defect(
        "acknowledged-early", "the writer says durable before write and fsync", "obs/segment/writer.py",
        '        data = b"".join(part.frames)\n', '        data = b"".join(part.frames)\n        self._durable_seq = part.tally.last_seq\n',
        ("tests/unit/test_segment_writer.py::test_any_call_may_fail_and_nothing_is_lost_or_doubled",
         "tests/fault/test_segment_power.py::test_the_archive_is_a_prefix_that_holds_everything_acknowledged"),
    ),
    Defect(
        "ring-freed-early", "the archive writer frees the ring when it has polled, not when it has fsynced", "obs/roles/drains.py",
        "            self._rows_held += len(rows)\n",
        "            self._rows_held += len(rows)\n            self.consumer.durable = self.consumer.cursor\n",
        ("tests/unit/test_archive_role.py::test_what_is_published_becomes_durable_and_only_then_frees_the_ring",
         "tests/unit/test_archive_role.py::test_it_flushes_by_its_interval_and_not_more_often"),
    ),
    Defect(
        "no-fence", "the producer publishes without a fence before it", "obs/ring/producer.py",
        "        fence()\n        words[PUBLISHED] = end\n", "        words[PUBLISHED] = end\n",
        ("tests/unit/test_ring.py::test_a_fence_stands_wherever_another_process_may_not_see_things_reordered",),
    ),
    Defect(
        "published-early", "the producer publishes before it has written the cells", "obs/ring/producer.py",
        "        if count <= whole:\n", "        words[PUBLISHED] = end\n        if count <= whole:\n",
        ("tests/integration/test_ring_interleavings.py::test_no_interleaving_has_a_forbidden_outcome",),
    ),
    Defect(
        "lap-not-counted", "a consumer that was overtaken does not say by how much", "obs/ring/consumer.py",
        "safe, safe - cursor))", "safe, 0))",
        ("tests/unit/test_ring.py::test_a_lap_is_counted_exactly_and_goes_to_the_oldest",),
    ),
    Defect(
        "sequence-twice", "a producer that takes over publishes the last sequence of the dead one again", "obs/ring/producer.py",
        "        self._published = ring.published\n", "        self._published = max(0, ring.published - 1)\n",
        ("tests/unit/test_ring.py::test_a_restarted_producer_goes_on_at_published_and_hides_what_the_dead_one_may_have_overwritten",
         "tests/unit/test_takeover.py::test_killed_again_and_again_the_whole_ledger_closes"),
    ),
    Defect(
        "lost-inputs-forgotten", "a takeover does not tell what the dead feed had counted and not published", "obs/roles/takeover.py",
        "    lost = int(lost_trades.sum() + lost_quotes.sum())\n", "    lost = 0\n",
        ("tests/unit/test_takeover.py::test_what_was_folded_and_not_published_is_lost_and_named",),
    ),
    Defect(
        "gap-row-dropped", "the gap line of a lap does not reach system/events", "obs/roles/drains.py",
        "            _, line, ts_ns = self._holes.pop(0)\n            self._events.add_gap(line, ts_ns)\n",
        "            self._holes.pop(0)\n",
        ("tests/unit/test_archive_role.py::test_a_lap_is_told_in_the_frame_of_the_next_record_and_in_the_events",),
    ),
    Defect(
        "not-counted", "a message is not counted", "obs/roles/recorder.py",
        "        fates.messages += 1\n", "",
        ("tests/unit/test_recorder.py::test_counts_follow_the_last_record_of_their_minute",
         "tests/fuzz/test_fuzz.py::test_hurt_inputs[kis_feed]"),
    ),
    Defect(
        "not-resubscribed", "a new connection is taken to have the subscriptions of the old one", "obs/roles/subscriptions.py",
        "            self.pairs[pair] = _One()\n", "            pass\n",
        ("tests/unit/test_subscriptions.py::test_standings",),
    ),
    Defect(
        "not-resubscribed-by-link", "the same, by the link, in the whole system", "obs/roles/link.py",
        "        self.subscriptions.reconnected()\n", "",
        ("tests/fault/test_venue_faults.py::test_every_end_reconnects",), slow=True,
    ),
    Defect(
        "torn-tail-kept", "recovery seals an open segment with its torn tail in it", "obs/segment/recover.py",
        "        disk.cut(path, cut)\n", "        pass\n",
        ("tests/unit/test_segment_recover.py::test_an_open_file_is_cut_behind_its_last_whole_frame_and_sealed",
         "tests/fuzz/test_fuzz.py::test_hurt_inputs[segment_bytes]"),
    ),
    Defect(
        "frames-behind-damage", "what lies behind damage is not looked for", "obs/segment/format.py",
        "        following = next_frame(data, at + 1)\n        yield", "        following = size\n        yield",
        ("tests/fault/test_segment_bytes.py", "tests/fuzz/test_fuzz.py::test_hurt_inputs[segment_bytes]"),
    ),
    Defect(
        "quarantine-cut", "of a quarantined message the first part alone is kept", "obs/segment/quarantine.py",
        'int(row["data_bytes"])] for row in rows)', 'int(row["data_bytes"])] for row in rows[:1])',
        ("tests/unit/test_segment_textlog.py::test_a_message_comes_back_with_its_bytes",),
    ),
    Defect(
        "number-invented", "a KIS size of 0 becomes another number", "obs/providers/kis/decode.py",
        "_sizes: Final = Numbers(zero=0.0)", "_sizes: Final = Numbers(zero=123456.75)",
        ("tests/fuzz/test_fuzz.py::test_hurt_inputs[kis_data]",),
    ),
    Defect(
        "watermark-without-rows", "the loader moves its watermark and stores no rows", "obs/pg/loader.py",
        "                self._copy(conn, rows)\n                insert_gaps(conn, gaps)\n", "                insert_gaps(conn, gaps)\n",
        ("tests/integration/test_pg_loader.py::test_rows_come_back_as_they_went",),
    ),
    Defect(
        "rows-without-watermark", "the loader commits its watermark after its rows, in a transaction of its own", "obs/pg/loader.py",
        "                if not self._move(conn, rows, last):\n                    return False\n                self._copy(conn, rows)\n"
        "                insert_gaps(conn, gaps)\n                return True\n",
        "                self._copy(conn, rows)\n                insert_gaps(conn, gaps)\n"
        "            with conn.transaction():\n                return self._move(conn, rows, last)\n",
        ("tests/integration/test_pg_loader.py::test_unknown_commit",),
    ),
    Defect(
        "clock-step-unseen", "a wall clock that steps back by an hour is smoothed like one that steps back by a moment",
        "obs/roles/recorder.py",
        "        if self._now_ns - now_ns < _STEP_BACK_NS:\n", "        if self._now_ns - now_ns >= 0:\n",
        ("tests/fault/test_clock.py::test_clock_steps",), slow=True,
    ),
    Defect(
        "flush-by-wall-clock", "the archive writer flushes by the wall clock", "obs/roles/archive.py",
        "            mono = self._clock.mono_ns()\n            due", "            mono = self._clock.wall_ns()\n            due",
        ("tests/fault/test_clock.py::test_clock_steps",), slow=True,
    ),
    Defect(
        "days-of-utc", "segments and event files are filed by the day of UTC, whatever the market", "obs/segment/writer.py",
        "        self._tz = tz\n", '        self._tz = ZoneInfo("UTC")\n',
        ("tests/unit/test_segment_writer.py::test_dates_and_clock_names_are_local",
         "tests/fault/test_clock.py::test_days_and_months_end"), slow=True,
    ),
)  # fmt: skip


class Copy:
    """A private copy of the project, in which defects are tried one after the other."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        skip = shutil.ignore_patterns("__pycache__", ".*")
        for name in _COPIED:
            source = _REPOSITORY / name
            if source.is_dir():
                shutil.copytree(source, folder / name, ignore=skip)
            elif source.exists():
                shutil.copy(source, folder / name)

    def _run(self, *words: str) -> subprocess.CompletedProcess[str]:
        # No byte code: two patches of one file within a second would have the same stamp.
        environ = os.environ | {"PYTHONPATH": str(self.folder), "PYTHONDONTWRITEBYTECODE": "1"}
        for name in ("OBS_FAULT_LONG", "PYTEST_CURRENT_TEST", "PYTEST_ADDOPTS"):
            environ.pop(name, None)
        command = [sys.executable, *words]
        return subprocess.run(
            command, cwd=self.folder, env=environ, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace",
            timeout=_TEST_S, check=False,
        )  # fmt: skip

    def tests(self, tests: tuple[str, ...]) -> subprocess.CompletedProcess[str]:
        """Run tests in the copy until one fails."""
        return self._run("-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "-p", "no:randomly", "--tb=line", *tests)

    def is_private(self) -> bool:
        """Whether tests in the copy import the program of the copy."""
        return self._run("-c", "import obs; print(obs.__file__)").stdout.strip() == str(self.folder / "obs" / "__init__.py")

    def notices(self, defect: Defect) -> tuple[str, float]:
        """Put the defect in, run its tests, take it out; return which test failed ("" if none did) and the seconds it took."""
        path = self.folder / defect.path
        good = path.read_text()
        assert good.count(defect.old) == 1, f"{defect.name}: the text is {good.count(defect.old)} times in {defect.path}"
        path.write_text(good.replace(defect.old, defect.new))
        begun = time.monotonic()
        try:
            # One at a time: each of the tests named must notice, or it is not to be named.
            caught = []
            for test in defect.tests:
                done = self.tests((test,))
                if done.returncode == 0:
                    return "", time.monotonic() - begun
                assert done.returncode == _FAILED, f"{defect.name}: {test} gave no verdict\n{done.stdout[-3000:]}"
                caught.append(test.rpartition("/")[2])
        finally:
            path.write_text(good)
        return ", ".join(caught), time.monotonic() - begun


def named_by(defects: Sequence[Defect]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(test for defect in defects for test in defect.tests))


def main(names: list[str]) -> int:
    chosen = [defect for defect in DEFECTS if not names or defect.name in names]
    if unknown := set(names) - {defect.name for defect in chosen}:
        print(f"no such defect: {', '.join(sorted(unknown))}", file=sys.stderr)
        return 2
    survived = 0
    with tempfile.TemporaryDirectory(prefix="obs-mutations-") as folder:
        copy = Copy(Path(folder))
        assert copy.is_private()
        print("| defect | caught by | seconds |\n|---|---|---|")
        for defect in chosen:
            caught, seconds = copy.notices(defect)
            survived += not caught
            print(f"| {defect.what} | {caught or 'NOTHING'} | {seconds:.1f} |", flush=True)
        if not names:
            done = copy.tests(named_by(chosen))
            print(f"\nwithout a defect: {done.stdout.strip().splitlines()[-1]}")
            survived += done.returncode != 0
    return 1 if survived else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
