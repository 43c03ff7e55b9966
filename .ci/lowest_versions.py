"""Print a requirement for each dependency of pyproject.toml at its lowest version."""

from __future__ import annotations

from pathlib import Path
import sys
import tomllib

from packaging.requirements import Requirement


PROJECT = tomllib.loads(Path("pyproject.toml").read_text(encoding="utf-8"))["project"]


def lowest(text: str) -> str | None:
    """The requirement with its lowest version; None if it names none."""
    requirement = Requirement(text)
    found = [spec.version for spec in requirement.specifier if spec.operator == ">="]
    return f"{requirement.name}=={found[0]}" if found else None


def main(extras: list[str]) -> None:
    texts = list(PROJECT["dependencies"])
    for extra in extras:
        texts += PROJECT["optional-dependencies"][extra]
    print("\n".join(sorted({found for text in texts if (found := lowest(text))})))


if __name__ == "__main__":
    main(sys.argv[1:])
