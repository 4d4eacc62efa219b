"""What a later start can tell of a run: that checkpoints are missing, or that the teacher was replaced."""

import os
import shutil

import pytest
from etils import epath

from sid_jax.errors import UserError
from sid_jax.runtime.run import record
from sid_jax.runtime.run.record import check_checkpoints_are_there, check_teacher_of_run, is_teacher_of_run

SAVED = "2026-01-01 10:00:00 INFO saved checkpoint 40 in 0.1 s\n"


@pytest.fixture(params=["disk", "bucket"])
def workdir(request, tmp_path, bucket):
    folder = epath.Path(f"{bucket}/run" if request.param == "bucket" else tmp_path / "run")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def test_checkpoints_that_are_gone_are_missed(workdir, caplog):
    check_checkpoints_are_there(workdir)
    (workdir / "metrics.jsonl").write_text('{"step": 1}\n')  # killed before its first checkpoint
    (workdir / "config.json").write_text("{}")
    check_checkpoints_are_there(workdir)
    record.note_checkpoint(workdir, 40)
    gone = f"{workdir} had a checkpoint of update 40, and {workdir / 'checkpoints'} is gone: mount its disk"
    with pytest.raises(UserError) as caught:
        check_checkpoints_are_there(workdir)
    assert str(caught.value).startswith(gone) and "--resume=restart to begin anew here" in str(caught.value)
    (workdir / "checkpoints" / "unreadable-40").mkdir(parents=True)
    (workdir / "checkpoints" / "unreadable-40" / "a").write_text("")
    with pytest.raises(UserError, match="checkpoints has none: mount"):
        check_checkpoints_are_there(workdir)
    check_checkpoints_are_there(workdir, restart=True)
    assert caplog.messages[-1].startswith("beginning anew, as --resume=restart asks")
    check_checkpoints_are_there(workdir)  # killed before its first checkpoint again


def test_a_restart_deletes_nothing(workdir):
    (workdir / "checkpoints" / "40").mkdir(parents=True)
    (workdir / "checkpoints" / "40" / "a").write_text("")
    record.note_checkpoint(workdir, 40)
    check_checkpoints_are_there(workdir)
    with pytest.raises(UserError, match="begins anew only where they are gone"):
        check_checkpoints_are_there(workdir, restart=True)


def test_a_run_of_before_says_in_its_log_that_it_had_checkpoints(workdir):
    log = workdir / "run.log"
    log.write_text("2026-01-01 10:00:00 INFO starting at update 0 of 90\n")
    check_checkpoints_are_there(workdir)
    log.write_text(log.read_text() + SAVED)
    with pytest.raises(UserError, match="had a checkpoint of update 40"):
        check_checkpoints_are_there(workdir)
    log.write_text(log.read_text() + "2026-01-01 10:00:01 WARNING beginning anew, as --resume=restart asks\n")
    check_checkpoints_are_there(workdir)
    log.write_bytes(b"\xff\x00" * 5_000_000)
    check_checkpoints_are_there(workdir)


@pytest.mark.parametrize("odd", ["", "[" * 200, '{"step": "x"}', '{"step": 1e999}', "\xff"])
def test_a_note_that_is_damaged_still_says_that_there_was_one(workdir, odd):
    (workdir / record.CHECKPOINT).write_text(odd)
    with pytest.raises(UserError, match=r"had a checkpoint of update \(unknown\)"):
        check_checkpoints_are_there(workdir)


def test_a_checkpoint_that_cannot_be_noted_is_said(tmp_path, caplog):
    shutil.rmtree(tmp_path)
    record.note_checkpoint(epath.Path(tmp_path), 3)
    os.mkdir(tmp_path)
    assert "can't be written: No such file" in caplog.text


def test_another_teacher_is_refused_and_named(workdir, caplog):
    first = {"unet": "a", "vae": "b", "tokenizer": "c"}
    assert not is_teacher_of_run(workdir, first)  # of a run of before there is no record
    check_teacher_of_run(workdir, pytest.fail)
    record.note_teacher(workdir, first)
    assert is_teacher_of_run(workdir, dict(reversed(first.items())))
    check_teacher_of_run(workdir, lambda: first)
    for other, said in (
        ({**first, "vae": "x"}, r"\(vae differ\)"),
        ({"unet": "x", "vae": "b"}, r"\(tokenizer, unet differ\)"),
        ({**first, "text_encoder": "d"}, r"\(text_encoder differ\)"),
    ):
        with pytest.raises(UserError, match=f"{said}: put that one back.*--resume=force"):
            is_teacher_of_run(workdir, other)
        with pytest.raises(UserError, match=f"trained from {said}: put that one back"):
            check_teacher_of_run(workdir, lambda other=other: other)
        assert not is_teacher_of_run(workdir, other, force=True)
        assert "going on with another teacher, as --resume=force asks" in caplog.messages[-1]


@pytest.mark.parametrize("odd", ["", "[1]", "[" * 200])
def test_a_record_of_the_teacher_that_is_damaged_is_one_line(workdir, odd):
    (workdir / record.TEACHER).write_text(odd)
    with pytest.raises(UserError, match=f"^{workdir / record.TEACHER}: .*: delete it, and"):
        is_teacher_of_run(workdir, {})
