"""Files of statistics: other projects', ours, and hostile ones."""

import io
import json
import os
import pickle
import zipfile

import numpy as np
import pytest

from sid_jax.errors import UserError
from sid_jax.evaluation import references
from sid_jax.evaluation.references import check_made, pictures_in, read_reference, write_reference
from sid_jax.metrics.moments import BlockedMoments

WIDTH = 6
RNG = np.random.default_rng(0)
FEATURES = RNG.normal(size=(60, WIDTH)).astype(np.float32)
MU, SIGMA = FEATURES.mean(0).astype(np.float64), np.cov(FEATURES.T)
ABOUT = {"protocol": "coco30k", "input": "clean"}


@pytest.fixture
def moments():
    moments = BlockedMoments(WIDTH)
    moments.add(FEATURES, np.arange(len(FEATURES)))
    return moments


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_statistics_of_other_projects(tmp_path, save):
    """pytorch-fid, TTUR, EDM and clean-fid save `mu` and `sigma`."""
    save(tmp_path / "edm.npz", mu=MU, sigma=np.asfortranarray(SIGMA))
    found = read_reference(tmp_path / "edm.npz")
    assert np.array_equal(found.statistics.mean, MU) and np.array_equal(found.statistics.covariance, SIGMA)
    assert (found.count, found.about, found.features, found.pictures) == (None, {}, None, 0)


def test_a_batch_of_adm(tmp_path):
    pictures = RNG.integers(0, 256, (10, 8, 8, 3), np.uint8)
    np.savez(tmp_path / "adm.npz", arr_0=pictures, mu=MU, sigma=SIGMA, mu_s=MU, sigma_s=SIGMA)
    found = read_reference(tmp_path / "adm.npz")
    assert np.array_equal(found.statistics.covariance, SIGMA) and found.pictures == 10
    parts = list(pictures_in(tmp_path / "adm.npz", 4))
    assert [len(part) for part in parts] == [4, 4, 2] and np.array_equal(np.concatenate(parts), pictures)


@pytest.mark.parametrize("protocol", [3, 4, 5])
def test_a_file_of_edm2(tmp_path, protocol):
    other = {"mu": MU + 1, "sigma": np.asfortranarray(SIGMA * 2)}
    content = {"fid": {"mu": MU, "sigma": SIGMA}, "fd_dinov2": other, "num_images": np.int64(50)}
    (tmp_path / "edm2.pkl").write_bytes(pickle.dumps(content, protocol))
    found = read_reference(tmp_path / "edm2.pkl")
    assert np.array_equal(found.statistics.mean, MU) and np.array_equal(found.statistics.covariance, SIGMA)
    assert found.count == 50
    other = read_reference(tmp_path / "edm2.pkl", "fd_dinov2").statistics
    assert np.array_equal(other.mean, MU + 1) and np.array_equal(other.covariance, SIGMA * 2)
    with pytest.raises(UserError, match=r"no patch with the arrays mu and sigma in it, but 'fid', 'fd_dinov2'"):
        read_reference(tmp_path / "edm2.pkl", "patch")


def test_ours_is_read_as_it_was_written_and_is_the_same_bytes_again(tmp_path, moments):
    for name in ("a.npz", "b.npz"):
        write_reference(tmp_path / name, moments, ABOUT, FEATURES[:20])
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    found = read_reference(tmp_path / "a.npz")
    assert np.array_equal(found.statistics.covariance, moments.statistics().covariance)
    assert (found.count, found.about) == (60, ABOUT)
    assert found.features.dtype == np.float32
    assert np.array_equal(found.features, FEATURES[:20].astype(np.float16))
    with np.load(tmp_path / "a.npz", allow_pickle=False) as file:
        assert json.loads(str(file["about"])) == ABOUT and file["num_images"] == 60


def test_pytorch_fid_reads_ours(tmp_path, moments):
    from pytorch_fid.fid_score import compute_statistics_of_path

    write_reference(tmp_path / "ours.npz", moments, ABOUT)
    mean, covariance = compute_statistics_of_path(str(tmp_path / "ours.npz"), None, 1, WIDTH, "cpu")
    expected = moments.statistics()
    assert np.array_equal(mean, expected.mean) and np.array_equal(covariance, expected.covariance)


def test_a_reference_that_was_made_otherwise(tmp_path, moments):
    write_reference(tmp_path / "a.npz", moments, ABOUT)
    found = read_reference(tmp_path / "a.npz")
    check_made(found, {"input": "clean", "network": "what the file does not say"}, "it")
    with pytest.raises(UserError, match="it was made with input 'clean', and 'tf1' is needed"):
        check_made(found, {"input": "tf1"}, "it")


class Trap:
    def __reduce__(self):
        return os.mkdir, ("executed",)


def zipped(**members):
    """A zip file of members as they are, packed."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as file:
        for name, data in members.items():
            file.writestr(f"{name}.npy", data)
    return buffer.getvalue()


def npy(array):
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def header(shape, dtype="<f8"):
    """The beginning of a .npy file alone."""
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(buffer, {"descr": dtype, "fortran_order": False, "shape": shape})
    return buffer.getvalue()


def saved(**arrays):
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


WHOLE = saved(mu=MU, sigma=SIGMA)
HOSTILE = {
    "objects": (saved(mu=np.array([Trap()]), sigma=SIGMA), "damaged header"),
    "a size that lies": (zipped(mu=npy(MU), sigma=header((WIDTH, WIDTH))), "too few for"),
    "larger than memory": (zipped(mu=header((10**6,)) + b"0" * 8, sigma=header((10**6, 10**6))), "too few for"),
    "too wide": (zipped(mu=npy(np.zeros(5000, "f4")), sigma=header((5000, 5000))), "too few for|D up to 4096"),
    "a bomb": (zipped(mu=npy(MU), sigma=npy(SIGMA), features=header((50, WIDTH), "<f2") + bytes(10**7)), "more bytes"),
    "a large bomb": (
        zipped(mu=npy(MU), sigma=npy(SIGMA), features=header((2**20, WIDTH), "<f8") + bytes(2**20 * WIDTH * 8)),
        "unpacks from",
    ),
    "cut short": (WHOLE[:-100], "damaged, or cut short"),
    "changed": (WHOLE.replace(MU.tobytes()[:8], b"12345678"), "CRC"),
    "not finite": (saved(mu=np.full(WIDTH, np.nan), sigma=SIGMA), "mu has numbers that are not finite"),
    "no covariance": (saved(mu=MU, sigma=np.triu(np.ones((WIDTH, WIDTH)))), "no covariance"),
    "other shapes": (saved(mu=MU[:3], sigma=SIGMA), r"mu is \[3\] and sigma \[6, 6\]"),
    "complex": (saved(mu=MU.astype(complex), sigma=SIGMA), "numbers are needed"),
    "images alone": (saved(arr_0=np.zeros((2, 4, 4, 3), np.uint8)), "no mu and no sigma, but arr_0"),
    "no count": (saved(mu=MU, sigma=SIGMA, num_images=-1), "num_images is -1"),
    "about no object": (saved(mu=MU, sigma=SIGMA, about="[1]"), "about is no JSON object"),
    "a program": (pickle.dumps({"fid": Trap()}), "mkdir, which such files do not use"),
    "other numbers": (pickle.dumps({"fid": {"mu": MU.astype("f2"), "sigma": SIGMA}}), "other than float64 or float32"),
    "a pickle cut off": (pickle.dumps({"fid": {"mu": MU, "sigma": SIGMA}})[:-200], "cut off"),
    "a list": (pickle.dumps([1]), "a dict of statistics is needed"),
    "a page": (b"<!DOCTYPE html><html>", "a page of a website"),
    "empty": (b"", "an empty file"),
    "something else": (b"12345", "neither an .npz file"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_files(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    data, reason = HOSTILE[name]
    (tmp_path / "file").write_bytes(data)
    monkeypatch.setattr(references, "_MOST_FEATURES", 2**31)
    monkeypatch.setattr("sid_jax.evaluation.npz_members._LARGE", 2**20)
    with pytest.raises(UserError, match=reason) as raised:
        read_reference("file")
    assert "\n" not in str(raised.value) and str(tmp_path / "file") in str(raised.value)
    assert not (tmp_path / "executed").exists()


def test_hostile_pictures(tmp_path):
    for array, reason in (
        (np.zeros((2, 4, 4), np.uint8), r"uint8 \[N, H, W, 3\] is needed"),
        (np.zeros((1, 4096, 1, 3), np.uint8), "at most 2048 px"),
        (np.asfortranarray(np.zeros((2, 4, 4, 3), np.uint8)), "stored by columns"),
    ):
        np.savez(tmp_path / "file.npz", arr_0=array)
        with pytest.raises(UserError, match=reason):
            list(pictures_in(tmp_path / "file.npz", 4))
    np.savez(tmp_path / "file.npz", mu=MU, sigma=SIGMA)
    with pytest.raises(UserError, match=r"no images \(arr_0\)"):
        list(pictures_in(tmp_path / "file.npz", 4))


def test_no_such_file(tmp_path):
    with pytest.raises(UserError, match="no such file"):
        read_reference(tmp_path / "absent.npz")
