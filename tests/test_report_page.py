"""report.html in a browser, without a network: nothing fails, the curves are drawn, and the slider moves the grids."""

import html
import re
import shutil
import subprocess

import numpy as np
import pytest
from etils import epath
from PIL import Image

import sid_jax.report
from sid_jax.errors import UserError
from sid_jax.runtime.run.captions import keep
from sid_jax.runtime.run.report.page import Page

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)
SETTINGS = {"images": 800, "batch": 8, "teacher": "a teacher"}
LOOK = """
<script>
addEventListener("load", async () => {
  const seen = [], say = line => seen.push(line);
  const pixelsOf = (drawn, width, height) => {
    const context = Object.assign(document.createElement("canvas"), { width, height })
      .getContext("2d", { willReadFrequently: true });
    context.drawImage(drawn, 0, 0);
    return context.getImageData(0, 0, width, height).data;
  };
  const inked = canvas => {
    const pixels = pixelsOf(canvas, canvas.width, canvas.height);
    return pixels.some((value, i) => i % 4 == 2 && value > 150 && pixels[i + 1] > 0 && pixels[i - 2] < 120);
  };
  const image = document.getElementById("grid"), slider = document.getElementById("slider");
  for (const value of ["0", "2", "1"]) {
    slider.value = value;
    slider.dispatchEvent(new Event("input"));
    await image.decode();
    const texts = [...document.querySelectorAll("#captions li")].map(line => line.textContent);
    say(`grid ${document.getElementById("update").textContent}: ${pixelsOf(image, 9, 9)[0] >> 5} ${texts}`);
  }
  document.querySelectorAll("#charts .card").forEach(card => {
    say(`chart ${card.querySelector("h3").textContent}: ${inked(card.querySelector("canvas"))}`);
  });
  document.querySelector("#charts input").click();
  say(`logarithmic: ${inked(document.querySelector("#charts canvas"))}`);
  const others = document.getElementById("others");
  others.open = true;
  await new Promise(done => setTimeout(done, 200));
  say(`others: ${others.querySelectorAll("canvas").length}`);
  document.title = seen.join("; ");
});
</script>
"""


@pytest.fixture
def page(tmp_path):
    """A page with curves and three grids, of one grey each."""
    made = Page(epath.Path(tmp_path), SETTINGS, [("batch", 8, 512)])
    for step in range(1, 101):
        wave = float(np.sin(step / 10))
        made.add_line(step, {"fake_loss": 20 + wave, "generator_loss": wave, "teacher_fake_gap": 1 / step, "n": 1.0})
    for step, grey in ((0, 16), (50, 112), (100, 240)):
        grid = Image.new("RGB", (200, 100), (grey,) * 3)
        keep(grid, ["<b>café</b>", "赤い猫"] if step else [])
        made.add_grid(step, grid)
    Image.new("RGB", (64, 64)).save(tmp_path / "side_by_side.png")
    made.write(ended=True)
    return tmp_path / "report.html"


@pytest.mark.slow
@pytest.mark.skipif(BROWSER is None, reason="no Chromium is installed")
def test_a_browser_shows_it_without_a_network(page, tmp_path):
    text = page.read_text()
    page.write_text(text.replace("</body>", f"{LOOK}</body>"))
    command = [
        BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--host-resolver-rules=MAP * ~NOTFOUND",
        f"--user-data-dir={tmp_path / 'browser'}", "--enable-logging=stderr", "--virtual-time-budget=10000",
        "--dump-dom", page.as_uri(),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert "CONSOLE" not in done.stderr, done.stderr
    title = html.unescape(done.stdout.partition("<title>")[2].partition("</title>")[0])
    assert title.split("; ") == [
        "grid update 0: 0 ", "grid update 100: 7 <b>café</b>,赤い猫", "grid update 50: 3 <b>café</b>,赤い猫",
        "chart Signal of convergence: true", "chart Loss of the fake network: true",
        "chart Loss of the generator: true", "logarithmic: true", "others: 1",
    ]  # fmt: skip


def test_the_command_writes_the_page_of_a_run(finished, tmp_path, capsys):
    sid_jax.report.main(["--run", str(finished), "--out", str(tmp_path / "page.html")])
    written, own = (file.read_text() for file in (tmp_path / "page.html", finished / "report.html"))
    assert capsys.readouterr().out == f"wrote {tmp_path / 'page.html'}\n"
    without_time = [re.sub("Written on [^.]*", "", page) for page in (written, own)]
    assert without_time[0] == without_time[1]
    assert "<td><code>batch</code></td><td><code>8</code></td><td><code>512</code></td>" in written


def test_the_command_says_what_is_wrong(finished, tmp_path):
    with pytest.raises(UserError, match="is not the folder of a run"):
        sid_jax.report.main(["--run", str(tmp_path)])
    with pytest.raises(UserError, match="no such folder"):
        sid_jax.report.main(["--run", str(finished), "--out", str(tmp_path / "none/page.html")])
