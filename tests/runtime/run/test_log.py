import json
import os
import re

import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict
from PIL import Image

from sid_jax.errors import UserError
from sid_jax.runtime.cli import config_file
from sid_jax.runtime.run import log as run_log
from sid_jax.runtime.run.log import RunLog, make_workdir

SETTINGS = {"b": 1, "a": {"c": 0.5, "sizes": (8, 16)}}
CONFIG_JSON = """\
{
  "a": {
    "c": 0.5,
    "sizes": [
      8,
      16
    ]
  },
  "b": 1
}
"""


def log_steps(workdir, steps, resumed_step=0):
    log = RunLog(workdir, SETTINGS, resumed_step)
    for step in steps:
        log.metrics(step, step * 8, {"loss": jnp.float32(step / 3), "bad": np.nan, "count": step}, {"wait": 0.5})
    log.close()


def lines(file):
    return [json.loads(line, parse_constant=pytest.fail) for line in file.read_text().splitlines()]


def test_metrics_are_json_lines(tmp_path):
    log_steps(tmp_path, [1, 2])
    assert lines(tmp_path / "metrics.jsonl")[1] == {
        "step": 2,
        "images": 16,
        "bad": None,
        "count": 2,
        "loss": float(np.float32(2 / 3)),
    }


def test_two_equal_runs_write_equal_metrics_and_times_elsewhere(tmp_path):
    for name in ("a", "b"):
        log_steps(make_workdir(tmp_path / name), range(1, 5))
    assert (tmp_path / "a" / "metrics.jsonl").read_bytes() == (tmp_path / "b" / "metrics.jsonl").read_bytes()
    timing = lines(tmp_path / "a" / "timing.jsonl")
    assert [line["step"] for line in timing] == [1, 2, 3, 4]
    assert set(timing[1]) == {
        "step", "images", "seconds", "steps_per_second", "images_per_second", "host_memory_gb", "wait",
    }  # fmt: skip


@pytest.mark.parametrize("tail", ["", '{"step": 5, "ima'])
def test_a_resumed_run_has_each_step_once(tmp_path, tail):
    log_steps(make_workdir(tmp_path / "whole"), range(1, 7))
    resumed = make_workdir(tmp_path / "resumed")
    log_steps(resumed, range(1, 6))
    with open(resumed / "metrics.jsonl", "a") as file:
        file.write(tail)
    log_steps(resumed, range(4, 7), resumed_step=3)
    whole = (tmp_path / "whole" / "metrics.jsonl").read_bytes()
    assert (resumed / "metrics.jsonl").read_bytes() == whole
    assert [line["step"] for line in lines(resumed / "timing.jsonl")] == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize(
    "odd",
    [
        b"\xff\xfe\n",
        b"[" * 100_000 + b"\n",
        b'{"step": "1"}\n',
        b"[1]\n",
        b"9" * 5000 + b"\n",
        b"x" * 3_000_000 + b"\n",
    ],
)
def test_lines_that_no_run_writes_are_left_out_and_that_is_said(tmp_path, odd, caplog):
    log_steps(tmp_path, [1, 2, 3])
    whole = (tmp_path / "metrics.jsonl").read_bytes()
    first, rest = whole.split(b"\n", 1)
    (tmp_path / "metrics.jsonl").write_bytes(first + b"\n" + odd + rest)
    log_steps(tmp_path, [], resumed_step=3)
    assert (tmp_path / "metrics.jsonl").read_bytes() == whole
    assert "lines that no run writes are left out" in caplog.text


def test_a_log_of_no_reasonable_size_is_one_line(tmp_path):
    make_workdir(tmp_path)
    with open(tmp_path / "metrics.jsonl", "wb") as file:
        file.truncate(5 << 30)
    with pytest.raises(UserError, match=r"metrics\.jsonl: 5368709120 bytes is too large"):
        RunLog(tmp_path, SETTINGS)


@pytest.mark.parametrize("name", ["config.json", "metrics.jsonl", "timing.jsonl", "run.log", "wandb_id", "table.txt"])
@pytest.mark.parametrize("make", [os.mkdir, os.mkfifo, lambda path: os.symlink(path, path)])
def test_something_else_in_the_place_of_a_file_is_one_line(tmp_path, name, make):
    make(tmp_path / name)
    with pytest.raises(UserError, match=f"^{tmp_path / name}: .*: a run writes it, so remove it"):
        make_workdir(tmp_path)


@pytest.mark.parametrize("name", ["samples", "tensorboard", "checkpoints"])
def test_a_file_in_the_place_of_a_folder_is_one_line(tmp_path, name):
    (tmp_path / name).write_text("")
    with pytest.raises(UserError, match=f"^{tmp_path / name} is a file, and a run writes a folder"):
        make_workdir(tmp_path)


@pytest.mark.parametrize("path", ["https://host/run", "x://run", "hf://datasets/a/b"])
def test_an_address_that_takes_no_checkpoints_is_one_line(path):
    with pytest.raises(UserError, match=re.escape(path)):
        make_workdir(path)


def test_a_bucket_that_cannot_be_reached_is_one_line(bucket, monkeypatch):
    def refuse(self, *arguments, **settings):
        raise RuntimeError("Anonymous caller does not have\nstorage.objects.create access")

    monkeypatch.setattr(type(make_workdir(f"{bucket}/a")), "write_bytes", refuse)
    with pytest.raises(UserError, match=r"^gs://bucket/a: the bucket can't be used \(Anonymous caller does not have s"):
        make_workdir(f"{bucket}/a")


def test_a_run_that_begins_again_from_nothing_keeps_no_old_lines(tmp_path):
    log_steps(tmp_path, [1, 2])
    log_steps(tmp_path, [1])
    assert [line["step"] for line in lines(tmp_path / "metrics.jsonl")] == [1]


def test_a_line_is_on_the_disk_at_once(tmp_path):
    log = RunLog(tmp_path, SETTINGS)
    log.metrics(1, 8, {"loss": 1.0})
    assert lines(tmp_path / "metrics.jsonl") == [{"step": 1, "images": 8, "loss": 1.0}]
    log.close()


def test_a_run_in_a_bucket(bucket):
    workdir = make_workdir(f"{bucket}/runs/a")
    log_steps(workdir, range(1, 5))
    log = RunLog(workdir, SETTINGS, resumed_step=2)
    log.metrics(3, 24, {"loss": 1.0})
    assert [line["step"] for line in lines(workdir / "metrics.jsonl")] == [1, 2]
    log.flush()
    assert [line["step"] for line in lines(workdir / "metrics.jsonl")] == [1, 2, 3]
    log.picture(3, "samples", Image.new("RGB", (4, 4)))
    log.metrics(4, 32, {"loss": 1.0})
    log.close()
    assert [line["step"] for line in lines(workdir / "timing.jsonl")] == [1, 2, 3, 4]
    assert (workdir / "samples" / "samples-000003.png").read_bytes().startswith(b"\x89PNG")
    assert (workdir / "config.json").read_text() == CONFIG_JSON


def test_the_config_is_written(tmp_path):
    RunLog(tmp_path, SETTINGS).close()
    assert (tmp_path / "config.json").read_text() == CONFIG_JSON == config_file.to_json(ConfigDict(SETTINGS))


def test_pictures_are_files_and_tensorboard_events(tmp_path):
    log = RunLog(tmp_path, SETTINGS)
    path = log.picture(30, "samples", Image.new("RGB", (12, 8), (1, 2, 3)))
    log.metrics(30, 240, {"a_scalar": 1.0})
    log.close()
    assert os.fspath(path) == str(tmp_path / "samples" / "samples-000030.png")
    assert Image.open(path).size == (12, 8)
    events = b"".join(file.read_bytes() for file in (tmp_path / "tensorboard").iterdir())
    assert b"a_scalar" in events
    assert b"JFIF" in events


def test_other_processes_write_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(run_log.jax, "process_index", lambda: 1)
    log = RunLog(make_workdir(tmp_path / "run"), SETTINGS)
    log.metrics(1, 8, {"loss": 1.0})
    log.picture(1, "samples", Image.new("RGB", (1, 1)))
    log.flush()
    log.close()
    assert list((tmp_path / "run").iterdir()) == []


def test_a_workdir_is_made_with_its_parents(tmp_path):
    workdir = make_workdir(str(tmp_path / "a" / "b"))
    assert list(workdir.iterdir()) == []
    make_workdir(workdir)


@pytest.mark.parametrize("inner", ["", "/below"])
def test_a_file_in_the_way_is_an_error(tmp_path, inner):
    (tmp_path / "run").write_text("")
    path = f"{tmp_path}/run{inner}"
    with pytest.raises(UserError) as caught:
        make_workdir(path)
    assert str(caught.value) == f"workdir {path} can't be made: a file is in its way"


def test_an_unwritable_workdir_is_an_error(tmp_path, monkeypatch):
    def refuse(self, data):
        raise PermissionError(13, "Permission denied")

    # Not by its mode: tests may run as root, who may write everywhere.
    monkeypatch.setattr(type(make_workdir(tmp_path)), "write_bytes", refuse)
    with pytest.raises(UserError) as caught:
        make_workdir(tmp_path)
    assert str(caught.value) == f"workdir {tmp_path} can't be written to: Permission denied"
