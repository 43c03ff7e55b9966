"""Take the pictures of a terminal, a notebook, the dashboard and a report of the digits example.

    python docs/draw_screens.py terminal      # needs tmux, Pillow and Chromium
    python docs/draw_screens.py notebook      # needs nbconvert, ipykernel, Pillow and Chromium
    python docs/draw_screens.py dashboard     # needs optuna-dashboard, Pillow and Chromium
    PYTHONPATH=. python docs/draw_screens.py large     # the same, of 500 ops and 1,000 trials
    python docs/draw_screens.py report        # needs Pillow and Chromium

The times in them, and with them the answer, are those of the machine.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from collections.abc import Iterator
from contextlib import contextmanager
import io
from pathlib import Path
import shutil
import socket
import subprocess
import sys
import tempfile
import time

from PIL import Image
from PIL import ImageChops
from rich.console import Console
from rich.text import Text


DOCS = Path(__file__).resolve().parent
DIGITS = DOCS.parent / "examples" / "digits"
IMAGES = DOCS / "images"
FILES = ("model.onnx", "calib.npz", "eval.npz")

COLUMNS, LINES = 120, 44
# Without recipes there is something to decide for the ops.
COMMAND = (
    "optuna-quant tune model.onnx --calibration calib.npz --data eval.npz "
    "--tolerable-loss 0.01 --timeout 2m --recipes none"
)
END = "written: model.quantized.onnx"
SECONDS = 600.0
SERVED = 60.0
"""How long the dashboard is given to start and to publish what the study holds."""

CELLS = (
    "import optuna_quant\n\n"
    "result = optuna_quant.tune(\n"
    '    "model.onnx",\n'
    '    calibration_data="calib.npz",\n'
    '    data="eval.npz",\n'
    "    tolerable_loss=0.01,\n"
    "    timeout=60,\n"
    '    recipes="none",\n'
    ")",
    "result",
    'result.report()[["op", "op_type", "weight", "runs", "seconds_gained"]]',
)


def terminal(folder: Path) -> None:
    """The command in a terminal: in the middle of the search, and at its end."""
    tmux = ["tmux", "-L", f"screens{folder.name}"]

    def do(*words: str) -> str:
        return subprocess.run([*tmux, *words], check=True, capture_output=True, text=True).stdout

    size = ("-x", str(COLUMNS), "-y", str(LINES))
    do("new-session", "-d", "-s", "s", *size, "-c", str(folder), "bash --norc --noprofile")
    try:
        here = Path(sys.executable).parent
        do("send-keys", "-t", "s", f"PS1='$ ' PATH={here}:$PATH; clear", "Enter")
        time.sleep(1)
        do("send-keys", "-t", "s", COMMAND, "Enter")
        seen, stop = [], time.monotonic() + SECONDS
        while not seen or END not in seen[-1]:
            if time.monotonic() > stop:
                raise SystemExit(f"The search has not ended after {SECONDS:g} s:\n{seen[-1]}")
            time.sleep(0.2)
            seen.append(do("capture-pane", "-e", "-p", "-t", "s"))
    finally:
        do("kill-server")
    live = [screen for screen in seen if "time left" in screen or "best" in screen]
    draw(live[2 * len(live) // 3], IMAGES / "terminal.png", folder)
    draw(seen[-1], IMAGES / "terminal_end.png", folder)


def draw(screen: str, image: Path, folder: Path) -> None:
    """Draw what a terminal shows, colours included."""
    console = Console(record=True, width=COLUMNS, file=io.StringIO(), force_terminal=True)
    console.print(Text.from_ansi(screen.rstrip()))
    page = folder / f"{image.stem}.html"
    styled = console.export_html(inline_styles=True, code_format=_PAGE)
    page.write_text(styled, encoding="utf-8")
    photograph(page, image, width=1100)


_PAGE = """\
<!doctype html>
<meta charset="utf-8">
<style>
  body {{ margin: 0; padding: 14px 18px; background: white; width: max-content; }}
  pre {{ margin: 0; font: 14px/1.35 "DejaVu Sans Mono", monospace; }}
</style>
<pre>{code}</pre>
"""


def notebook(folder: Path) -> None:
    """The same in a notebook: the table of trials, the result, and its report."""
    import nbconvert
    import nbformat

    cells = [nbformat.v4.new_code_cell(cell) for cell in CELLS]
    file = folder / "search.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=cells), file)
    run = nbconvert.preprocessors.ExecutePreprocessor(timeout=SECONDS)
    ran = nbformat.read(file, as_version=4)
    run.preprocess(ran, {"metadata": {"path": str(folder)}})
    for cell in ran.cells:  # Such as a warning that Optuna's progress bar has no widgets here.
        cell.outputs = [each for each in cell.outputs if each.get("name") != "stderr"]
    body, _ = nbconvert.HTMLExporter(template_name="lab").from_notebook_node(ran)
    page = folder / "search.html"
    page.write_text(body, encoding="utf-8")
    photograph(page, IMAGES / "notebook.png", width=1000)


def dashboard(folder: Path) -> None:
    """The page of a study in optuna-dashboard, and its note."""
    here = Path(sys.executable).parent
    search = COMMAND.split()[1:]
    record = ["--storage", "digits.journal", "--study-name", "digits"]
    # No answer is an answer as well; what it says of it is not looked at here.
    subprocess.run([here / "optuna-quant", *search, *record], cwd=folder, check=False)
    with _served(folder, record) as study:
        photograph(study, IMAGES / "dashboard.png", width=1310, height=2120, at=folder)
        photograph(
            f"{study}/note", IMAGES / "dashboard_note.png", width=1030, height=640, at=folder
        )


def large(folder: Path) -> None:
    """The page of a large study, of models that are none."""
    from benchmarks.dashboard import SyntheticBackend
    import optuna_quant

    backend = SyntheticBackend(500)
    optuna_quant.tune(
        backend=backend,
        evaluate=backend.accuracy,
        tolerable_loss=0.05,
        strategy="random",
        strategy_kwargs={"fallback": True},
        max_trials=1000,
        timeout=None,
        storage=str(folder / "large.journal"),
        study_name="large",
        show_progress=False,
    )
    with _served(folder, ["--storage", "large.journal", "--study-name", "large"]) as study:
        photograph(study, IMAGES / "dashboard_large.png", width=1310, height=2120, at=folder)


@contextmanager
def _served(folder: Path, record: list[str]) -> Iterator[str]:
    """Serve a study while it lasts; gives the address of its page."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    command = [Path(sys.executable).parent / "optuna-quant", "dashboard", *record, "--port", port]
    served = subprocess.Popen(command, cwd=folder)
    try:
        time.sleep(SERVED)
        yield f"http://127.0.0.1:{port}/dashboard/studies/0"
    finally:
        served.terminate()
        served.wait()


def report(folder: Path) -> None:
    """The upper part of the report's page."""
    page = folder / "report.html"
    search = [*COMMAND.split()[1:], "--report", str(page)]
    subprocess.run(
        [Path(sys.executable).parent / "optuna-quant", *search], cwd=folder, check=False
    )
    photograph(page, IMAGES / "report.png", width=1140, height=1400)


def photograph(
    page: Path | str, image: Path, *, width: int, height: int = 3000, at: Path | None = None
) -> None:
    """Take a picture of a page, without the white below and beside it.

    Args:
        page:
            The file, or an address.
        image:
            Where the picture goes.
        width:
            The width of the window.
        height:
            The height of the window.
        at:
            A folder for what is made on the way, for an address.
    """
    address = page if isinstance(page, str) else page.as_uri()
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        raise SystemExit("Chromium is not installed.")
    taken = page.with_suffix(".png") if isinstance(page, Path) else (at or DOCS) / "taken.png"
    subprocess.run(
        [
            chromium,
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--hide-scrollbars",
            "--virtual-time-budget=60000",
            *(["--force-device-scale-factor=0.8"] if isinstance(page, str) else []),
            f"--window-size={width},{height}",
            f"--screenshot={taken}",
            address,
        ],
        check=True,
        capture_output=True,
    )
    with Image.open(taken) as found:
        shown = found.convert("RGB")
    box = ImageChops.difference(shown, Image.new("RGB", shown.size, "white")).getbbox()
    if box is not None:
        shown = shown.crop((0, 0, min(shown.width, box[2] + 16), min(shown.height, box[3] + 16)))
    shown.quantize(256, Image.Quantize.MAXCOVERAGE).save(image, optimize=True)
    print(f"written: {image}")


def main() -> None:
    """Take those that are named."""
    kinds: dict[str, Callable[[Path], None]] = {
        "terminal": terminal,
        "notebook": notebook,
        "dashboard": dashboard,
        "large": large,
        "report": report,
    }
    parser = argparse.ArgumentParser(description="Take pictures for the documentation.")
    parser.add_argument("kinds", nargs="+", choices=kinds, metavar="|".join(kinds))
    for kind in parser.parse_args().kinds:
        with tempfile.TemporaryDirectory() as folder:
            for name in FILES:
                shutil.copy(DIGITS / name, folder)
            kinds[kind](Path(folder))


if __name__ == "__main__":
    main()
