"""List the versions of the documentation that lie beside each other in a folder.

    python docs/versions.py                     # print the version that is built now
    python docs/versions.py docs/_build/html    # list those that are there

The list is a script, ``versions.js``, which each page of each version loads, so that old pages
know new versions too, and without a web server. ``index.html`` leads to the newest release.
"""

from __future__ import annotations

from importlib.metadata import version
import json
from pathlib import Path
import sys

from packaging.version import InvalidVersion
from packaging.version import Version


_SCRIPT = """\
(() => {{
  const versions = {versions};
  const box = document.getElementById("versions");
  if (!box) return;
  const select = box.querySelector("select");
  select.replaceChildren(...versions.map((name) => new Option(name, name)));
  select.value = box.dataset.here;
  select.disabled = versions.length < 2;
  select.addEventListener("change", () => {{
    location.href = `${{box.dataset.root}}../${{select.value}}/index.html`;
  }});
}})();
"""

_INDEX = """\
<!doctype html>
<html lang="en">
  <head>
    <meta charset="utf-8">
    <title>optuna_quant</title>
    <meta http-equiv="refresh" content="0; url={newest}/index.html">
  </head>
  <body><a href="{newest}/index.html">optuna_quant {newest}</a></body>
</html>
"""


def found(folder: Path) -> list[str]:
    """The versions in a folder, the newest release first and what is no release last."""
    versions = []
    for index in folder.glob("*/index.html"):
        try:
            versions.append(Version(index.parent.name))
        except InvalidVersion:
            continue
    versions.sort(key=lambda v: (not v.is_prerelease, v), reverse=True)
    return list(map(str, versions))


def main(argv: list[str]) -> None:
    """Print the version, or list those in a folder."""
    if not argv:
        print(Version(version("optuna_quant")))
        return
    folder = Path(argv[0])
    versions = found(folder)
    if not versions:
        raise SystemExit(f"{folder}: there is no documentation of any version in it.")
    (folder / "versions.js").write_text(_SCRIPT.format(versions=json.dumps(versions)))
    (folder / "index.html").write_text(_INDEX.format(newest=versions[0]))


if __name__ == "__main__":
    main(sys.argv[1:])
