"""The house rules of CONTRIBUTING.md: who may import whom, and that importing changes nothing."""

import ast
import functools
import graphlib
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "sid_jax"

FLOORS = {
    10: ("__init__", "__main__", "api"),
    9: (
        "train",
        "sample",
        "evaluate",
        "reference",
        "export",
        "plan",
        "encode",
        "pretrain",
        "convert",
        "dataset",
        "report",
    ),
    8: ("evaluation",),
    7: ("planning", "digits"),
    6: ("experiment",),
    5: ("families", "adapters"),
    4: ("teachers",),
    3: ("formats", "data", "config"),
    2: ("runtime.devices", "runtime.run", "runtime.storage", "runtime.cli", "assets"),
    1: ("sid", "models", "metrics", "errors", "size"),
}
"""Rooms by floor: a room imports from its own floor and from those below, and no two rooms import each other."""

ROOMS = {room: floor for floor, rooms in FLOORS.items() for room in rooms}
ALONE = ("sid", "models", "metrics")
"""Rooms that import nothing of ours, but for `errors`."""


@functools.cache
def modules():
    """Every module's dotted name below `sid_jax`, "" for the package itself, and its file."""
    found = {}
    for file in sorted(PACKAGE.rglob("*.py")):
        parts = file.relative_to(PACKAGE).with_suffix("").parts
        if parts[0] == "assets" and len(parts) > 2:
            continue  # what is shipped to users of PyTorch is no module of ours
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = file
    return found


def room_of(module):
    """The room that a module is in; None for a package that only holds rooms."""
    name = module or "__init__"
    return next((room for room in ROOMS if name == room or name.startswith(f"{room}.")), None)


def imports_of(source, known):
    """Dotted names below `sid_jax` of all modules that a source imports, wherever in it."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are written in full"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            if name == "sid_jax" or name.startswith("sid_jax."):
                inside = name.removeprefix("sid_jax").removeprefix(".")
                yield inside if inside in known else inside.rpartition(".")[0]


def complaints(imports):
    """What is wrong with imports, pairs of module and imported module."""
    for module, imported in imports:
        here, there = room_of(module), room_of(imported)
        if there is None or here == there:
            continue
        if here is None:
            yield f"{module} is in no room of the table"
        elif ROOMS[there] > ROOMS[here]:
            yield f"{module} (floor {ROOMS[here]}) imports {imported} (floor {ROOMS[there]})"
        elif here in ALONE and there != "errors":
            yield f"{module} imports {imported}, and {here} imports nothing of ours"


def circles(pairs):
    """The names on a circle of (importer, imported), one of them; empty where there is none."""
    graph = {}
    for one, other in pairs:
        if one != other:
            graph.setdefault(one, set()).add(other)
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        return error.args[1]
    return []


def all_imports():
    known = modules()
    return [
        (module, imported) for module, file in known.items() for imported in imports_of(file.read_text(), set(known))
    ]


def test_imports_hold_to_the_floors():
    assert list(complaints(all_imports())) == []


def test_no_two_modules_and_no_two_rooms_import_each_other():
    imports = all_imports()
    # A package's __init__ gathers what its modules have; that a module imports its package's parent is no circle.
    assert circles((module, imported) for module, imported in imports if not module.startswith(f"{imported}.")) == []
    rooms = {(room_of(module), room_of(imported)) for module, imported in imports}
    assert circles((one, other) for one, other in rooms if one and other) == []


def test_every_module_is_in_a_room():
    assert [module for module in modules() if room_of(module) is None and module not in ("", "runtime")] == []


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("sid.losses", "from sid_jax.models import UNet2DConditionModel"),
        ("models.unet", "def f():\n    import sid_jax.runtime.devices.mesh"),
        ("teachers.teacher", "from sid_jax.families import open"),
        ("experiment.build", "from sid_jax import train"),
    ],
)
def test_an_import_upwards_is_found(module, source):
    assert list(complaints((module, imported) for imported in imports_of(source, set(modules()))))


def test_a_circle_is_found():
    assert set(circles([("a", "b"), ("b", "c"), ("c", "a")])) == {"a", "b", "c"}


def code_of(module):
    """The syntax tree of a module without its docstrings."""
    tree = ast.parse(modules()[module].read_text())
    for node in ast.walk(tree):
        for body in (getattr(node, "body", None),):
            if isinstance(body, list):
                body[:] = [
                    line for line in body
                    if not (isinstance(line, ast.Expr) and isinstance(line.value, ast.Constant))
                ] or [ast.Pass()]  # fmt: skip
    return tree


def words_of(module):
    """Names and texts in the code of a module."""
    for node in ast.walk(code_of(module)):
        yield from (value for value in vars(node).values() if isinstance(value, str))


def below(floor):
    return [module for module in modules() if room_of(module) and ROOMS[room_of(module)] < floor]


def test_no_config_below_the_rooms_that_read_one():
    """But for the schema itself, and what reads it from files and flags."""
    readers = {"config", "runtime.cli"}
    found = [module for module in below(6) if room_of(module) not in readers and "ConfigDict" in words_of(module)]
    assert found == []


def test_no_family_is_known_outside_its_room():
    """But for the schema's section; the digits are a teacher of a family."""
    rooms = {"families", "config", "digits"}
    found = [
        (module, word) for module in modules() if room_of(module) not in rooms
        for word in words_of(module) if re.search(r"stable.?diffusion", word, re.IGNORECASE)
    ]  # fmt: skip
    assert found == []


def test_nobody_asks_what_kind_a_teacher_a_sampler_or_a_cache_is():
    kinds = re.compile(r"Teacher|Student|Sampler|FewStep|DDIM|Cache|Space|Conditions|Embeddings|Stream")
    for module in modules():
        if room_of(module) == "families":
            continue
        for node in ast.walk(code_of(module)):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "isinstance":
                assert not kinds.search(ast.unparse(node.args[1])), f"{module}: {ast.unparse(node)}"


def test_no_function_has_more_than_eight_parameters():
    found = []
    for module in modules():
        for node in ast.walk(code_of(module)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                a = node.args
                names = [x.arg for x in (*a.posonlyargs, *a.args, *a.kwonlyargs, a.vararg, a.kwarg) if x]
                count = len([name for name in names if name not in ("self", "cls")])
                if count > 8:
                    found.append(f"{module}.{node.name}: {count}")
    assert found == []


def calls_in(module):
    """Each call in the code of a module: what is called, as text, and its arguments."""
    for node in ast.walk(code_of(module)):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), [*node.args, *(word.value for word in node.keywords)]


def test_every_draw_names_its_type_and_has_a_key_of_ours():
    """Types and keys that are JAX's defaults are those of the environment's settings."""
    arguments = {"normal": 3, "uniform": 3, "randint": 5}
    for module in modules():
        for function, given in calls_in(module):
            name = function.removeprefix("jax.random.")
            if function != name and name in arguments:
                assert len(given) >= arguments[name], f"{module}: {name} without a type"
            if module != "teachers.component":  # whose key stands for none
                assert function not in ("jax.random.key", "jax.random.PRNGKey"), f"{module}: use sid_jax.sid.key_of"


def test_every_command_is_started_before_its_imports():
    commands = [module for module in modules() if room_of(module) and ROOMS[room_of(module)] == 9]
    for module in [*commands, "digits.pairs.__main__"]:
        first = ast.parse(modules()[module].read_text()).body[1]
        assert isinstance(first, ast.If) and f"start('sid_jax.{module}'" in ast.unparse(first), module


IMPORT_ALL = """
import importlib, logging, os, sys

def state():
    loggers = {
        name: (logger.level, logger.propagate, len(logger.handlers), len(logger.filters))
        for name, logger in logging.Logger.manager.loggerDict.items() if isinstance(logger, logging.Logger)
    }
    return dict(os.environ), loggers, logging.root.level

import absl.logging, jax, numpy, flax.nnx, optax, orbax.checkpoint, grain, ml_collections, tqdm, PIL.Image
import transformers, safetensors, huggingface_hub, tensorboardX, jax.experimental.topologies
from absl import flags
from ml_collections import config_flags
before = state()
for module in sys.argv[1:]:
    importlib.import_module(module)
after = state()
changed = dict(set(before[0].items()) ^ set(after[0].items()))
assert not changed, f"environment: {changed}"
loggers = {key: (before[1].get(key), now) for key, now in after[1].items() if before[1].get(key, now) != now}
ours = {key: now for key, now in after[1].items() if key.startswith("sid_jax") and now != (0, True, 0, 0)}
assert not loggers and not ours and before[2] == after[2], f"loggers: {loggers} {ours}"
from jax._src import xla_bridge
assert not xla_bridge.backends_are_initialized(), "JAX has started a backend"
assert jax.config.jax_platforms == os.environ.get("JAX_PLATFORMS"), jax.config.jax_platforms
"""


def test_importing_changes_nothing():
    names = ["sid_jax" + (f".{module}" if module else "") for module in modules() if not module.endswith("__main__")]
    environment = {name: value for name, value in os.environ.items() if name not in ("JAX_PLATFORMS", "XLA_FLAGS")}
    done = subprocess.run(
        [sys.executable, "-c", IMPORT_ALL, *names], capture_output=True, text=True, cwd=PACKAGE.parent, env=environment
    )
    assert done.returncode == 0, done.stderr
