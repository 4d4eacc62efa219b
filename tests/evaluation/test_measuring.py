"""The loop of every measurement, on pictures in a folder and a small network."""

import dataclasses
import subprocess
import sys

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from sid_jax.data.sources.pictures import open_pictures
from sid_jax.errors import UserError
from sid_jax.evaluation.batch import Batch
from sid_jax.evaluation.dump import Dump, check_dump, has_begun
from sid_jax.evaluation.loop import Instrument, measure_all, values_of
from sid_jax.evaluation.networks import change_of
from sid_jax.evaluation.protocols import HostTransform
from sid_jax.evaluation.saved import SavedMeasurement
from sid_jax.evaluation.sources import GeneratedImages, StoredImages, at_a_time
from sid_jax.evaluation.statistics import FrechetToReference, Kept, MeanScore, certain
from sid_jax.evaluation.transforms import centre_crop, lanczos
from sid_jax.experiment.images import Made
from sid_jax.metrics.frechet import Statistics, frechet_distance, statistics
from sid_jax.runtime.devices import mesh as meshes

COUNT, WIDTH = 45, 3
REFERENCE = Statistics(np.zeros(WIDTH), np.eye(WIDTH))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """45 pictures of 8 px, whose names do not sort as they count."""
    made = tmp_path_factory.mktemp("pictures")
    images = np.random.default_rng(0).integers(0, 256, (COUNT, 8, 8, 3)).astype(np.uint8)
    for i, image in enumerate(images):
        Image.fromarray(image).save(made / f"{i}.png")
    return made, images


def means(images):
    return images.astype(np.float32).mean((1, 2)) / 255


def source_of(folder, batch=8, same_size=True):
    pictures = open_pictures(str(folder), "--images")
    return StoredImages(pictures, len(pictures.names), None, batch, meshes.make_mesh(), same_size)


class Looks:
    """A network that counts what it sees, and may fail after so many batches."""

    def __init__(self, most=10**9):
        self.batches, self._most = 0, most

    def __call__(self, batch, asked):
        if self.batches == self._most:
            raise KeyboardInterrupt
        self.batches += 1
        pool = means(np.asarray(batch.on_devices()))
        return {"pool": pool, "score": pool[:, 0]}


def instrument(look, change=None):
    kept = Kept(("largest",), ("score",), 1, lambda score: {"largest": certain(score.max())})
    return Instrument(look, (FrechetToReference("fid", REFERENCE), MeanScore("score"), kept), change)


def test_the_values_are_those_of_all_pictures_together(folder):
    found = measure_all(source_of(folder[0]), [instrument(Looks())])
    expected = means(folder[1])
    assert found["fid"].value == pytest.approx(frechet_distance(statistics(expected), REFERENCE), rel=1e-9)
    scores = expected[:, 0].astype(np.float64)
    assert found["score"].value == pytest.approx(scores.mean(), rel=1e-12)
    assert found["score"].standard_error == pytest.approx(scores.std(ddof=1) / COUNT**0.5, rel=1e-6)
    assert found["largest"].value == scores.max()


@pytest.mark.parametrize("after", range(1, 6))
def test_a_measurement_that_was_cut_and_gone_on_equals_one_that_was_not(folder, tmp_path, after):
    whole = measure_all(source_of(folder[0]), [instrument(Looks())])
    key = {"protocol": "p", "seed": 0}
    with pytest.raises(KeyboardInterrupt):
        saved = SavedMeasurement(tmp_path, key, minutes=0)
        measure_all(source_of(folder[0]), [instrument(Looks(after))], saved)
    looks = Looks()
    found = measure_all(source_of(folder[0]), [instrument(looks)], SavedMeasurement(tmp_path, key, minutes=0))
    assert looks.batches == 6 - after  # of 45 pictures, 8 at a time
    for name, estimate in whole.items():
        np.testing.assert_allclose(found[name], estimate, rtol=1e-9)
    again = Looks()
    assert values_of(measure_all(source_of(folder[0]), [instrument(again)], SavedMeasurement(tmp_path, key))) == (
        values_of(found)
    )
    assert again.batches == 0 and [file.suffix for file in tmp_path.iterdir()] == [".json"]


def test_how_many_images_a_device_makes_and_measures_at_a_time():
    found = [tuple(at_a_time(side)) for side in (32, 128, 256, 512, 1024)]
    assert found == [(64, 64), (25, 25), (6, 18), (1, 16), (1, 16)]
    assert at_a_time(512, 4) == (4, 4)


@pytest.mark.parametrize("start", [0, 16])
def test_few_images_at_a_time_are_measured_together(start):
    """All batches have one size, of which the last one is filled up; a picture that is not finite is found in any."""
    images = np.random.default_rng(0).integers(0, 256, (COUNT, 4, 4, 3)).astype(np.uint8)
    checked = []

    class Program:
        mesh = meshes.make_mesh()

        def batches(self, params, asked, seed, start):
            for first in range(start, len(asked), 3):
                rows = np.minimum(np.arange(first, first + 3), len(asked) - 1)
                yield Made(first, min(3, len(asked) - first), jnp.asarray(images[rows]), jnp.asarray(rows != 40))

        def check_finite(self, finite, asked):
            checked.extend(zip(finite.tolist(), asked, strict=True))

    batches = list(GeneratedImages(Program(), None, range(COUNT), 0, together=8).batches(start))
    assert [batch.start for batch in batches] == list(range(start, COUNT, 9))
    assert {batch.on_devices().shape for batch in batches} == {(9, 4, 4, 3)}
    seen = np.concatenate([batch.on_devices()[: batch.count] for batch in batches])
    np.testing.assert_array_equal(seen, images[start:])
    for batch in batches:
        batch.check()
    assert checked == [(row != 40, row) for row in range(start, COUNT)]


def test_another_measurement_does_not_go_on_from_it(folder, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        measure_all(source_of(folder[0]), [instrument(Looks(3))], SavedMeasurement(tmp_path, {"seed": 0}, minutes=0))
    looks = Looks()
    measure_all(source_of(folder[0]), [instrument(looks)], SavedMeasurement(tmp_path, {"seed": 1}))
    assert looks.batches == 6


def test_a_damaged_state_is_one_line(folder, tmp_path):
    saved = SavedMeasurement(tmp_path, {})
    saved.save(8, {"0/sums": np.zeros(3)})
    with pytest.raises(UserError, match=r"state-\w+\.npz is damaged \(not the sums of features\): remove it"):
        measure_all(source_of(folder[0]), [instrument(Looks())], saved)
    next(tmp_path.iterdir()).write_bytes(b"PK broken")
    with pytest.raises(UserError, match="is damaged"):
        measure_all(source_of(folder[0]), [instrument(Looks())], saved)


def test_pictures_are_changed_on_the_host_before_a_network_sees_them(folder):
    change = change_of(HostTransform(4))
    seen = []
    look = Looks()

    def look_at(batch, asked):
        seen.append(np.asarray(batch.on_devices())[: batch.count])
        return look(batch, asked)

    measure_all(source_of(folder[0]), [instrument(look_at, change)])
    expected = [lanczos(centre_crop(image, "round"), 4) for image in folder[1]]
    np.testing.assert_array_equal(np.concatenate(seen), expected)


def test_too_few_images_for_a_metric_are_one_line(folder):
    source = Few(source_of(folder[0]))
    with pytest.raises(UserError, match="12 images are too few for fid: at least 20"):
        measure_all(source, [instrument(Looks())])


@dataclasses.dataclass
class Few:
    source: StoredImages
    count: int = 12
    asked: None = None

    def batches(self, start=0):
        return self.source.batches(start)


def test_pictures_of_other_sizes_are_named_where_they_are_measured_as_they_are(folder, tmp_path):
    for name, side in (("a.png", 8), ("b.png", 4)):
        Image.new("RGB", (side, 8)).save(tmp_path / name)
    (batch,) = source_of(tmp_path).batches()
    with pytest.raises(UserError, match=r"b\.png has 4 x 8 pixels, and the first picture 8 x 8"):
        batch.on_host()
    (batch,) = source_of(tmp_path, same_size=False).batches()
    assert [image.shape for image in batch.changed(change_of(HostTransform(2))).on_host()] == [(2, 2, 3)] * 2


def test_a_dump_refuses_a_folder_with_pictures_of_something_else(tmp_path):
    assert not has_begun(tmp_path / "new")
    dump = Dump(tmp_path / "new", "one", ["a prompt", "another"])
    images = np.zeros((2, 4, 4, 3), np.uint8)
    dump(Batch(10, 2, meshes.make_mesh(), host=list(images), size=2))
    names = {file.name for file in (tmp_path / "new").iterdir()}
    assert names == {"000010.png", "000011.png", "captions.txt", "dump.json"}
    assert (tmp_path / "new/captions.txt").read_text() == "a prompt\nanother\n"
    assert has_begun(tmp_path / "new")
    Dump(tmp_path / "new", "one", [])
    with pytest.raises(UserError, match=r"has other pictures in it, such as 0000"):
        check_dump(tmp_path / "new", "two")
    (tmp_path / "new/dump.json").unlink()
    with pytest.raises(UserError, match="name another folder"):
        check_dump(tmp_path / "new")


MEMORY = """
import sys
import numpy as np
from sid_jax.evaluation.batch import Batch
from sid_jax.evaluation.loop import Instrument, measure_all
from sid_jax.evaluation.networks import change_of
from sid_jax.evaluation.protocols import HostTransform
from sid_jax.evaluation.statistics import FrechetToReference
from sid_jax.metrics.frechet import Statistics
from sid_jax.runtime.devices import mesh as meshes

class Source:
    asked, count, mesh = None, int(sys.argv[1]), meshes.make_mesh()

    def batches(self, start=0):
        for first in range(start, self.count, 8):
            draws = np.random.default_rng(first)
            host = [draws.integers(0, 256, (512, 512, 3), np.uint8) for _ in range(8)]
            yield Batch(first, min(8, self.count - first), self.mesh, host=host, size=8)

def look(batch, asked):
    return {"pool": np.asarray(batch.on_devices()).mean((1, 2)).astype(np.float32)}

statistics = (FrechetToReference("fid", Statistics(np.zeros(3), np.eye(3))),)
measure_all(Source(), [Instrument(look, statistics, change_of(HostTransform(256)))], name="")
print(next(line for line in open("/proc/self/status") if line.startswith("VmHWM")).split()[1])
"""


@pytest.mark.slow
def test_the_hosts_memory_does_not_depend_on_the_number_of_images():
    """Images of 512 px: 800 of them have 629 MB."""
    peaks = []
    for count in (80, 800):
        command = [sys.executable, "-c", MEMORY, str(count)]
        peaks.append(int(subprocess.run(command, capture_output=True, text=True, check=True).stdout) / 1e3)
    print(f"peak of {peaks[0]:.0f} MB for 80 images, and of {peaks[1]:.0f} MB for 800")
    assert peaks[1] - peaks[0] < 60
