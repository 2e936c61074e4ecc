"""An ordinary install, not an editable one, carries everything that runs: the SQL, and the pages of the monitor."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[2]
ASKED = """
import json, sys
from pathlib import Path
import obs
from obs.pg.statements import migrations, sql_folder, statement
pages = Path(obs.__file__).parent / "monitor" / "web"
print(json.dumps({
    "obs": obs.__file__,
    "migrations": [one.version for one in migrations()],
    "schema": "CREATE TABLE scalp_ticks" in (sql_folder() / "schema.sql").read_text(),
    "statement": "COPY" in statement("copy_scalp_ticks"),
    "pages": {str(one.relative_to(pages)): one.stat().st_size for one in pages.rglob("*") if one.is_file()},
}))
"""


@pytest.mark.timeout(300)
def test_a_wheel_brings_obs_its_sql_and_its_pages(tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    source.mkdir()
    for name in ("obs", "sql"):
        shutil.copytree(PROJECT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "setup.cfg", "README.md"):
        shutil.copy(PROJECT / name, source / name)
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(target), str(source)]
    subprocess.run(install, check=True, capture_output=True, text=True)
    shutil.rmtree(source)
    words, environ = [sys.executable, "-c", ASKED], {"PYTHONPATH": str(target)}
    asked = subprocess.run(words, check=True, capture_output=True, text=True, cwd="/", env=environ)
    answer = json.loads(asked.stdout)
    assert Path(answer["obs"]).is_relative_to(target)
    assert answer["migrations"] == [1, 2, 3, 4]
    assert answer["schema"]
    assert answer["statement"]
    web = PROJECT / "obs" / "monitor" / "web"
    assert answer["pages"] == {str(one.relative_to(web)): one.stat().st_size for one in web.rglob("*") if one.is_file()}
    assert {"index.html", "assets/lang/ko.json", "assets/vendor/echarts/LICENSE"} <= set(answer["pages"])
    assert (target / "bin" / "obs").exists()
