"""`evaluate --protocol` on the tiny run, with a small network in the place of Inception."""

import functools
import json

import numpy as np
import pytest
from PIL import Image
from small_features import SmallFeatures, few_numbers, in_place_of_inception, write_small_reference

import sid_jax
from sid_jax import evaluate, reference
from sid_jax.errors import UserError
from sid_jax.evaluation import request, saved, statistics
from sid_jax.metrics.kid import kernel_distance


@pytest.fixture(scope="module")
def of_numbers(tmp_path_factory):
    return write_small_reference(tmp_path_factory.mktemp("reference") / "real.npz")


@pytest.fixture
def measure(finished, tiny, of_numbers, tmp_path):
    """Runs the command on 40 images of the tiny run, with more flags; returns its JSON."""

    own = {"source": ("--run", finished), "prompts": ("--prompts", tiny / "prompts.txt"), "against": of_numbers}

    def run(*flags, fails_at=None, **others):
        source, prompts, against = (own | others).values()
        table = tmp_path / "table.json"
        arguments = [*source, *prompts, "--protocol=coco30k", "--metrics=fid", f"--reference={against}", *flags]
        with in_place_of_inception(fails_at):
            evaluate.main([*map(str, arguments), f"--json={table}"])
        return json.loads(table.read_text())

    return run


def test_a_run_by_a_protocol_its_dump_and_the_dump_as_pictures(measure, tiny, tmp_path, capsys):
    found = measure("--samples=40", "--batch=16", f"--dump={tmp_path / 'pictures'}", f"--out={tmp_path / 'out'}")
    row = found["rows"]["student"]
    assert row["fid_40"]["value"] > 0 and row["fid_40"]["standard_error"] > 0 and row["steps"] == 1
    assert "fid" not in row and not found["comparable"]  # fewer images than the protocol has
    said = capsys.readouterr().out
    assert "protocol coco30k, 40 of its 30,000 images" in said
    assert "not comparable with the published table because:" in said
    for reason in ("it is of 40 images", "the images have 32 px", "another SHA-256", "of 200 images"):
        assert reason in said
    assert "how the reference of fid was made" in said

    names = sorted(file.name for file in (tmp_path / "pictures").glob("*.png"))
    assert names == [f"{i:06d}.png" for i in range(40)]
    captions = (tmp_path / "pictures/captions.txt").read_text().splitlines()
    prompts = (tiny / "prompts.txt").read_text().splitlines()
    assert captions == [prompts[i % len(prompts)] for i in range(40)]

    # What was measured is kept, and the same command says it again.
    again = measure("--samples=40", "--batch=16", f"--dump={tmp_path / 'pictures'}", f"--out={tmp_path / 'out'}")
    assert again["rows"] == found["rows"] and SmallFeatures.calls == []

    pictures = measure(source=("--images", tmp_path / "pictures"), prompts=())["rows"]["images"]
    assert pictures["fid_40"]["value"] == pytest.approx(row["fid_40"]["value"], rel=1e-6)


def test_one_that_was_killed_goes_on(measure, monkeypatch, tmp_path):
    whole = measure("--samples=40", "--batch=8", f"--dump={tmp_path / 'whole'}")
    flags = "--samples=40", "--batch=8", f"--dump={tmp_path / 'cut'}", f"--out={tmp_path / 'out'}"
    monkeypatch.setattr(saved.SavedMeasurement, "due", lambda self: True)
    for fails_at in (1, 2):
        with pytest.raises(KeyboardInterrupt):
            measure(*flags, fails_at=fails_at)
    found = measure(*flags)
    assert SmallFeatures.calls == [8, 8]  # of five batches those that were left
    for key, value in whole["rows"]["student"]["fid_40"].items():
        if isinstance(value, float):
            np.testing.assert_allclose(found["rows"]["student"]["fid_40"][key], value, rtol=1e-9)
    for picture in (tmp_path / "whole").glob("*.png"):
        assert picture.read_bytes() == (tmp_path / "cut" / picture.name).read_bytes()


def test_teacher_and_seeds(measure):
    found = measure("--samples=20", "--seeds=0,3", "--teacher")
    assert list(found["rows"]) == ["teacher", "student"]
    fid = found["rows"]["student"]["fid_20"]
    values = list(fid["by_seed"].values())
    assert len(values) == 2 and values[0] != values[1]
    assert fid["value"] == pytest.approx(np.mean(values)) and fid["minimum"] == min(values)
    assert fid["spread"] == pytest.approx(np.std(values, ddof=1))
    assert found["rows"]["teacher"]["guidance"] is not None


def test_in_python_it_is_the_same(measure, finished, tiny, of_numbers):
    command = measure("--samples=40", "--batch=16")
    given = {"protocol": "coco30k", "prompts": tiny / "prompts.txt", "reference": {"fid": of_numbers}, "samples": 40}
    with in_place_of_inception():
        student = sid_jax.open_student(finished)
        report = sid_jax.measure(student, **given, settings={"metrics": ["fid"], "batch": 16})
    assert report.as_json()["rows"] == command["rows"] and "40 of its 30,000 images" in str(report)
    for changes, said in (
        ({"prompts": None}, "^prompts FILE is missing: captions.txt of SiD-LSG"),
        ({"samples": 3}, "^samples is 3: use 20"),
        ({"reference": None}, "^reference FILE is missing: statistics of all 40,504"),
        ({"metric": "m"}, "^metric is for tables without a protocol: coco30k has networks of its own"),
        ({"protocol": None}, "^reference is of the protocols of published tables: name one with protocol"),
        (
            {"settings": {"metric": "fid"}},
            "^settings has 'metric', and a measurement by a protocol takes metrics,",
        ),
        ({"settings": {"metrics": "fid", "batch": 1.5}}, "^batch is 1.5: that is no value of it"),
        ({"settings": {"metrics": "fid", "seeds": [0, 0]}}, "^seeds is '0,0': use different numbers"),
        ({"settings": {"metrics": "fid", "guidance": 2}}, "^guidance is for teachers"),
        ({"settings": {"metrics": "fid", "clip": "c"}}, "^clip: no metric that is measured needs it"),
    ):
        with in_place_of_inception(), pytest.raises(UserError, match=said):
            sid_jax.measure(student, **{"settings": {"metrics": "fid"}, **given, **changes})


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ("--run r --images d", "not allowed with argument"),
        ("--images d", "name one with --protocol"),
        ("--images d --protocol digits", "name one with --protocol"),
        ("--run r --out d", "--out is of the protocols of published tables"),
        ("--run r --protocol digits --metrics fid", "--metrics is of the protocols of published tables"),
        ("--run r --teacher", "--teacher without a PATH is of --protocol"),
        ("--run r --protocol coco --metric m", "--metric is for tables without --protocol"),
        ("--images d --protocol cifar10 --seeds 0", "--seeds is for images that are generated"),
        ("--images d --protocol cifar10 --dump d", "--dump is for images that are generated"),
        ("--images d --protocol cifar10 --teacher", "--teacher is for images that are generated"),
        ("--images d --protocol cifar10 --step 3", "--step is for images that are generated"),
        ("--model m --protocol cifar10 --step 3", "--step is of a run's checkpoints"),
        ("--run r --protocol cifar10 --dump d --seeds 0,1", "--dump is for the images of one seed"),
        ("--run r --protocol cifar10 --dump d --teacher", "--dump is for the images of one model"),
        ("--run r --protocol cifar10 --guidance 2", "--guidance is for teachers"),
        ("--run r --protocol cifar10 --batch 0", "--batch is 0: use 1 to"),
        ("--run r --protocol cifar", "did you mean cifar10?"),
        ("--run r --protocol cifar10 --metrics pr", "--metrics: metric 'pr': protocol cifar10 has fid, is"),
        ("--run r --protocol cifar10 --samples 19", "--samples is 19: use 20 to"),
        ("--run r --protocol cifar10", "--reference FILE is missing: statistics of EDM's cifar10-32x32.npz (download"),
        ("--run r --protocol coco30k", "python -m sid_jax.reference makes it"),
        ("--run r --protocol imagenet64 --reference f", "write METRIC=FILE, as fid and pr have one each"),
        ("--run r --protocol cifar10 --metrics is --reference f", "no metric that is measured has a reference"),
        ("--run r --protocol cifar10 --reference /nowhere", "/nowhere"),
        ("--run r --protocol cifar10 --metrics is --prompts p", "protocol cifar10 has no prompts"),
        ("--run r --protocol cifar10 --metrics is --seeds 0,0", "use different numbers"),
        ("--run r --protocol cifar10 --metrics is --seeds x", "write numbers with commas"),
        ("--run r --protocol cifar10 --metrics is --clip c", "--clip: no metric that is measured needs it"),
        ("--run r --protocol coco30k --metrics clip_g14_photo --inception i", "--inception: no metric"),
        ("--run r --protocol coco30k --metrics clip_g14_photo", "--prompts FILE is missing: captions.txt of SiD-LSG"),
        ("--run r --protocol cifar10 --metrics is --steps 0.5", "invalid int"),
    ],
)
def test_flags_that_do_not_fit_are_one_line(flags, said):
    with pytest.raises(UserError) as error:
        evaluate.main(flags.split())
    assert said in str(error.value) and "\n" not in str(error.value)


def test_a_reference_of_another_network_is_refused(of_numbers):
    with pytest.raises(UserError, match=r"is of features of 6 numbers, and fid is of Inception's 2048"):
        evaluate.main(["--run=r", "--protocol=cifar10", "--metrics=fid", f"--reference={of_numbers}"])


def test_the_kernel_distance_to_features_that_a_reference_keeps(measure, monkeypatch, tmp_path):
    """Of pictures, against a reference that the command makes; with small subsets."""
    for name, count in (("real", 40), ("made", 30)):
        (tmp_path / name).mkdir()
        for i, image in enumerate(np.random.default_rng(count).integers(0, 256, (count, 16, 16, 3), np.uint8)):
            Image.fromarray(image).save(tmp_path / name / f"{i}.png")
    few = functools.partial(kernel_distance, subsets=5, subset_size=25)
    monkeypatch.setattr(statistics, "kernel_distance", few)
    monkeypatch.setattr(request, "SUBSET_SIZE", 25)
    monkeypatch.setattr(statistics, "SUBSET_SIZE", 25)
    with in_place_of_inception():
        for kept in (24, 40):
            reference.main([
                f"--images={tmp_path / 'real'}", f"--out={tmp_path / f'{kept}.npz'}", "--protocol=ffhq64",
                "--metric=kid", f"--features={kept}",
            ])  # fmt: skip
    flags = "--protocol=ffhq64", "--metrics=kid", "--samples=30"
    source = {"source": ("--images", tmp_path / "made"), "prompts": ()}
    row = measure(*flags, against=tmp_path / "40.npz", **source)["rows"]["images"]
    pictures = {name: np.stack([np.asarray(Image.open(tmp_path / name / f"{i}.png")) for i in range(count)])
                for name, count in (("real", 40), ("made", 30))}  # fmt: skip
    expected = few(few_numbers(pictures["made"], np), few_numbers(pictures["real"], np).astype(np.float16))
    assert row["kid_30"]["value"] == pytest.approx(expected.mean, rel=1e-9)
    assert row["kid_std_30"]["value"] == pytest.approx(expected.std, rel=1e-9)
    with pytest.raises(UserError, match=r"24\.npz has features of 24 images, and kid needs 25: python -m sid_jax.ref"):
        measure(*flags, against=tmp_path / "24.npz", **source)


EIGHT = """
import sys
sys.path.insert(0, "tests")
from small_features import in_place_of_inception
from sid_jax import evaluate
with in_place_of_inception():
    evaluate.main(sys.argv[1:])
"""


@pytest.mark.slow
def test_eight_devices_measure_what_one_does(measure, finished, tiny, of_numbers, eight_devices, tmp_path):
    """Each device makes as many images at a time, so that they round alike."""
    one = measure("--samples=64", "--batch=8", f"--dump={tmp_path / 'one'}")
    eight_devices(
        EIGHT, f"--run={finished}", "--protocol=coco30k", "--metrics=fid", f"--reference={of_numbers}",
        f"--prompts={tiny / 'prompts.txt'}", "--samples=64", "--batch=8", f"--dump={tmp_path / 'eight'}",
        f"--json={tmp_path / 'eight.json'}",
    )  # fmt: skip
    eight = json.loads((tmp_path / "eight.json").read_text())
    for key, tolerance in (("value", 1e-6), ("standard_error", 1e-4), ("unbiased", 1e-4)):  # two are of differences
        expected = one["rows"]["student"]["fid_64"][key]
        np.testing.assert_allclose(eight["rows"]["student"]["fid_64"][key], expected, rtol=tolerance)
    names = sorted(file.name for file in (tmp_path / "one").glob("*.png"))
    assert len(names) == 64
    for name in names:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "eight" / name).read_bytes()
