"""Checks README and docs: no page is empty, local links lead somewhere, Python knows its names.

Run it with `make docs`: prints each fault as ``file:line: what``, ends with 1 if there is one.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from urllib.parse import unquote

ROOT = Path(__file__).resolve().parent.parent
LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^()\s]+(?:\([^()]*\))?)\)|!\[[^\]]*\]\(([^()\s]+)\)")
FENCE = re.compile(r"^( *)(`{3,}|~{3,})\s*([\w+-]*)")
NAMES = "F401,F811,F821,F822,F823"  # ruff's: unused imports, redefined and unknown names
HEADING = re.compile(r"^#{1,6}\s+(.*?)\s*#*$")


def pages() -> list[Path]:
    """List the pages: at the top level, and below docs."""
    return [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]


def faults(page: Path) -> Iterator[str]:
    """Yield what is wrong in *page*."""
    where = page.relative_to(ROOT)
    text = page.read_text(encoding="utf-8")
    if not text.strip():
        yield f"{where}:1: the page is empty"
    prose, blocks = split(text)
    for number, line in prose:
        for match in LINK.finditer(re.sub(r"`[^`]*`", "", line)):
            target = unquote(match[1] or match[2])
            if fault := broken(page, target):
                yield f"{where}:{number}: {fault}"
    for number, language, code in blocks:
        if language in {"python", "py"}:
            try:
                # Top-level await is how a reader's shell and our snippets talk.
                compile(code, str(where), "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
            except SyntaxError as error:
                yield f"{where}:{number + (error.lineno or 0)}: python block: {error.msg}"


def nameless(all_pages: Iterable[Path]) -> Iterator[str]:
    """Yield names in Python blocks that come from nowhere, or are imported for nothing."""
    places = {}
    with tempfile.TemporaryDirectory() as folder:
        for page in all_pages:
            for number, language, code in split(page.read_text(encoding="utf-8"))[1]:
                if language in {"python", "py"}:
                    name = f"block{len(places)}.py"
                    (Path(folder) / name).write_text(code + "\n", encoding="utf-8")
                    places[name] = (page.relative_to(ROOT), number)
        command = ["ruff", "check", "--isolated", "--quiet", "--no-cache", "--select", NAMES]
        told = subprocess.run(  # noqa: S603 - our own command
            [sys.executable, "-m", *command, "--output-format", "concise", folder],
            capture_output=True,
            text=True,
            check=False,
        ).stdout
    for name, line, what in re.findall(r"(block\d+\.py):(\d+):\d+: (.+)", told):
        page, number = places[name]
        yield f"{page}:{number + int(line)}: {what}"


def split(text: str) -> tuple[list[tuple[int, str]], list[tuple[int, str, str]]]:
    """Part a page into numbered lines of prose, and code blocks (line, language, code)."""
    prose: list[tuple[int, str]] = []
    blocks: list[tuple[int, str, str]] = []
    fence, language, indent, start, code = "", "", 0, 0, [""]
    for number, line in enumerate(text.splitlines(), 1):
        mark = FENCE.match(line)
        if not fence and mark:
            indent, fence, language = len(mark[1]), mark[2], mark[3].lower()
            start, code = number, []
        elif fence and line.strip().startswith(fence) and not line.strip().strip(fence[0]):
            blocks.append((start, language, "\n".join(code)))
            fence = ""
        elif fence:
            code.append(line[indent:] if not line[:indent].strip() else line)
        else:
            prose.append((number, line))
    if fence:
        blocks.append((start, "python", "(unclosed block"))
    return prose, blocks


def broken(page: Path, target: str) -> str:
    """Tell what is wrong with a link; empty when it is fine or leads out of the repository."""
    if re.match(r"[a-z][a-z0-9+.-]*:", target):
        return ""
    path, _, anchor = target.partition("#")
    file = (
        (ROOT / path.lstrip("/") if path.startswith("/") else page.parent / path) if path else page
    )
    if not file.exists():
        return f"no such file: {target}"
    if anchor and file.suffix == ".md" and anchor not in anchors(file):
        return f"no such heading: {target}"
    return ""


def anchors(page: Path) -> set[str]:
    """Give the anchors of a page's headings, as code hosts make them."""
    found: set[str] = set()
    for _, line in split(page.read_text(encoding="utf-8"))[0]:
        if heading := HEADING.match(line):
            words = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading[1]).lower()
            slug = re.sub(r"[^\w\- ]", "", words).replace(" ", "-")
            copies = sum(1 for other in found if re.fullmatch(re.escape(slug) + r"(-\d+)?", other))
            found.add(f"{slug}-{copies}" if copies else slug)
    return found


def main() -> int:
    """Print every fault; 1 if there is one."""
    all_pages = pages()
    found = [fault for page in all_pages for fault in faults(page)]
    found += nameless(all_pages)
    for fault in found:
        print(fault)
    print(f"docs: {len(all_pages)} pages, {len(found)} faults")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
