"""Pages of the site: the repository's README files, tutorials and results as they stand, and a reference a folder."""

from __future__ import annotations

import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.nav import Navigation
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "hf_transfer"
LINK = re.compile(r"(\]\()((?!https?:|#|mailto:)[^)#\s]+)((?:#[^)]*)?\))")
TUTORIALS = (
    *("README", "own_csv", "own_images", "rank_the_hub", "adapt_without_labels"),
    *("add_a_method", "add_a_task", "many_gpus"),
)
SECTIONS = {
    "Tutorials": [f"recipes/tutorials/{name}.md" for name in TUTORIALS],
    "Plans and recipes": ["recipes/README.md", "recipes/lifecycle/README.md"],
}


def written() -> list[Path]:
    """Markdown files of the repository that are pages."""
    found = [ROOT / "README.md", PACKAGE / "CHANGELOG.md", *PACKAGE.rglob("README.md")]
    return found + sorted((ROOT / "recipes").rglob("*.md"))


def folders() -> list[Path]:
    """The package's folders, each of which has a page of the reference."""
    return sorted(path for path in PACKAGE.iterdir() if (path / "__init__.py").is_file())


def reference(folder: Path) -> str:
    """The page of one folder: every public module of it."""
    modules = sorted(path for path in folder.rglob("[!_]*.py") if (path.parent / "__init__.py").is_file())
    names = [".".join(path.relative_to(ROOT).with_suffix("").parts) for path in modules]
    return "\n\n".join([f"# hf_transfer.{folder.name}", *(f"::: {name}" for name in names)]) + "\n"


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """The order of the pages."""
    families = [path.relative_to(ROOT).as_posix() for path in sorted(PACKAGE.rglob("README.md"))]
    results = [
        path.relative_to(ROOT).as_posix() for path in sorted((ROOT / "recipes/benchmarks/results").glob("*.md"))
    ]
    config.nav = [
        {"hf_transfer": "README.md"},
        *({title: pages} for title, pages in SECTIONS.items()),
        {"Methods": families},
        {"Measured": results},
        {"Reference": [f"reference/{folder.name}.md" for folder in folders()]},
        {"Changes": "hf_transfer/CHANGELOG.md"},
    ]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """The pages, and the files that they link to."""
    wanted = {path.relative_to(ROOT).as_posix(): path for path in written()}
    for page in written():
        for _, target, _ in LINK.findall(page.read_text(encoding="utf-8")):
            path = (page.parent / target).resolve()
            if path.is_file() and path.is_relative_to(ROOT):
                wanted[path.relative_to(ROOT).as_posix()] = path
    for name, path in wanted.items():
        files.append(File.generated(config, name, abs_src_path=str(path)))
    for folder in folders():
        files.append(File.generated(config, f"reference/{folder.name}.md", content=reference(folder)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """A link to a folder leads to its README, or to its page of the reference; without either it is no link."""
    here = Path(page.file.src_uri).parent
    up = "../" * len(here.parts)

    def led(match: re.Match) -> str:
        target = (ROOT / here / match[2]).resolve()
        if not target.is_dir():
            return match[0]
        if (target / "README.md").is_file():
            return f"{match[1]}{match[2].rstrip('/')}/README.md{match[3]}"
        inside = target.relative_to(ROOT).parts
        if inside[:1] == ("hf_transfer",) and len(inside) > 1:
            return f"{match[1]}{up}reference/{inside[1]}.md)"
        return f"{match[1]}{up}recipes/README.md)"

    return LINK.sub(led, markdown)


def on_nav(nav: Navigation, config: MkDocsConfig, files: Files) -> Navigation:
    """Pages of the results keep the names of their files."""
    for page in nav.pages:
        if page.file.src_uri.startswith("recipes/benchmarks/results/") and not page.file.src_uri.endswith("README.md"):
            page.title = Path(page.file.src_uri).stem.replace("_", " ")
    return nav
