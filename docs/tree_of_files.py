"""Write the tree of CONTRIBUTING.md, one line a file, from the first lines of the docstrings.

Run: python docs/tree_of_files.py
"""

from __future__ import annotations

import ast
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent.parent
PAGE = PACKAGE / "CONTRIBUTING.md"
START, END = "<!-- tree: python docs/tree_of_files.py -->", "<!-- end of tree -->"
FOLDERS = ("adapter", "pipeline", "benchmarks")


def first_line(path: Path) -> str:
    """Return what a module says of itself, in one line; empty if it says nothing."""
    text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    return text.split("\n\n")[0].split("\n")[0].strip()


def tree() -> str:
    """Return the tree as Markdown: folders, their modules, one line each."""
    lines = ["```text"]
    for name in ("cli.py", "__init__.py"):
        lines.append(f"{name}  {first_line(PACKAGE / name)}")
    for folder in FOLDERS:
        seen: set[Path] = set()
        for path in sorted((PACKAGE / folder).rglob("*.py"), key=_order):
            parts, said = path.relative_to(PACKAGE).parts, first_line(path)
            is_folder = path.name == "__init__.py"
            if path.parent not in seen and not is_folder:  # a folder of scripts
                lines.append(f"{'  ' * (len(parts) - 2)}{path.parent.name}/")
            seen.add(path.parent)
            name = f"{parts[-2]}/" if is_folder else path.name
            indent = "  " * (len(parts) - (2 if is_folder else 1))
            lines.append(f"{indent}{name}  {said}".rstrip())
    return "\n".join([*lines, "```"])


def _order(path: Path) -> tuple[tuple[int, str], ...]:
    """Sort a folder's own line first, then its modules, then its folders."""
    parts = path.relative_to(PACKAGE).parts
    name = "" if path.name == "__init__.py" else path.name
    return (*((1, part) for part in parts[:-1]), (0, name))


def written(text: str) -> str:
    """Return a page with the present tree in it."""
    before, _, rest = text.partition(START)
    _, _, after = rest.partition(END)
    return f"{before}{START}\n{tree()}\n{END}{after}"


if __name__ == "__main__":
    PAGE.write_text(written(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
