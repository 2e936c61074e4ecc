"""Make top.png and status.png from what runs: `python ops/screenshots/terminal.py --data demo-data`, a few minutes after `ops/run`.

Each is what a real terminal shows (tmux tells the letters and colours), drawn by headless Chromium. Needs tmux, chromium, a font that
has blocks (fonts-dejavu-core), and Pillow to make the files small.
"""

from __future__ import annotations

import argparse
import io
import re
import shlex
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from PIL import Image
from rich.console import Console
from rich.terminal_theme import TerminalTheme
from rich.text import Text

SIZES = {"top": (112, 37), "status": (112, 24)}
SHOWN_AFTER_S = {"top": 12.0, "status": 3.0}  # rates are over the last seconds
FONT_PX, LINE_PX, COLUMN_PX, EDGE_PX, SCALE = 15, 18, 9.03, 12, 1.5
COLOURS = 48
DARK = TerminalTheme(
    (16, 20, 24), (214, 219, 224),
    # black, red, green, yellow, blue, magenta, cyan, white
    [(16, 20, 24), (240, 92, 92), (92, 200, 120), (232, 190, 84), (98, 160, 240), (196, 132, 226), (96, 200, 210), (214, 219, 224)],
)  # fmt: skip
PAGE = """<!doctype html><meta charset="utf-8"><style>body {{margin: 0; padding: {edge}px; background: {background}; color: {foreground}}}
pre {{margin: 0; font: {font}px/{line}px "DejaVu Sans Mono", "NanumGothicCoding", monospace}}</style><pre>{code}</pre>"""


def seen(name: str, data: str) -> str:
    """Return the screen of a command, with its colours."""
    columns, lines = SIZES[name]
    with tempfile.TemporaryDirectory() as folder:

        def tmux(*words: str) -> str:
            return subprocess.run(["tmux", "-S", f"{folder}/socket", *words], check=True, capture_output=True, text=True).stdout

        obs = shlex.join([sys.executable, "-m", "obs.cli", "--data", data, name])
        tmux("-f", "/dev/null", "new-session", "-d", "-x", str(columns), "-y", str(lines), f"{obs}; sleep 60")
        try:
            time.sleep(SHOWN_AFTER_S[name])
            return tmux("capture-pane", "-p", "-e").rstrip("\n")
        finally:
            tmux("kill-server")


def drawn(name: str, text: str) -> Image.Image:
    """Return the picture of a screen."""
    columns, lines = SIZES[name][0], len(text.splitlines())
    console = Console(record=True, width=columns, file=io.StringIO(), force_terminal=True, color_system="truecolor")
    plain = re.sub(r"\x1b\[(0;)?7m(\x1b\[39m\x1b\[49m)?", "\x1b[0;30;47m", text)  # HTML knows no inverse video
    console.print(Text.from_ansi(plain, no_wrap=True), overflow="crop", soft_wrap=True)
    page = PAGE.format(
        edge=EDGE_PX, font=FONT_PX, line=LINE_PX, background=DARK.background_color.hex, foreground=DARK.foreground_color.hex,
        code=console.export_html(theme=DARK, inline_styles=True, code_format="{code}"),
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        html, png = Path(folder, "page.html"), Path(folder, "page.png")
        html.write_text(page, encoding="utf-8")
        size = f"{int(columns * COLUMN_PX) + 2 * EDGE_PX},{lines * LINE_PX + 2 * EDGE_PX}"
        subprocess.run(
            ["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", f"--force-device-scale-factor={SCALE}",
             f"--window-size={size}", f"--screenshot={png}", html.as_uri()], check=True, capture_output=True, cwd=folder,
        )  # fmt: skip
        return Image.open(png).convert("RGB").quantize(COLOURS)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="demo-data", help="data directory of what runs (default: demo-data)")
    parser.add_argument("--to", type=Path, default=Path(__file__).parent, help="where the pictures go (default: beside this file)")
    arguments = parser.parse_args()
    for name in SIZES:
        path = arguments.to / f"{name}.png"
        drawn(name, seen(name, arguments.data)).save(path, optimize=True)
        print(f"{path}: {path.stat().st_size >> 10} KiB")


if __name__ == "__main__":
    main()
