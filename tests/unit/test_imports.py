"""Which room may import which, read from the syntax tree of every module: nothing is imported to find out."""

from __future__ import annotations

import ast
import configparser
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
# A room imports rows above its own, never a sibling; `obs` itself is the package, with its version.
ROWS = (
    ("errors", "clock"),
    ("record", "shm"),
    ("ring", "wire", "providers", "sample", "market", "select", "pressure", "segment", "pg", "ledger"),
    ("config", "log"),
    ("monitor", "lifecycle"),
    ("roles",),
    ("supervisor", "cli", "sim"),
)
ROW = {room: place for place, rooms in enumerate(ROWS) for room in rooms}
# Package -> the rooms that may import it. Heavy ones are named, so that a role pays only for what it uses.
OWNED = {"picows": {"wire", "sim"}, "psycopg": {"pg"}, "zstandard": {"segment"}, "setproctitle": {"supervisor", "sim"}}
# Environment: only what a person or systemd starts, and the two roles that fetch secrets which no file and no pipe may hold.
ENTRY_POINTS = {
    "supervisor/main.py", "supervisor/notify.py", "sim/__main__.py", "cli/main.py", "cli/check.py", "cli/terminal.py",
    "roles/feed.py", "roles/poll.py",
}  # fmt: skip
NO_IO = {
    "socket", "ssl", "select", "selectors", "asyncio", "threading", "multiprocessing", "subprocess", "time", "logging", "os", "io",
    "pathlib", "tempfile", "shutil", "urllib", "http", "aiohttp", "random", "uvloop", "psutil",
}  # fmt: skip
# What costs a feed nothing to know: it must start fast and stay small, because there is one per provider.
HEAVY = {"pandas", "exchange_calendars", "polars", "prometheus_client", "rich", "aiohttp"}


def modules() -> list[Path]:
    found = sorted((ROOT / "obs").rglob("*.py"))
    assert len(found) > 50
    return found


def name_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def room_of(name: str) -> str:
    """obs.record.schema -> record; obs -> ""."""
    return [*name.split("."), ""][1]


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def imports(path: Path) -> Iterator[tuple[str, bool]]:
    """Yield (dotted name, whether at the top of the module) of everything that a module imports, wherever it does."""
    top = set(map(id, tree(path).body))
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, id(node) in top
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            assert node.module is not None
            for alias in node.names:
                # `from obs.sim import x` and `from obs import sim` are the same.
                yield f"{node.module}.{alias.name}", id(node) in top


def judged(path: Path) -> Iterator[str]:
    """Yield what is wrong with the imports of one module."""
    here = room_of(name_of(path))
    for name, _ in imports(path):
        package = name.split(".")[0]
        if package == "obs":
            there = room_of(name)
            if there in ("", "__version__", here):
                continue
            if there not in ROW:
                yield f"imports {name}, which is in no row"
            elif here not in ROW:
                yield f"imports {name} from outside the rooms"
            elif ROW[there] >= ROW[here]:
                yield f"row {ROW[here]} imports {name} of row {ROW[there]}"
        elif package in OWNED and here not in OWNED[package]:
            yield f"imports {package}, which only {sorted(OWNED[package])} may"


def test_a_room_imports_lower_rows_only() -> None:
    wrong = {name_of(path): found for path in modules() if (found := list(judged(path)))}
    assert wrong == {}


def test_every_room_has_a_row() -> None:
    rooms = {room_of(name_of(path)) for path in modules()} - {""}
    assert rooms <= set(ROW)
    assert set(ROW) <= rooms, "a row names a room that is not built"


def test_nothing_imports_the_simulated_exchanges() -> None:
    importers = [name_of(path) for path in modules() for name, _ in imports(path) if room_of(name) == "sim" and name.startswith("obs.")]
    assert [name for name in importers if room_of(name) != "sim"] == []


def test_the_simulated_exchanges_do_not_share_the_decoders() -> None:
    """What they say is written from the venue's sheet a second time: a shared mistake would not show."""
    sim = [path for path in modules() if room_of(name_of(path)) == "sim"]
    assert [name for path in sim for name, _ in imports(path) if name.startswith(("obs.providers", "obs.wire"))] == []


def test_ledger_knows_records_and_shared_memory_alone() -> None:
    ledger = [path for path in modules() if room_of(name_of(path)) == "ledger"]
    rooms = {room_of(name) for path in ledger for name, _ in imports(path) if name.startswith("obs.")}
    assert rooms <= {"ledger", "record", "shm"}


def test_a_provider_does_no_io() -> None:
    for path in modules():
        if room_of(name_of(path)) == "providers":
            used = {name.split(".")[0] for name, _ in imports(path) if not name.startswith("urllib.parse.")}
            assert not used & (NO_IO - {"io"}), f"{name_of(path)} imports {used & NO_IO}"  # io: a zip that is in memory already


@pytest.mark.parametrize("room", ["sample", "ledger", "record"])
def test_pure_rooms_read_no_clock(room: str) -> None:
    for path in modules():
        if room_of(name_of(path)) == room:
            used = {name.split(".")[0] for name, _ in imports(path)}
            assert not used & (NO_IO - {"io"}), f"{name_of(path)} imports {used & NO_IO}"


def test_one_module_reads_the_clocks_of_data() -> None:
    """Times that are stored come from obs.clock; elsewhere `time` is for sleeping and deadlines."""
    for path in modules():
        if room_of(name_of(path)) in ("sim", "clock"):  # the simulated exchanges are another machine
            continue
        for node in ast.walk(tree(path)):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "time":
                assert node.attr not in ("time", "time_ns"), f"{name_of(path)}:{node.lineno} reads the wall clock"


def test_only_entry_points_read_the_environment() -> None:
    found = set()
    for path in modules():
        for node in ast.walk(tree(path)):
            reads = isinstance(node, ast.Attribute) and node.attr in ("environ", "environb", "getenv")
            if reads and isinstance(node.value, ast.Name) and node.value.id == "os":
                found.add(path.relative_to(ROOT / "obs").as_posix())
        assert not any(name in ("os.environ", "os.getenv") for name, _ in imports(path)), name_of(path)
    assert found == ENTRY_POINTS, "justify the new one, or take the one that is gone from the list"


def test_the_supervisor_imports_no_role() -> None:
    """A broken role must not break supervision: the child imports it by name."""
    for path in modules():
        if room_of(name_of(path)) == "supervisor":
            assert not [name for name, _ in imports(path) if name.startswith("obs.roles")], name_of(path)


def reached(start: str, known: dict[str, Path]) -> dict[str, set[str]]:
    """Return package -> importers, of everything that importing `start` imports at the top of some module."""
    waiting, seen, found = [start], set(), dict[str, set[str]]()
    while waiting:
        name = waiting.pop()
        if name in seen or name not in known:
            continue
        seen.add(name)
        waiting += [name.rpartition(".")[0]]
        for target, top in imports(known[name]):
            if not top:
                continue
            if target.startswith("obs"):
                waiting += [target, target.rpartition(".")[0]]
            else:
                found.setdefault(target.split(".")[0], set()).add(name)
    return found


@pytest.mark.parametrize("role", ["feed", "poll", "archive", "load", "keeper"])
def test_data_roles_import_nothing_heavy_at_their_start(role: str) -> None:
    known = {name_of(path): path for path in modules()}
    found = reached(f"obs.roles.{role}", known)
    assert "numpy" in found
    assert {package: found[package] for package in HEAVY & set(found)} == {}
    if role in ("feed", "poll", "keeper"):
        assert "psycopg" not in found
    if role != "feed":
        assert "uvloop" not in found


@pytest.mark.parametrize("path", [path for path in modules() if path.name == "__init__.py"], ids=name_of)
def test_a_room_tells_its_purpose_and_exports_little(path: Path) -> None:
    body = tree(path).body
    assert ast.get_docstring(tree(path)), "no docstring"
    for node in body:
        plain = isinstance(node, ast.Import | ast.ImportFrom | ast.Assign | ast.AnnAssign)
        assert plain or (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)), f"line {node.lineno} runs something"
    exported = [
        ast.literal_eval(node.value)
        for node in body
        if isinstance(node, ast.Assign) and [ast.unparse(target) for target in node.targets] == ["__all__"]
    ]
    bound = {alias.asname or alias.name for node in body if isinstance(node, ast.ImportFrom) for alias in node.names} - {"annotations"}
    if not bound and not exported:
        return
    assert len(exported) == 1, "imports names without an __all__"
    assert set(exported[0]) >= bound
    assert len(exported[0]) <= 10, exported[0]


def test_every_module_begins_alike() -> None:
    for path in modules():
        assert ast.get_docstring(tree(path)), f"{name_of(path)} has no docstring"
        code = [node for node in tree(path).body if not (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant))]
        if code and path.name not in ("__init__.py", "__main__.py"):
            assert ast.unparse(code[0]) == "from __future__ import annotations", name_of(path)


def test_every_package_is_installed() -> None:
    """A folder that setup.cfg does not list is missing in an ordinary install."""
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    listed = set(setup["options"]["packages"].split())
    packages = {name_of(path) for path in modules() if path.name == "__init__.py"}
    assert packages == {name for name in listed if not name.startswith("obs.sql")}
