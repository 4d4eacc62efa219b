"""Weights & Biases, in whose place a fake module stands."""

import sys
import types

import pytest
from PIL import Image

import sid_jax.config
from sid_jax.errors import UserError
from sid_jax.runtime.run.log import RunLog, make_workdir


@pytest.fixture
def settings():
    config = sid_jax.config.default()
    config.wandb.project = "sid"
    return config.to_dict()


@pytest.fixture
def wandb(monkeypatch):
    """Its module: `begun` are the arguments of `init`, `logged` what came of `log`."""
    module = types.ModuleType("wandb")
    module.begun, module.logged = [], []
    run = types.SimpleNamespace(
        log=lambda values, step: module.logged.append((step, values)), finish=lambda: module.logged.append("finish")
    )
    module.init = lambda **arguments: module.begun.append(arguments) or run
    module.Image = lambda image: ("image", image.size)
    monkeypatch.setitem(sys.modules, "wandb", module)
    return module


def test_a_run_and_its_continuation_are_one_run_there(wandb, settings, tmp_path):
    for step in (1, 2):
        log = RunLog(make_workdir(str(tmp_path / "run")), settings, resumed_step=step - 1)
        log.metrics(step, 8 * step, {"loss": 0.5, "bad": float("nan")})
        log.picture(step, "student", Image.new("RGB", (4, 2)))
        log.close()
    first, second = wandb.begun
    assert first["id"] == second["id"] and first["resume"] == "allow"
    assert (first["project"], first["entity"], first["name"]) == ("sid", None, "run")
    assert first["config"] == settings
    assert wandb.logged[0][0] == 1 and wandb.logged[0][1]["loss"] == 0.5 and "bad" not in wandb.logged[0][1]
    assert wandb.logged[1:3] == [(1, {"student": ("image", (4, 2))}), "finish"]


def test_it_is_needed_only_where_it_is_asked_for(monkeypatch, settings, tmp_path):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(UserError, match="pip install wandb"):
        RunLog(make_workdir(tmp_path), settings)
    settings["wandb"]["project"] = ""
    RunLog(make_workdir(tmp_path), settings).close()


def test_what_it_does_not_like_is_one_line(wandb, settings, tmp_path):
    def init(**arguments):
        raise RuntimeError("no API key\nconfigured")

    wandb.init = init
    with pytest.raises(UserError, match=r"^Weights & Biases does not start: no API key configured; empty wandb.proj"):
        RunLog(make_workdir(tmp_path), settings)


@pytest.mark.parametrize("odd", [b"", b"\xff\xfe", b"a b", b"x" * 5000, b"../x"])
def test_an_id_that_is_none_is_one_line(wandb, settings, tmp_path, odd):
    (tmp_path / "wandb_id").write_bytes(odd)
    with pytest.raises(UserError, match=f"^{tmp_path / 'wandb_id'}"):
        RunLog(make_workdir(tmp_path), settings)
    assert wandb.begun == []
