"""What README.md and docs/ tell people to type exists: commands, flags, settings, files."""

import argparse
import ast
import importlib
import importlib.util
import json
import re

import doc_pages
import pytest
from doc_pages import A_FORMULA, NOT_RUN, PAGES, PRINTED, ROOT, RUN, RUN_ELSEWHERE, Block

import sid_jax.config
import sid_jax.sid
from sid_jax.digits import models
from sid_jax.errors import UserError
from sid_jax.runtime.cli import command_line, config_file
from sid_jax.runtime.cli.settings import settings_in

BLOCKS = list(doc_pages.blocks())
CODE = [block for block in BLOCKS if block.page == doc_pages.CODE_OF_TESTS and block.name not in NOT_RUN]
STANDS_FOR = {
    "configs/NAME.py": "configs/digits_1step.py", "configs/CONFIG.py": "configs/digits_1step.py",
    "CONFIG": "configs/digits_1step.py", "C": "configs/digits_1step.py", "...": "configs/digits_1step.py",
    "N": "2", "I": "0",
}  # fmt: skip
"""Words in the place of which a user writes another."""


class Parsed(Exception):
    """A command has taken its arguments, and its config."""


@pytest.fixture
def parse(monkeypatch):
    """A function that lets a command of ours parse its arguments, and do nothing else."""
    parse_args, of_others, load = command_line.Parser.parse_args, argparse.ArgumentParser.parse_args, config_file.load

    def parsed(self, args=None, namespace=None):
        found = parse_args(self, args, namespace)
        if "config" not in found:
            raise Parsed
        return found

    def parsed_by_others(self, args=None, namespace=None):
        of_others(self, args, namespace)
        raise Parsed

    def loaded(path, schema, overrides=()):
        load(path, schema, overrides)
        raise Parsed

    def run(module, arguments):
        name = f"{module}.__main__" if importlib.util.find_spec(module).submodule_search_locations else module
        with monkeypatch.context() as patched:
            patched.setattr(command_line.Parser, "parse_args", parsed)
            patched.setattr(argparse.ArgumentParser, "parse_args", parsed_by_others)
            patched.setattr(config_file, "load", loaded)
            with pytest.raises((Parsed, SystemExit)) as ended:
                importlib.import_module(name).main(arguments)
            assert ended.type is Parsed or ended.value.code == 0

    monkeypatch.chdir(ROOT)
    return run


def check(words, parse):
    """Checks a command that stands in a page."""
    words = [word for word in words if not re.fullmatch("[A-Z]+=.*", word)]
    words = [*words[:3], *(STANDS_FOR.get(word, word) for word in words[3:])] if words[3:] != ["..."] else words
    match words:
        case ["pip", "install", *what]:
            check_packages(what)
        case ["python", "-m", "pytest", *arguments]:
            assert all((ROOT / word).exists() for word in arguments if word.startswith("tests"))
        case ["python", "-m", "sid_jax.NAME" | "sid_jax.COMMAND", *_] | ["sid-jax", "NAME" | "COMMAND" | "--help", *_]:
            pass
        case ["tensorboard" | "curl", *_]:
            pass
        case ["python", "-m", module] | ["python", "-m", module, "..."]:  # named in passing
            assert importlib.util.find_spec(module)
        case ["python", "-m", module, *arguments]:
            parse(module, arguments)
        case ["sid-jax", command, *arguments]:
            parse(f"sid_jax.{command}", arguments)
        case ["python", script, *arguments] if script.startswith("benchmarks/"):
            parse(script.removesuffix(".py").replace("/", "."), arguments)
        case _:
            scripts = [word for word in words if word.startswith("launch/")]
            assert scripts and all((ROOT / script).is_file() for script in scripts), words


def check_packages(words):
    pinned = dict(re.findall(r"^([\w-]+)==(.*)$", (ROOT / "requirements-test.txt").read_text(), re.MULTILINE))
    pinned |= dict(re.findall(r"^([\w-]+)==(.*)$", (ROOT / "requirements.txt").read_text(), re.MULTILINE))
    for word in words:
        if word.endswith(".txt"):
            assert (ROOT / word).is_file()
        elif "==" in word:
            package, version = re.sub(r"\[.*\]", "", word).split("==")
            assert pinned[package] == version


def test_each_block_is_run_or_has_a_reason_not_to_be():
    """What is in none of the lists of doc_pages.py needs a place there."""
    names = [block.name for block in BLOCKS if block not in CODE]
    known = [*RUN, *RUN_ELSEWHERE, *NOT_RUN]
    assert sorted(names) == sorted(known)
    for name, file in RUN_ELSEWHERE.items():
        assert name.partition(":")[0] in (ROOT / file).read_text()


@pytest.mark.parametrize("page", PAGES)
def test_commands_are_as_the_commands_take_them(page, parse):
    for block in BLOCKS:
        if block.page == page and not block.language and NOT_RUN.get(block.name) not in (A_FORMULA, PRINTED):
            for words in doc_pages.commands_of(block.text):
                check(words, parse)
    for words in doc_pages.inline_commands(page):
        check(words, parse)


def test_python_is_python():
    for block in BLOCKS:
        if block.language == "python":
            compile(block.text, block.name, "exec")


def test_code_of_the_toy_family_is_that_of_the_tests():
    files = ("toy_family.py", "processes.py", "sid/test_combine.py")
    there = {ast.dump(node) for file in files for node in ast.parse((ROOT / "tests" / file).read_text()).body}
    for block in CODE:
        for node in ast.parse(block.text).body:
            assert ast.dump(node) in there, ast.unparse(node)


@pytest.mark.parametrize("page", PAGES)
def test_settings_that_are_named_exist(page):
    keys = {key for family in sid_jax.config.SECTIONS for key in sid_jax.config.settings_of(family)}
    keys |= set(settings_in(models.chapters())) | set(config_file.RENAMED)
    groups = {key.split(".")[0] for key in keys if "." in key}
    text = (ROOT / page).read_text(encoding="utf-8")
    named = {key for key in re.findall(r"--config\.([\w.]*\w)", text) if key not in ("KEY", "key")}
    for code in re.findall(r"`([a-z_]+\.[a-z_0-9]+)(?:=[^`]*)?`", text):
        group, leaf = code.split(".")
        if group in groups and leaf not in ("py", "txt", "json", "jsonl", "log", "md", *dir(sid_jax.sid)):
            named.add(code)
    assert named <= keys, named - keys


def test_a_wrong_command_is_found(parse):
    for command in (
        ["python", "-m", "sid_jax.train", "--config", "configs/digits_1step.py", "--config.nothing=1"],
        ["python", "-m", "sid_jax.sample", "--run", "runs/a", "--prompt", "a", "--out", "b"],
        ["python", "-m", "sid_jax.train", "--config", "configs/digits_9step.py"],
    ):
        with pytest.raises(UserError):
            check(command, parse)
    for command in (["pip", "install", "jax==0.1"], ["launch/nothing.sh"], ["pip", "install", "-r", "nothing.txt"]):
        with pytest.raises(AssertionError):
            check(command, parse)
    assert Block("a.md", "", "one\ntwo\n").name == "a.md: one"


def test_the_notebook_is_kept_with_what_it_shows():
    """It was run from top to bottom, without an error, and is small; test_docs_run.py runs it again."""
    file = ROOT / "docs/digits.ipynb"
    cells = json.loads(file.read_text(encoding="utf-8"))["cells"]
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1))
    outputs = [output for cell in code for output in cell["outputs"]]
    assert not any(output["output_type"] == "error" for output in outputs)
    assert sum("image/png" in output.get("data", {}) for output in outputs) >= 3
    assert file.stat().st_size < 500_000
    assert not re.search(r"/(tmp|home|root|work)/", file.read_text(encoding="utf-8"))
