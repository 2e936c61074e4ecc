"""Coverage-guided fuzzing of one target by atheris: `python tests/fuzz TARGET --seconds 60`.

Starts from the kept corpus, prints what libFuzzer prints, and ends with exit code 0 if nothing was found. An input that breaks
the contract is written to --found (default: the working directory) as crash-<hash>, with a traceback on stderr; exit code not 0.
    python tests/fuzz --list                      names of the targets
    python tests/fuzz TARGET --input FILE …       run these inputs alone, without atheris
    python tests/fuzz --write-seeds               make tests/fuzz/corpus/*/seed_* anew
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

_HERE = Path(__file__).parent
_KEEP_MB = 2048
_PLANTED = "planted"  # a target with a defect put into it, by which the fuzzer itself is tested


def planted(data: bytes) -> None:
    """Break for an input that only a fuzzer which looks at coverage finds."""
    if data[:1] == b"o" and data[1:2] == b"b" and data[2:3] == b"s" and len(data) > 4:
        raise ValueError("planted")


def main() -> int:
    sys.path[:0] = [str(_HERE.parent), str(_HERE.parents[1])]
    sys.path = [path for path in sys.path if Path(path or ".").resolve() != _HERE]  # `fuzz.words`, never `words`
    parser = argparse.ArgumentParser(prog="python tests/fuzz", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("target", nargs="?")
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--runs", type=int, default=-1, help="so many inputs at most: with the same seed the same ones")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--found", type=Path, default=Path("."))
    parser.add_argument("--input", type=Path, nargs="+")
    parser.add_argument("--list", action="store_true")
    parser.add_argument("--write-seeds", action="store_true")
    args = parser.parse_args()
    if args.target is None:
        return _about(args)
    if args.input:
        from fuzz.targets import TARGETS

        for path in args.input:
            TARGETS[args.target].run(path.read_bytes())
        return 0
    return _fuzz(args)


def _about(args: argparse.Namespace) -> int:
    from fuzz.targets import TARGETS

    for target in TARGETS.values():
        if args.write_seeds:
            target.folder.mkdir(parents=True, exist_ok=True)
            for old in target.folder.glob("seed_*"):
                old.unlink()
            for number, seed in enumerate(dict.fromkeys(target.make_seeds())):
                (target.folder / f"seed_{number:02d}").write_bytes(seed)
        print(f"{target.name:16} {(target.run.__doc__ or '').splitlines()[0]}")
    return 0


def _fuzz(args: argparse.Namespace) -> int:
    from fuzz.take import MEMORY, SCRATCH

    if SCRATCH not in os.environ:
        # libFuzzer ends the process that it runs in, and no clean-up of ours happens there.
        with tempfile.TemporaryDirectory(prefix="obs-fuzz-", dir=MEMORY) as folder:
            child = [sys.executable, *sys.argv]
            return subprocess.run(child, env=os.environ | {SCRATCH: folder}, check=False).returncode
    import atheris

    folders: list[str] = []
    if args.target == _PLANTED:
        run = atheris.instrument_func(planted)
    else:
        with atheris.instrument_imports(include=["obs"]):
            from fuzz.targets import TARGETS
        target = TARGETS[args.target]
        run, folders = target.run, [str(target.folder)]
    new = Path(os.environ[SCRATCH], "corpus")
    new.mkdir()
    options = [
        f"-max_total_time={args.seconds}", f"-runs={args.runs}", f"-seed={args.seed}", f"-artifact_prefix={args.found}/",
        "-max_len=8192", "-timeout=20",
        f"-rss_limit_mb={_KEEP_MB}", "-use_value_profile=1", "-print_final_stats=1",
    ]  # fmt: skip
    atheris.Setup([sys.argv[0], *options, str(new), *folders], run)
    atheris.Fuzz()  # ends the process
    return 0


if __name__ == "__main__":
    sys.exit(main())
