import numpy as np
import pytest
from PIL import Image

from sid_jax.runtime.run import captions, pictures
from sid_jax.runtime.run.pictures import GAP, LINE, enlarge, image_grid, save_png, side_by_side, two_grids


def colours(count, size=32):
    """One-coloured images, each of a grey level of its own."""
    levels = np.arange(count, dtype=np.uint8) * 10 + 5
    return np.broadcast_to(levels[:, None, None, None], (count, size, size, 3)).copy()


def grey(picture, x, y):
    return picture.getpixel((x, y))[0]


def test_small_images_are_enlarged_by_a_whole_factor():
    image = np.arange(2 * 2 * 3, dtype=np.uint8).reshape(1, 2, 2, 3)
    big = enlarge(image, tile=5)
    assert big.shape == (1, 6, 6, 3)
    np.testing.assert_array_equal(big[:, ::3, ::3], image)
    np.testing.assert_array_equal(big[:, 2::3, 2::3], image)
    assert enlarge(colours(1, 512)).shape == (1, 512, 512, 3)


def test_a_grid_has_the_images_row_by_row():
    grid = image_grid(colours(5), columns=3, tile=64)
    assert grid.size == (3 * (64 + GAP) + GAP, 2 * (64 + GAP) + GAP)
    step = 64 + GAP
    seen = [grey(grid, GAP + 30 + index % 3 * step, GAP + 30 + index // 3 * step) for index in range(6)]
    assert seen == [5, 15, 25, 35, 45, 255]


def test_a_grid_is_about_square_by_itself():
    assert image_grid(colours(9)).size == image_grid(colours(9), columns=3).size
    assert image_grid(colours(1)).size == image_grid(colours(1), columns=4).size


def test_captions_are_below_the_images():
    plain = image_grid(colours(2), columns=2, tile=64)
    captioned = image_grid(colours(2), columns=2, captions=["seven", ""], tile=64)
    assert captioned.size == (plain.width, plain.height + LINE)
    text = np.asarray(captioned)[GAP + 64 : GAP + 64 + LINE]
    assert text[:, :70].min() < 100
    assert text[:, 70:].min() == 255


def test_a_long_caption_is_cut_and_larger_below_larger_images():
    long = "many words " * 100
    heights = {}
    for size in (64, 400):
        plain = image_grid(colours(2, size), columns=2, tile=64)
        captioned = image_grid(colours(2, size), columns=2, captions=[long, ""], tile=64)
        heights[size] = captioned.height - plain.height
        below = np.asarray(captioned)[GAP + size :, GAP + size + 2 :]
        assert below.min() == 255  # nothing of it below the other image
    assert heights[64] == LINE * pictures.MOST_LINES < heights[400]


def test_a_caption_that_is_cut_says_so():
    lines = pictures._wrap("w" * 50 + " and more", 64, 2)
    assert len(lines) == 2 and lines[1].endswith("…")


def test_letters_that_the_font_lacks_are_written_as_in_python():
    assert captions.drawable("“a” cat…\tfl") == "“a” cat…\tfl"
    assert captions.drawable("café 赤い猫 \U0001f600") == r"caf\xe9 \u8d64\u3044\u732b \U0001f600"
    texts = ("赤い猫", r"\u8d64\u3044\u732b", "青い猫")
    drawn, escaped, other = (np.asarray(image_grid(colours(1), captions=[text], tile=300)) for text in texts)
    assert (drawn == escaped).all() and (drawn != other).any()


def test_the_file_of_a_picture_has_the_texts_whole(tmp_path):
    texts = ["赤い猫 <b>&", "many words " * 100, ""]
    whole = (texts[0], f"{texts[1].strip()[: captions.LONGEST]}…", "")
    for made in (
        image_grid(colours(3), captions=texts),
        two_grids((colours(3), colours(3)), ("teacher", "student"), texts),
        side_by_side(colours(3), colours(3), ("teacher", "student"), texts),
    ):
        save_png(made, tmp_path / "a.png")
        assert captions.kept(made) == captions.kept(Image.open(tmp_path / "a.png")) == whole
    save_png(image_grid(colours(3)), tmp_path / "a.png")
    assert captions.kept(Image.open(tmp_path / "a.png")) == ()


@pytest.mark.parametrize("captions", [None, ["three", "four"]])
def test_two_grids_stand_beside_each_other_under_their_titles(captions):
    grid = image_grid(colours(2), captions=captions)
    picture = two_grids((colours(2), colours(2) + 100), ("teacher, 50 steps", "student"), captions)
    top = picture.height - grid.height
    assert picture.width == 2 * grid.width + 4 * GAP and top >= LINE
    np.testing.assert_array_equal(np.asarray(picture)[top:, : grid.width], np.asarray(grid))
    assert grey(picture, grid.width + 4 * GAP + GAP + 30, top + GAP + 30) == 105
    titles = np.asarray(picture)[:top]
    assert titles[:, : grid.width].min() < 100 and titles[:, grid.width + 4 * GAP :].min() < 100


def test_two_blocks_have_a_row_for_each_prompt():
    picture = side_by_side(colours(6), colours(4), ("teacher", "student"), ["a", "b"], tile=64, prompt_width=100)
    pixels = np.asarray(picture)[..., 0]
    rows = [pixels.shape[0] - (2 - row) * (64 + GAP) + 32 for row in range(2)]
    left = [[pixels[y, 100 + column * (64 + GAP) + 32] for column in range(3)] for y in rows]
    right_start = 100 + 3 * (64 + GAP) + 4 * GAP
    right = [[pixels[y, right_start + column * (64 + GAP) + 32] for column in range(2)] for y in rows]
    assert left == [[5, 15, 25], [35, 45, 55]]
    assert right == [[5, 15], [25, 35]]
    for y in rows:
        assert pixels[y - 20 : y + 20, :90].min() < 100  # the prompt
    titles = pixels[: rows[0] - 32 - GAP]
    assert titles[:, 100:right_start].min() < 100
    assert titles[:, right_start:].min() < 100
    assert titles[:, :96].min() == 255


def test_a_long_prompt_stays_in_its_row():
    short, long = (
        side_by_side(colours(1), colours(1), ("a", "b"), [prompt], tile=64) for prompt in ("x", "many words " * 99)
    )
    assert short.size == long.size
    column = np.asarray(long)[-64 - GAP :, :180]
    assert column[:, -8:].min() == 255


def test_a_word_that_is_wider_than_its_tile_is_broken():
    captioned = image_grid(colours(2), columns=2, captions=["w" * 30, ""], tile=64)
    assert np.asarray(captioned)[GAP + 64 :, GAP + 64 + 2 :].min() == 255


def test_images_that_prompts_cannot_share_are_a_defect():
    with pytest.raises(ValueError, match="3 images can't be shared by 2 prompts"):
        side_by_side(colours(3), colours(2), ("a", "b"), ["x", "y"])


def test_a_png_is_whole_or_not_there(tmp_path, monkeypatch):
    path = tmp_path / "a.png"
    save_png(colours(1)[0], path)
    np.testing.assert_array_equal(np.asarray(Image.open(path)), colours(1)[0])
    assert [file.name for file in tmp_path.iterdir()] == ["a.png"]

    def fail(*arguments):
        raise OSError("disk full")

    monkeypatch.setattr(pictures, "write_whole", fail)
    with pytest.raises(OSError, match="disk full"):
        save_png(colours(2)[1], path)
    np.testing.assert_array_equal(np.asarray(Image.open(path)), colours(1)[0])
