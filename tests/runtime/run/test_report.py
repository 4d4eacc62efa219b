"""report.html: bounded whatever the run, whole, and never the end of a run."""

import json
import re

import numpy as np
import pytest
from etils import epath
from PIL import Image

from sid_jax.runtime.run.log import RunLog, make_workdir
from sid_jax.runtime.run.pictures import image_grid, save_png
from sid_jax.runtime.run.report import grids
from sid_jax.runtime.run.report.curves import Curves
from sid_jax.runtime.run.report.grids import MOST_GRIDS, embedded, spread
from sid_jax.runtime.run.report.page import Page

SETTINGS = {"images": 64, "batch": 8, "teacher": "<b>teacher & co</b>"}
CHANGES = [("teacher", "<b>teacher & co</b>", ""), ("batch", 8, 512)]


def data_of(page):
    """What the scripts of a page are given."""
    return json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)[1])


def train(workdir, steps, resumed_step=0):
    """What a run of these steps logs."""
    log = RunLog(workdir, SETTINGS, resumed_step, CHANGES)
    for step in steps:
        log.metrics(step, step * 8, {"fake_loss": 10.0 * step, "teacher_fake_gap": 1 / step, "odd": np.nan, "new": 1.0})
        log.picture(step, "student", Image.new("RGB", (8, 8), (step, 0, 0)))
    log.flush()
    return log


def page_of(workdir):
    return (workdir / "report.html").read_text()


@pytest.mark.parametrize("lines", [7, 8, 9, 1000])
def test_a_curve_has_means_of_neighbours_in_a_bounded_number(lines):
    curves = Curves(most=8)
    for step in range(1, lines + 1):
        curves.add(step, {"a": float(step), "b": None if step % 2 else 3.0, "c": float("inf")})
    assert len(curves.steps) <= 8 and curves.steps[-1] == lines and curves.names == ["a", "b"]
    if lines <= 8:
        assert curves.of("a") == list(range(1, lines + 1))
        assert curves.of("b") == [None if step % 2 else 3 for step in range(1, lines + 1)]
    else:
        first = curves.steps[0]  # of a point that stands for as many lines
        assert first >= lines / 8 and curves.of("a")[0] == (1 + first) / 2
        assert set(curves.of("b")) <= {3.0, None}


def test_of_many_grids_those_stay_that_are_far_apart():
    kept: list[int] = []
    for step in range(0, 100_000, 500):
        kept = spread([*kept, step], 10)
    assert len(kept) == 10 and (kept[0], kept[-1]) == (0, 99_500)
    assert max(np.diff(kept)) <= 4 * min(np.diff(kept))
    assert spread({3: "", 1: ""}, 10) == [1, 3]


def test_a_grid_of_noise_is_reduced_until_it_is_small():
    noise = np.random.default_rng(0).integers(0, 256, (700, 700, 3), np.uint8)
    assert len(embedded(Image.fromarray(noise))) < 1.4 * grids._MOST_BYTES
    assert len(embedded(Image.fromarray(noise))) > 20_000
    assert embedded(Image.new("RGB", (8, 8))).startswith("data:image/webp;base64,")


def test_a_page_is_whole_and_everything_in_it_is_escaped(tmp_path):
    workdir = make_workdir(str(tmp_path / "<i>run"))
    train(workdir, [1, 2]).close()
    page = page_of(workdir)
    assert "<title>&lt;i&gt;run</title>" in page and "update 2 of 8, 16 images" in page
    assert "<b>" not in page and "&lt;b&gt;teacher &amp; co&lt;/b&gt;" in page
    assert "<td><code>batch</code></td><td><code>8</code></td><td><code>512</code></td>" in page
    assert not re.search(r"(src|href)=\"(?!data:)", page) and "{{" not in page.replace(
        page[page.index("<script>") :], ""
    )
    data = data_of(page)
    assert [chart["names"] for chart in data["charts"][:2]] == [["teacher_fake_gap"], ["fake_loss"]]
    assert data["steps"] == [1, 2] and data["values"]["fake_loss"] == [10, 20]
    assert "new" in [chart["title"] for chart in data["others"]] and "odd" not in data["values"]
    assert data["values"]["timing/images_per_second"][0] is None
    assert [step for step, _ in data["grids"]] == [1, 2]


def test_a_run_that_goes_on_has_what_was_before_and_no_more(tmp_path):
    train(make_workdir(str(tmp_path / "a")), [1, 2, 3]).close()
    log = train(make_workdir(str(tmp_path / "a")), [3, 4], resumed_step=2)
    data = data_of(page_of(tmp_path / "a"))
    assert data["steps"] == [1, 2, 3, 4] and [step for step, _ in data["grids"]] == [1, 2, 3, 4]
    log.close()

    # The same from the folder alone, with what a run writes at its end.
    Image.new("RGB", (8, 8)).save(tmp_path / "a/side_by_side.png")
    (tmp_path / "a/table.json").write_text('{"teacher": {"steps": 50, "<guidance>": null}, "samples": 9}')
    page = Page(epath.Path(tmp_path / "a"), SETTINGS, CHANGES)
    page.load()
    page.write(ended=True, path=tmp_path / "b.html")
    written = (tmp_path / "b.html").read_text()
    assert data_of(written)["values"]["fake_loss"] == [10, 20, 30, 40]
    assert '<h2>Teacher beside student</h2>\n<img src="data:image/webp;base64,' in written
    assert "<th>&lt;guidance&gt;</th>" in written and "<td>50</td><td>-</td>" in written and "9 images each" in written
    assert "Teacher beside student" not in page_of(tmp_path / "a")


def test_a_page_in_a_bucket(bucket):
    workdir = make_workdir(f"{bucket}/runs/a")
    train(workdir, [1]).close()
    train(workdir, [2], resumed_step=1).close()
    assert data_of((workdir / "report.html").read_text())["steps"] == [1, 2]


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), RuntimeError("a bucket's client")])
def test_a_page_that_cannot_be_written_is_said_and_the_run_goes_on(tmp_path, monkeypatch, caplog, error):
    def refuse(self, *arguments, **keywords):
        raise error

    with monkeypatch.context() as patched:
        patched.setattr(Page, "write", refuse)
        train(make_workdir(str(tmp_path / "a")), [1])
    assert re.search(r"a/report\.html can't be written: .*(No space|bucket's client).*; the run goes on", caplog.text)
    assert not (tmp_path / "a/report.html").exists()


def test_a_damaged_grid_is_left_out_and_that_is_said(tmp_path, caplog):
    train(make_workdir(str(tmp_path / "a")), [1, 2, 3]).close()
    (tmp_path / "a/samples/student-000002.png").write_bytes(b"\x89PNG\r\n\x1a\n nothing")
    train(make_workdir(str(tmp_path / "a")), [4], resumed_step=3).close()
    assert [step for step, _ in data_of(page_of(tmp_path / "a"))["grids"]] == [1, 3, 4]
    assert "student-000002.png is not a whole picture" in caplog.text


def test_a_long_run_has_a_page_of_bounded_size(tmp_path):
    page = Page(epath.Path(tmp_path), SETTINGS, CHANGES)
    for step in range(1, 5000):
        page.add_line(step, {f"value {i}": step / 7 for i in range(10)})
    for step in range(3 * MOST_GRIDS):
        page.add_grid(step, Image.new("RGB", (16, 16)))
    page.write(ended=False)
    data = data_of((tmp_path / "report.html").read_text())
    assert len(data["steps"]) <= 1000 and len(data["grids"]) == MOST_GRIDS
    assert (tmp_path / "report.html").stat().st_size < 500_000


def test_the_page_has_the_texts_of_the_images(tmp_path):
    """Of each grid its own: what is shown may change between two starts. A run's prompts are no HTML."""
    log = RunLog(tmp_path, SETTINGS, 0, CHANGES)
    for step, texts in enumerate((["赤い猫", "a </script> cat"], ["赤い猫", "a </script> cat"], ["a dog"], None)):
        count = len(texts or "12")
        log.picture(step, "student", image_grid(np.zeros((count, 8, 8, 3), np.uint8), captions=texts))
    log.flush()
    written = page_of(tmp_path)
    data = data_of(written)
    assert data["captions"] == [["赤い猫", "a </script> cat"], ["a dog"], []] and data["captions_of"] == [0, 0, 1, 2]
    assert "a </script> cat" not in written
    beside = image_grid(np.zeros((1, 8, 8, 3), np.uint8), captions=["café <i>"])
    save_png(beside, tmp_path / "side_by_side.png")
    page = Page(epath.Path(tmp_path), SETTINGS, CHANGES)
    page.load()
    page.write(ended=True)
    assert data_of(page_of(tmp_path)) == data and "<ol><li>café &lt;i&gt;</li></ol>" in page_of(tmp_path)
