"""The docs are complete and true to the code: commands, options, keys, links, dependencies."""

from __future__ import annotations

import importlib
import re
import subprocess
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING

import click
import msgspec
import pytest

from opsboard.config.schema import Config

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parents[2]
MOST_LINES = 500
TOP_OF_README = 12
# Hosts of package registries and places of one machine. The brackets keep this file from matching itself.
PRIVATE = re.compile(
    r"py[p]i\.org|python[h]osted|registry\.npm[j]s|download\.py[t]orch|(security|deb|archive)\.(deb[i]an|ubunt[u])"
    r"|/wor[k]/(main|shared|steering|\.library)|/far[m]/|bash_[j]obs|/opt/(py[p]i|whee[l]s)|/root/\.(py[e]nv|cache)"
)
HEADING = re.compile(r"^#+ +(.*)$", re.MULTILINE)
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
CODE_BLOCK = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)


def tracked(*patterns: str) -> list[Path]:
    """Return the files that git tracks and that are there, in text or not."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--", *patterns], cwd=ROOT, capture_output=True, text=True, timeout=10, check=True
    )
    return [ROOT / name for name in listed.stdout.split("\0") if name and (ROOT / name).is_file()]


def commands(group: click.Group, path: str) -> Iterator[tuple[str, click.Command]]:
    """Yield every visible command below the group with its words."""
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        if command is None or command.hidden:
            continue
        yield f"{path} {name}", command
        if isinstance(command, click.Group):
            yield from commands(command, f"{path} {name}")


def root_command() -> click.Group:
    """Return the click group behind the console script."""
    main = importlib.import_module("opsboard.cli.main")
    return next(value for value in vars(main).values() if isinstance(value, click.Group))


def sections(text: str) -> dict[str, str]:
    """Return the page's text by second-level heading."""
    parts = re.split(r"^## +(.*)$", text, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def test_every_command_and_option_is_documented() -> None:
    text = (ROOT / "docs/commands.md").read_text()
    by_verb = sections(text)
    root = root_command()
    missing = []
    for words, command in [("opsboard", root), *commands(root, "opsboard")]:
        verb = " ".join(words.split()[:2])
        section = "".join(body for heading, body in by_verb.items() if f"`{verb}" in heading)
        if words not in text:
            missing.append(words)
        for parameter in command.params:
            if isinstance(parameter, click.Option) and not parameter.hidden:
                option = max(parameter.opts, key=len)
                if not re.search(rf"{re.escape(option)}(?![\w-])", text if command is root else section):
                    missing.append(f"{words} {option}")
    assert missing == []


def config_keys() -> list[tuple[str, str]]:
    """Return (section, key) of everything that the configuration file may hold."""
    keys = []
    for section in msgspec.structs.fields(Config):
        structs = [section.type, *getattr(section.type, "__args__", ())]
        for struct in structs:
            if isinstance(struct, type) and issubclass(struct, msgspec.Struct):
                keys += [(section.encode_name, key.encode_name) for key in msgspec.structs.fields(struct)]
    return keys


@pytest.mark.parametrize(("section", "key"), config_keys())
def test_every_config_key_is_documented(section: str, key: str) -> None:
    text = (ROOT / "docs/configuration.md").read_text()
    parts = re.split(r"^(#+ .*)$", text, flags=re.MULTILINE)
    bodies = [body for head, body in zip(parts[1::2], parts[2::2], strict=True) if f"[{section}]" in head]
    assert bodies, f"docs/configuration.md has no heading with [{section}]"
    assert any(f"`{key}`" in body for body in bodies), f"[{section}] does not name `{key}`"


def anchors(text: str) -> set[str]:
    """Return the anchors that a page's headings get when it is shown."""
    heads = HEADING.findall(CODE_BLOCK.sub("", text))
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


@pytest.mark.parametrize("page", tracked("*.md"), ids=lambda page: str(page.relative_to(ROOT)))
def test_relative_links_resolve(page: Path) -> None:
    text = page.read_text()
    broken = []
    for link in LINK.findall(CODE_BLOCK.sub("", text)):
        if re.match(r"[a-z]+:", link):
            continue
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        if not target.exists() or (anchor and anchor not in anchors(target.read_text())):
            broken.append(link)
    assert broken == []


def test_the_readme_opens_with_the_two_commands() -> None:
    top = "\n".join((ROOT / "README.md").read_text().splitlines()[:TOP_OF_README])
    assert "make demo" in top
    assert "make test" in top


def test_every_dependency_is_explained() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    groups = project["dependency-groups"]
    wanted = [*project["project"]["dependencies"], *groups["test"], *groups["lint"]]
    names = {re.split(r"[<>=\[]", requirement)[0] for requirement in wanted}
    text = (ROOT / "docs/dependencies.md").read_text()
    assert {name for name in names if f"| {name} |" not in text} == set()


def test_every_make_target_is_explained() -> None:
    targets = re.findall(r"^([a-z-]+):.*## ", (ROOT / "Makefile").read_text(), re.MULTILINE)
    text = (ROOT / "docs/contributing.md").read_text()
    assert [target for target in targets if f"`make {target}`" not in text] == []


def test_no_source_file_is_longer_than_agreed() -> None:
    long = {str(path.relative_to(ROOT)): len(path.read_text().splitlines()) for path in tracked("*.py")}
    assert {name: lines for name, lines in long.items() if lines > MOST_LINES} == {}


def test_nothing_names_a_registry_or_a_place_of_one_machine() -> None:
    found = []
    for path in tracked():
        text = path.read_bytes().decode(errors="replace")
        found += [f"{path.relative_to(ROOT)}: {hit.group()}" for hit in PRIVATE.finditer(text)]
    assert found == []


def test_the_locks_name_no_index_and_pin_by_hash() -> None:
    for lock in (ROOT / "requirements").glob("*.txt"):
        text = lock.read_text()
        assert re.findall(r"^ *--?(?!-?hash=)\S+|https?://\S+", text, re.MULTILINE) == [], lock.name
        pins = re.findall(r"^[a-z0-9][\w.-]*==\S+", text, re.MULTILINE)
        if lock.name != "real-vllm-torch.txt":
            assert len(pins) > 20
            assert len(re.findall(r"^[a-z0-9].*==.*\\\n +--hash=sha256:", text, re.MULTILINE)) == len(pins)
