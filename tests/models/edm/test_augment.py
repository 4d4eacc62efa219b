"""EDM's augmentation against the same in plain NumPy, its labels, and what it leaves as it is."""

import jax
import numpy as np
import pytest

from sid_jax.models.edm import augment as edm

SYM6 = [
    0.015404109327027373, 0.0034907120842174702, -0.11799011114819057, -0.048311742585633, 0.4910559419267466,
    0.787641141030194, 0.3379294217276218, -0.07263752278646252, -0.021060292512300564, 0.04472490177066578,
    0.0017677118642428036, -0.007800708325034148,
]  # fmt: skip
IMAGES = np.random.default_rng(0).uniform(-1, 1, (6, 16, 16, 3)).astype(np.float32)


def transforms(**changes):
    """Of six images, none but those named active."""
    zeros = dict.fromkeys(edm.Transforms._fields, np.zeros(6, np.float32)) | {
        "translation": np.zeros((6, 2), np.float32)
    }
    return edm.Transforms(**{name: np.asarray(value, np.float32) for name, value in (zeros | changes).items()})


def filtered(image, axis, taps, padding):
    """The correlation along an axis, tap by tap."""
    image = np.moveaxis(image, axis, 0)
    image = np.concatenate([np.zeros((padding, *image.shape[1:])), image, np.zeros((padding, *image.shape[1:]))])
    length = len(image) - len(taps) + 1
    return np.moveaxis(sum(tap * image[i : i + length] for i, tap in enumerate(taps)), 0, axis)


def by_hand(image, t):
    """One image, float64; `t` are its transforms."""
    side = image.shape[0]
    if t.x_flip:
        image = image[:, ::-1]
    if t.y_flip:
        image = image[::-1]

    def translate(x, y):
        return np.array([[1, 0, x], [0, 1, y], [0, 0, 1]])

    def stretch(x, y):
        return np.diag([x, y, 1.0])

    def rotate(a):
        return np.array([[np.cos(a), -np.sin(a), 0], [np.sin(a), np.cos(a), 0], [0, 0, 1]])

    g = np.eye(3)
    g = g @ stretch(2 ** (-0.2 * t.scale), 2 ** (-0.2 * t.scale)) @ rotate(t.rotation)
    s = 2 ** (0.2 * t.anisotropy)
    g = g @ rotate(-t.direction) @ stretch(1 / s, s) @ rotate(t.direction)
    g = g @ translate(-0.125 * side * t.translation[0], -0.125 * side * t.translation[1])
    g = translate(-0.5, -0.5) @ stretch(2, 2) @ g @ stretch(0.5, 0.5) @ translate(0.5, 0.5)

    image = np.pad(image.astype(np.float64), ((side - 1, side - 1), (side - 1, side - 1), (0, 0)), mode="reflect")
    for axis in (0, 1):
        shape = list(image.shape)
        shape[axis] = 2 * shape[axis] - 1
        spread = np.zeros(shape)
        spread[tuple(slice(None, None, 2) if a == axis else slice(None) for a in range(3))] = image
        image = filtered(spread, axis, SYM6[::-1], 6)
    n, out = len(image), 2 * (side + 6)
    read = np.zeros((out, out, 3))
    for i in range(out):
        for j in range(out):
            x, y, _ = g @ [j + 0.5 - out / 2, i + 0.5 - out / 2, 1] + n / 2 - 0.5
            left, top = int(np.floor(x)), int(np.floor(y))
            for row, y_share in ((top, top + 1 - y), (top + 1, y - top)):
                for column, x_share in ((left, left + 1 - x), (left + 1, x - left)):
                    if 0 <= row < n and 0 <= column < n:
                        read[i, j] += y_share * x_share * image[row, column]
    for axis in (0, 1):
        read = filtered(read, axis, SYM6, 5)
        read = read[::2] if axis == 0 else read[:, ::2]
    return read[3:-3, 3:-3]


def test_images_are_those_of_the_words():
    """Each transform alone, and all of them at once, up to far out of the image."""
    t = transforms(
        x_flip=[0, 1, 0, 0, 1, 1],
        y_flip=[0, 1, 0, 0, 0, 1],
        scale=[1.3, 0, 0, 0, -0.7, -2.5],
        rotation=[0, 0.8, 0, 0, -2.9, 1.1],
        anisotropy=[0, 0, -1.4, 0, 0.6, 2.1],
        direction=[0, 0, 0.5, 0, -1.2, 3.0],
        translation=[[0, 0], [0, 0], [0, 0], [0.9, -1.7], [0.3, 0.2], [-7, 9]],
    )
    made = np.asarray(edm.transform(IMAGES, t))
    expected = [by_hand(image, edm.Transforms(*(field[i] for field in t))) for i, image in enumerate(IMAGES)]
    assert np.abs(made - np.stack(expected)).max() <= 5e-5
    assert np.abs(made[5]).max() < np.abs(made[4]).max() and np.ptp(made[4]) > 1


def test_an_image_with_nothing_active_is_as_it_was():
    """To the bit, also where it is mirrored; the warp itself is the identity to 2e-5."""
    made = np.asarray(edm.transform(IMAGES, transforms(x_flip=[0, 1, 0, 1, 0, 0], y_flip=[0, 0, 1, 1, 0, 0])))
    expected = [IMAGES[0], IMAGES[1][:, ::-1], IMAGES[2][::-1], IMAGES[3][::-1, ::-1], *IMAGES[4:]]
    np.testing.assert_array_equal(made, np.stack(expected))
    identity = edm._warp(IMAGES, np.tile(np.eye(3, dtype=np.float32), (6, 1, 1)))
    assert np.abs(identity - IMAGES).max() < 2e-5


def test_labels():
    t = transforms(
        x_flip=[1, 0, 0, 0, 0, 0], y_flip=[0, 1, 0, 0, 0, 0], scale=[0.5] * 6, rotation=[0.3] * 6,
        anisotropy=[-0.4] * 6, direction=[2.0] * 6, translation=[[0.6, -0.7]] * 6,
    )  # fmt: skip
    rest = [0.5, np.cos(0.3) - 1, np.sin(0.3), -0.4 * np.cos(2), -0.4 * np.sin(2), 0.6, -0.7]
    np.testing.assert_allclose(t.labels[0], [1, 0, *rest], rtol=1e-5)
    np.testing.assert_allclose(t.labels[1], [0, 1, *rest], rtol=1e-5)
    np.testing.assert_array_equal(transforms().labels, np.zeros((6, edm.LABELS)))


@pytest.mark.parametrize("probability", [0.0, 0.12, 1.0])
def test_how_often_each_is_active(probability):
    count = 40_000
    labels = np.asarray(edm.draw(jax.random.key(0), count, probability).labels)

    def near(value, expected, spread=1.0):
        assert abs(value - expected) < 5 * spread / np.sqrt(count)

    share = (labels != 0).mean(axis=0)
    near(share[0], 0.5)
    near(share[1], probability / 2)
    for label in range(2, 9):
        # Along the axes there is no second number of the anisotropy: half of the time.
        near(share[label], probability * (0.5 if label == 6 else 1))
    # Two numbers of one transform come together; the cosine of a small angle is 1.
    assert not np.any((labels[:, 3] != 0) & (labels[:, 4] == 0))
    assert np.array_equal(labels[:, 7] != 0, labels[:, 8] != 0)
    near(labels[:, [2, 7, 8]].mean(), 0)
    near((labels[:, [2, 7, 8]] ** 2).mean(), probability, 1.5)
    near((labels[:, 5:7] ** 2).sum(axis=1).mean(), probability, 1.5)
    near(((labels[:, 3] + 1) ** 2 + labels[:, 4] ** 2).mean(), 1)
    near(labels[:, 3].mean(), -probability)
    if probability == 0.12:
        pairs = np.corrcoef((labels[:, [1, 2, 3, 5, 7]] != 0).T)
        assert np.abs(pairs - np.eye(5)).max() < 0.03


def test_a_key_is_a_draw_and_each_image_has_its_own():
    one, again, other = (
        jax.jit(edm.augment, static_argnums=2)(jax.random.key(seed), IMAGES, 1.0) for seed in (0, 0, 1)
    )
    for first, second, third in zip(one, again, other, strict=True):
        np.testing.assert_array_equal(first, second)
        assert np.any(first != third)
    assert one[0].shape == IMAGES.shape and one[0].dtype == one[1].dtype == np.float32
    assert len(np.unique(one[1][:, 2])) == 6
