import json
import logging

import pytest

from sid_jax import config as settings
from sid_jax.errors import UserError
from sid_jax.runtime.cli import config_file
from sid_jax.runtime.run.resume import check_same_form, check_same_training, training_differences


def saved():
    return json.loads(config_file.to_json(settings.default()))


def current(**flat):
    config = settings.default()
    config.update_from_flattened_dict({key.replace("__", "."): value for key, value in flat.items()})
    return config.to_dict()


def test_the_same_config_goes_on():
    assert training_differences(saved(), current()) == {}
    check_same_training(saved(), current(), "runs/a")


@pytest.mark.parametrize(
    "change",
    [
        {"images": 20_000_000},
        {"log_every": 1},
        {"sample_every": 1},
        {"sample_images": 4},
        {"checkpoint_every": 1},
        {"keep_checkpoints": 5, "keep_every": 100, "keep_best": 1, "checkpoint_minutes": 10.0},
        {"prompts": "elsewhere/prompts.txt"},
        {"wandb__project": "sid"},
        {"evaluate__samples": 10},
        {"mesh__fsdp": 8},
    ],
)
def test_what_does_not_change_the_training_may_differ(change):
    assert training_differences(saved(), current(**change)) == {}


def test_what_changes_the_training_is_shown():
    config = current(sid__alpha=1.2, guidance__kappa1=2.0, batch=64)
    assert training_differences(saved(), config) == {
        "batch": (512, 64),
        "guidance.kappa1": (None, 2.0),
        "sid.alpha": (1.0, 1.2),
    }
    with pytest.raises(UserError) as caught:
        check_same_training(saved(), config, "runs/a")
    assert str(caught.value) == (
        "runs/a has a run with other settings: batch was 512 and is 64, guidance.kappa1 was null and is 2.0, "
        "sid.alpha was 1.0 and is 1.2; set them back, or use another --workdir, or --resume=force to go on with them"
    )


def test_a_key_that_one_of_them_lacks_is_a_difference():
    older = saved()
    del older["seed"]
    older["sid"]["beta"] = 3
    assert training_differences(older, current()) == {"seed": ("unset", 0), "sid.beta": (3, "unset")}


OLDER = ("family", "optimizer.fake_warmup", "optimizer.generator_warmup", "optimizer.clip_norm", "sid.first")
"""Keys that there were not always."""


def of_an_older_version():
    older = saved()
    for key in OLDER:
        *groups, leaf = key.split(".")
        group = older
        for name in groups:
            group = group[name]
        del group[leaf]
    return older


def test_a_key_that_did_not_exist_is_no_difference_at_its_default():
    defaults = settings.default().to_dict()
    assert set(training_differences(of_an_older_version(), current())) == set(OLDER)
    assert training_differences(of_an_older_version(), current(), defaults) == {}
    check_same_training(of_an_older_version(), current(), "runs/a", defaults=defaults)
    changed = current(optimizer__clip_norm=0.5, sid__first="unit", sid__alpha=1.2)
    assert training_differences(of_an_older_version(), changed, defaults) == {
        "optimizer.clip_norm": ("unset", 0.5), "sid.alpha": (1.0, 1.2), "sid.first": ("unset", "unit"),
    }  # fmt: skip
    with pytest.raises(UserError, match=r'optimizer\.clip_norm was "unset" and is 0\.5; set them back'):
        check_same_training(of_an_older_version(), current(optimizer__clip_norm=0.5), "runs/a", defaults=defaults)


def test_what_was_done_before_there_was_a_key_may_be_another_value_than_its_default():
    older, defaults = saved(), settings.default().to_dict()
    del older["guidance"]["drop_before_generator"]
    assert set(training_differences(older, current(), defaults)) == {"guidance.drop_before_generator"}
    assert not training_differences(older, current(guidance__drop_before_generator=False), defaults)


def test_a_key_that_there_is_no_more_and_a_default_that_is_another_now_are_differences():
    older = of_an_older_version() | {"beta": 3, "batch": 64}
    assert training_differences(older, current(), settings.default().to_dict()) == {
        "batch": (64, 512), "beta": (3, "unset"),
    }  # fmt: skip


def test_forced_differences_are_told(caplog):
    with caplog.at_level(logging.WARNING, logger="sid_jax"):
        check_same_training(saved(), current(sid__alpha=1.2), "runs/a", force=True)
    assert caplog.messages == ["going on with other settings, as --resume=force asks: sid.alpha was 1.0 and is 1.2"]


def with_old_names():
    older = saved()
    older["optimizer"]["lr"] = older["optimizer"].pop("fake_lr")
    older["optimizer"]["glr"] = older["optimizer"].pop("generator_lr")
    return older


def test_a_key_that_was_renamed_since_is_the_same_key():
    assert training_differences(with_old_names(), current()) == {}
    check_same_training(with_old_names(), current(), "runs/a")


def test_a_key_that_was_renamed_and_changed_is_shown_by_its_new_name():
    assert training_differences(with_old_names(), current(optimizer__generator_lr=0.5)) == {
        "optimizer.generator_lr": (1e-6, 0.5)
    }


def test_a_relative_path_is_the_absolute_one_that_it_is_now(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "teacher").mkdir()
    for before in ("teacher", "./teacher/", "~/teacher", f"{tmp_path}/x/../teacher"):
        older = saved() | {"teacher": before}
        assert training_differences(older, current(teacher=str(tmp_path / "teacher"))) == {}
    assert training_differences(saved() | {"teacher": "a/b"}, current(teacher=str(tmp_path / "a/b")))  # a hub id
    assert training_differences(saved() | {"teacher": "teacher"}, current(teacher=str(tmp_path)))


def test_a_teacher_that_was_moved_is_the_same_by_what_it_is():
    moved = current(teacher="/models/sd15", revision="abc", variant="fp16")
    check_same_training(saved(), moved, "runs/a", same_teacher=True)
    with pytest.raises(UserError, match=r"teacher was .* and is .*/models/sd15"):
        check_same_training(saved(), moved, "runs/a")


def test_a_tuple_is_the_list_that_it_was_saved_as():
    assert training_differences({"sizes": [8, 16]}, {"sizes": (8, 16)}) == {}


def test_a_run_in_another_form_is_one_line():
    now = ("step", "generator", "generator_optimizer")
    check_same_form(now, now, "a")
    check_same_form(None, now, "a")
    with pytest.raises(UserError) as error:
        check_same_form(("step", "generator", "generator_moment"), now, "a")
    assert str(error.value) == (
        "a has a run of another version of sid_jax (its state has generator_moment and lacks generator_optimizer): "
        "finish it with that version, or begin anew in another --workdir; its student can still be sampled, evaluated "
        "and exported"
    )
