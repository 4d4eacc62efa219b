"""A run that measures its student by a protocol, with a small network in the place of Inception."""

import pytest
from small_features import in_place_of_inception, write_small_reference
from training_runs import metrics_of

from sid_jax import train
from sid_jax.errors import UserError


@pytest.fixture
def arguments(tiny_arguments, tmp_path):
    """Of the tiny run, measured every two updates, with a checkpoint every three."""
    reference = write_small_reference(tmp_path / "real.npz")
    return [
        *tiny_arguments, "--config.evaluate.protocol=coco30k", f"--config.evaluate.reference={reference}",
        "--config.evaluate.every=2", "--config.evaluate.samples=20", "--config.keep_checkpoints=1",
        "--config.keep_best=1", "--config.keep_best_by=fid_20",
    ]  # fmt: skip


def test_curves_have_names_with_a_number_and_the_best_is_kept_whatever_the_schedule(arguments, tmp_path):
    with in_place_of_inception():
        train.main(arguments)
    measured = {line["step"]: line["fid_20"] for line in metrics_of(tmp_path / "run") if "fid_20" in line}
    assert list(measured) == [2, 4, 6] and len(set(measured.values())) == 3
    kept = {int(folder.name) for folder in (tmp_path / "run/checkpoints").iterdir() if folder.name.isdigit()}
    assert kept == {min(measured, key=measured.get), 6}


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("evaluate.protocol=coco", "config key evaluate.protocol is 'coco': did you mean coco30k?"),
        ("evaluate.protocol=digits", "is measured by evaluate.metric"),
        ("evaluate.reference=", "config key evaluate.reference FILE is missing"),
        ("evaluate.reference=/nowhere.npz", "/nowhere.npz"),
        ("evaluate.samples=10", "config key evaluate.samples is 10: use 20"),
        ("evaluate.prompts=/nowhere.txt", "/nowhere.txt"),
        ("keep_best_by=fid_10k", "config key keep_best_by is 'fid_10k'"),
        ("evaluate.protocol=cifar10", "protocol cifar10 is of models that take neither prompts nor labels"),
        ("evaluate.every=0", "nothing measures"),
    ],
)
def test_bad_settings_are_one_line(arguments, setting, said):
    with in_place_of_inception(), pytest.raises(UserError) as error:
        train.main([*arguments, f"--config.{setting}"])
    assert said in str(error.value) and "\n" not in str(error.value)
