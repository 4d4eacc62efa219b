"""Image-text pairs: each kind of source, and the stream over them."""

import io
import json
import tarfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sid_jax import dataset
from sid_jax.data.pairs import Pair
from sid_jax.data.sources.latents import LatentCache, write_cache
from sid_jax.data.sources.open import open_pairs
from sid_jax.data.sources.pictures import open_pictures
from sid_jax.data.streams import ConditionStream, JoinedStream, PairStream
from sid_jax.errors import UserError

COUNT = 10


def picture(number):
    file = io.BytesIO()
    Image.fromarray(np.full((12, 12, 3), 20 * number, np.uint8)).save(file, "PNG")
    return file.getvalue()


def tokenize(captions):
    return {"ids": np.array([[int(caption)] for caption in captions], np.int32)}


class Source(list):
    name = "a list"


def source_of(bad=()):
    return Source(Pair(b"bad" if n in bad else picture(n), (str(n),)) for n in range(COUNT))


def stream(source=None, batch=3, seed=0, **options):
    return PairStream(source or source_of(), batch, seed, tokenize, 8, 1000, **options)


def numbers(source, iterations):
    return [next(source)["tokens"]["ids"][:, 0].tolist() for _ in range(iterations)]


# ---- Sources.


def make_folder(folder):
    (folder / "a").mkdir(parents=True)
    for number in range(COUNT):
        (folder / f"a/{number}.png").write_bytes(picture(number))
        (folder / f"a/{number}.txt").write_text(f" {number}\n")
    (folder / "lonely.png").write_bytes(picture(0))
    return str(folder)


def make_metadata(folder):
    folder.mkdir()
    lines = []
    for number in range(COUNT):
        (folder / f"{number}.png").write_bytes(picture(number))
        lines.append(json.dumps({"file_name": f"{number}.png", ("text", "caption")[number % 2]: str(number)}))
    (folder / "metadata.jsonl").write_text("\n".join(lines) + "\n")
    return str(folder)


def add(tar, name, data, **changes):
    member = tarfile.TarInfo(name)
    member.size = len(data)
    for field, value in changes.items():
        setattr(member, field, value)
    tar.addfile(member, io.BytesIO(data))


def make_tars(folder):
    folder.mkdir()
    for shard in range(2):
        with tarfile.open(folder / f"{shard}.tar", "w") as tar:
            for number in range(shard, COUNT, 2):
                add(tar, f"x/{number}.png", picture(number))
                if shard:
                    add(tar, f"x/{number}.json", json.dumps({"caption": str(number)}).encode())
                else:
                    add(tar, f"x/{number}.txt", str(number).encode())
            add(tar, "x/lonely.jpg", b"")
            add(tar, "x/link.png", b"", type=tarfile.SYMTYPE, linkname="/etc/passwd")
            add(tar, "x/link.txt", b"")
    return str(folder / "*.tar")


@pytest.mark.parametrize("make", [make_folder, make_metadata, make_tars])
def test_a_source_has_each_image_with_its_caption(make, tmp_path):
    source = open_pairs(make(tmp_path / "pairs"))
    assert len(source) == COUNT
    found = {pair.conditions: pair.image for pair in (source[index] for index in range(len(source)))}
    assert found == {(str(number),): picture(number) for number in range(COUNT)}


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ('{"file_name": "../x.png", "text": "x"}', r"line 1: '../x.png' is outside the folder"),
        ('{"file_name": "/etc/passwd", "text": "x"}', r"is outside the folder"),
        ('{"file_name": "x.png"}', r"line 1: needs the strings"),
        ('{"file_name": 1, "text": "x"}', r"line 1: needs the strings"),
        ("[1", r"line 1: needs the strings"),
    ],
)
def test_a_bad_metadata_file(line, problem, tmp_path):
    (tmp_path / "metadata.jsonl").write_text(line)
    with pytest.raises(UserError, match=problem):
        open_pairs(str(tmp_path))


@pytest.mark.parametrize("name", ["../x.png", "/x.png", "a/../../x.png"])
def test_a_tar_whose_members_lead_out_of_it(name, tmp_path):
    with tarfile.open(tmp_path / "x.tar", "w") as tar:
        add(tar, name, b"")
    with pytest.raises(UserError, match="leads out of the archive"):
        open_pairs(str(tmp_path / "x.tar"))


def test_bad_sources_are_errors_of_one_line(tmp_path):
    tars = Path(make_tars(tmp_path / "pairs")).parent
    whole = (tars / "0.tar").read_bytes()
    (tmp_path / "cut.tar").write_bytes(whole[:1700])
    (tmp_path / "text.tar").write_bytes(b"no tar" * 200)
    (tmp_path / "empty").mkdir()
    with tarfile.open(tmp_path / "packed.tar", "w:gz") as tar:
        add(tar, "a.png", b"")
    with tarfile.open(tmp_path / "none.tar", "w") as tar:
        add(tar, "a.png", b"")
    for name, problem in {
        "": "real.source is empty",
        "absent": "is not a folder",
        "empty": "no image with a caption",
        "cut.tar": "is not a whole tar file",
        "text.tar": "is not a whole tar file",
        "packed.tar": "decompress it",
        "none.tar": "no image with a caption",
        "*.absent.tar": "there is no such file",
    }.items():
        with pytest.raises(UserError, match=problem) as caught:
            open_pairs(name and str(tmp_path / name))
        assert "\n" not in str(caught.value)


def test_a_dataset_of_tensorflow_datasets(tmp_path):
    """Built from an .npz and read back without TensorFlow."""
    pytest.importorskip("tensorflow_datasets")
    from sid_jax.data.images import decode
    from sid_jax.digits.pairs.__main__ import main
    from sid_jax.digits.prompts import digit_of, load_mnist

    images = np.random.default_rng(0).integers(0, 256, (COUNT, 28, 28), np.uint8)
    np.savez(tmp_path / "d.npz", images=images, labels=np.arange(COUNT))
    main([f"--out={tmp_path / 'tfds'}", f"--data={tmp_path / 'd.npz'}"])
    source = open_pairs("tfds:digit_pairs", data_dir=str(tmp_path / "tfds"))
    assert len(source) == COUNT and source.name.startswith("tfds:digit_pairs/1.0.0 train")
    expected, _ = load_mnist(str(tmp_path / "d.npz"))
    for pair in (source[index] for index in range(COUNT)):
        (caption,) = pair.conditions
        np.testing.assert_array_equal(decode(pair.image, 32, 2000), expected[digit_of(caption)])
    labelled = open_pairs("tfds:digit_pairs", data_dir=str(tmp_path / "tfds"), label="")
    assert source.classes is None and labelled.classes == 10 and labelled.name != source.name
    for index in range(COUNT):
        assert labelled[index].conditions == (digit_of(source[index].conditions[0]),)
    dataset.main(["--source=tfds:digit_pairs", f"--data-dir={tmp_path / 'tfds'}", f"--out={tmp_path / 'd.zip'}"])
    packed = open_pairs(str(tmp_path / "d.zip"))
    for index in range(COUNT):
        assert packed[index].conditions == labelled[index].conditions
        np.testing.assert_array_equal(*(decode(each[index].image, 32, 2000) for each in (packed, labelled)))
    alone = open_pictures("tfds:digit_pairs:train", "--images", str(tmp_path / "tfds"))
    assert [alone.read(index) for index in range(COUNT)] == [labelled[index].image for index in range(COUNT)]
    assert len(alone.names) == COUNT and alone.names[2] == "tfds:digit_pairs/1.0.0:train 2" and alone.digest()
    for options, problem in (
        ({"data_dir": str(tmp_path / "none")}, "tfds:digit_pairs, split train"),
        ({"split": "test"}, "split test"),
        ({"image": "label"}, "real.image is one of"),
        ({"caption": "title"}, "real.caption is one of"),
        ({"label": "title"}, "real.label is one of"),
        ({"label": "caption"}, "'caption' is no class: set real.label"),
    ):
        with pytest.raises(UserError, match=problem):
            open_pairs("tfds:digit_pairs", **{"data_dir": str(tmp_path / "tfds")} | options)


def test_a_cache_of_latents(tmp_path):
    latents = np.random.default_rng(0).normal(size=(COUNT, 2, 2, 4)).astype(np.float32)
    batches = ((latents[i : i + 4], [(str(n), "x") for n in range(i, min(i + 4, COUNT))]) for i in range(0, COUNT, 4))
    about = {"source": "pairs", "autoencoder": "abc", "resolution": 16}
    assert write_cache(tmp_path / "cache", batches, COUNT + 3, **about) == COUNT
    cache = open_pairs(str(tmp_path / "cache"))
    assert isinstance(cache, LatentCache) and len(cache) == COUNT
    assert cache.encoded == ((2, 2, 4), 16, "abc")
    np.testing.assert_array_equal(cache[7].image, latents[7].astype(np.float16))
    assert cache[7].conditions == ("7", "x") and cache.classes is None
    (tmp_path / "cache/captions.jsonl").write_text('["1"]\n')
    with pytest.raises(UserError, match="write it anew"):
        open_pairs(str(tmp_path / "cache"))
    (tmp_path / "cache/captions.jsonl").write_text("[3]\n" * COUNT)
    assert open_pairs(str(tmp_path / "cache")).classes == 4
    (tmp_path / "cache/captions.jsonl").write_text("[3]\n" * (COUNT - 1) + '["3"]\n')
    with pytest.raises(UserError, match="something else among its labels"):
        open_pairs(str(tmp_path / "cache"))


# ---- The stream.


def test_each_epoch_has_each_pair_once_in_an_order_of_its_own():
    drawn = [number for batch in numbers(stream(batch=5), 6) for number in batch]
    epochs = [drawn[i : i + COUNT] for i in range(0, 3 * COUNT, COUNT)]
    assert all(sorted(epoch) == list(range(COUNT)) for epoch in epochs)
    assert epochs[0] != epochs[1] and numbers(stream(batch=5, seed=1), 2) != numbers(stream(batch=5), 2)


def test_images_and_captions_stay_together():
    batch = next(stream())
    assert batch["images"].shape == (3, 8, 8, 3) and batch["images"].dtype == np.uint8
    np.testing.assert_array_equal(batch["images"][:, 0, 0, 0], 20 * batch["tokens"]["ids"][:, 0])


def test_hosts_read_their_rows_of_the_same_batches():
    whole = numbers(stream(batch=4), 5)
    parts = [numbers(stream(batch=4, rows=rows), 5) for rows in ((0, 1), (2, 3))]
    assert whole == [one + other for one, other in zip(*parts, strict=True)]


def test_a_restored_stream_goes_on_where_it_was():
    one = stream()
    numbers(one, 4)
    position = json.loads(json.dumps(one.position()))
    other = stream()
    other.restore(position)
    assert numbers(one, 5) == numbers(other, 5)
    with pytest.raises(UserError, match="are not those that this run was started with"):
        stream(Source(source_of()[:5])).restore(position)


def test_corrupted_images_are_skipped_and_counted():
    """The next usable one stands in for it, and the others are as they were."""
    good, bad = stream(batch=5), stream(source_of(bad=[3, 4]), batch=5)
    skipped = 0
    for _ in range(4):
        expected, found = next(good), next(bad)
        replaced = {3: 5, 4: 5}
        wanted = [replaced.get(n, n) for n in expected["tokens"]["ids"][:, 0].tolist()]
        assert found["tokens"]["ids"][:, 0].tolist() == wanted
        skipped += found["corrupted"].sum()
    assert skipped == 2 * (2 + 1)


def test_a_source_of_only_corrupted_images_is_an_error():
    with pytest.raises(UserError, match=r"a list: 10 pairs in a row, from \d on, can't be used: Unidentified"):
        next(stream(source_of(bad=range(COUNT))))


def test_captions_of_an_image_take_turns():
    source = Source([Pair(picture(1), ("1", "2", "3"))])
    assert Counter(number for (number,) in numbers(stream(source, batch=1), 9)) == {1: 3, 2: 3, 3: 3}


def test_prompts_and_pairs_as_one_stream():
    def joined():
        return JoinedStream(ConditionStream(["1", "2", "3"], 2, 0, tokenize), stream(batch=2))

    one, other = joined(), joined()
    batch = next(one)
    assert set(batch) == {"fake", "generator", "real"} and set(batch["real"]) == {"images", "tokens", "corrupted"}
    other.restore(json.loads(json.dumps(one.position())))
    a, b = next(one), next(other)
    assert a["fake"]["ids"].tolist() == b["fake"]["ids"].tolist()
    assert a["real"]["tokens"]["ids"].tolist() == b["real"]["tokens"]["ids"].tolist()


def test_the_fake_update_may_be_given_what_the_pairs_are_of():
    """Sample by sample; the other update and the pairs are as they are otherwise."""

    def joined(**options):
        return JoinedStream(ConditionStream(["10", "11", "12"], 2, 0, tokenize), stream(batch=2), **options)

    apart, together = joined(), joined(fake_as_real=True)
    for _ in range(3):
        one, other = next(apart), next(together)
        assert other["fake"] is other["real"]["tokens"]
        for name in ("real", "generator"):
            np.testing.assert_equal(one[name], other[name])
        assert one["fake"]["ids"].min() >= COUNT > other["fake"]["ids"].max()
    together.restore(apart.position())
