"""Statistics of real images: of each place, by a protocol's transform, gone on with, on one device and on several."""

import numpy as np
import pytest
from PIL import Image
from small_features import SmallFeatures, few_numbers, in_place_of_inception

from sid_jax import reference
from sid_jax.errors import UserError
from sid_jax.evaluation.references import read_reference
from sid_jax.evaluation.saved import SavedMeasurement
from sid_jax.evaluation.transforms import centre_crop, lanczos

COUNT = 45
RNG = np.random.default_rng(0)


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """A folder of photographs of several sizes."""
    folder = tmp_path_factory.mktemp("photos")
    for number in range(COUNT):
        size = (20 + number % 2, 30 - number % 2)
        Image.fromarray(RNG.integers(0, 256, (*size, 3), np.uint8)).save(folder / f"{number}.png")
    return folder


@pytest.fixture
def made(tmp_path):
    """A function from flags to what the command writes, as it is read."""

    def run(*flags, protocol="coco30k-train", out="real.npz", fails_at=None):
        arguments = [f"--protocol={protocol}", f"--out={tmp_path / out}", "--batch=8", *map(str, flags)]
        with in_place_of_inception(fails_at):
            reference.main(arguments)
        return read_reference(tmp_path / out)

    return run


def expected(folder, change):
    images = [np.asarray(Image.open(folder / f"{number}.png")) for number in range(COUNT)]
    return np.concatenate([few_numbers(change(image)[None], np) for image in images]).astype(np.float64)


def test_statistics_of_a_folder(made, photos, tmp_path, capsys):
    found = made(f"--images={photos}", "--features=10")
    features = expected(photos, lambda image: lanczos(centre_crop(image, "floor"), 256))
    np.testing.assert_allclose(found.statistics.mean, features.mean(0), rtol=1e-6)
    np.testing.assert_allclose(found.statistics.covariance, np.cov(features.T), rtol=1e-4, atol=1e-9)
    np.testing.assert_allclose(found.features, features[np.arange(10) * COUNT // 10], rtol=1e-3)
    assert found.count == COUNT and found.about["input"] == "tf1"
    assert found.about["transform"] == "centre crop (floor), Lanczos to 256 px"
    assert [path.name for path in tmp_path.iterdir()] == ["real.npz"]
    said = capsys.readouterr().out
    assert "wrote the statistics of 45 images" in said and "the table's reference is of 40,504 images" in said


def test_an_interrupted_one_goes_on_to_the_same_bytes(made, photos, tmp_path, monkeypatch):
    made(f"--images={photos}", "--features=9", out="whole.npz")
    monkeypatch.setattr(SavedMeasurement, "due", lambda saved: True)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            made(f"--images={photos}", "--features=9", fails_at=2)
        assert SmallFeatures.calls == [8, 8] and not (tmp_path / "real.npz").exists()
    found, whole = made(f"--images={photos}", "--features=9"), read_reference(tmp_path / "whole.npz")
    assert len(SmallFeatures.calls) == 2
    np.testing.assert_allclose(found.statistics.covariance, whole.statistics.covariance, rtol=1e-9)
    assert np.array_equal(found.features, whole.features) and found.about == whole.about
    assert sorted(path.name for path in tmp_path.iterdir()) == ["real.npz", "whole.npz"]


def test_patches_of_images_that_differ_in_size(made, photos):
    """Those that are smaller than a patch are looked at whole, each size alone."""
    found = made(f"--images={photos}", "--metric=patch_fid", protocol="coco10k-sdxl")
    features = expected(photos, lambda image: image)
    np.testing.assert_allclose(found.statistics.covariance, np.cov(features.T), rtol=1e-4, atol=1e-9)
    assert found.about["input"] == "patch" and found.about["transform"] == "none"


@pytest.mark.parametrize(
    ("flags", "problem"),
    [
        (["--protocol=coco"], "--protocol is 'coco': did you mean coco30k?"),
        (["--protocol=digits"], "protocol digits has no reference of real images"),
        (["--metric=clip_g14"], "--metric clip_g14 has no reference: use fid"),
        (["--features=46"], "--features is 46: use 0 to 45"),
        (["--batch=0"], "--batch is 0"),
        (["--out=statistics"], "name a file that ends in .npz"),
        (["--protocol=cifar10"], "must be of one size"),
        (["--images=absent"], "--images absent is not a folder"),
    ],
)
def test_wrong_flags(made, photos, flags, problem):
    with pytest.raises(UserError, match=problem):
        made(f"--images={photos}", *flags)


def test_a_file_that_is_there_and_a_picture_that_is_none(made, photos, tmp_path):
    (tmp_path / "real.npz").touch()
    with pytest.raises(UserError, match="is there already"):
        made(f"--images={photos}")
    (tmp_path / "pictures").mkdir()
    for number in range(3):
        (tmp_path / f"pictures/{number}.png").write_bytes(b"damaged")
    with pytest.raises(UserError, match=r"0\.png can't be used"):
        made(f"--images={tmp_path / 'pictures'}", out="other.npz")


ON_DEVICES = """
import sys, jax
sys.path.insert(0, "tests")
from small_features import in_place_of_inception
from sid_jax import reference
assert len(jax.devices()) == 8
with in_place_of_inception():
    reference.main([f"--images={sys.argv[1]}", f"--out={sys.argv[2]}", "--protocol=coco30k-train", "--batch=2"])
"""


def test_on_several_devices(made, photos, tmp_path, eight_devices):
    eight_devices(ON_DEVICES, photos, tmp_path / "eight.npz")
    found, alone = read_reference(tmp_path / "eight.npz"), made(f"--images={photos}")
    assert found.count == COUNT
    np.testing.assert_allclose(found.statistics.mean, alone.statistics.mean, rtol=1e-6)
    np.testing.assert_allclose(found.statistics.covariance, alone.statistics.covariance, rtol=1e-4, atol=1e-9)
