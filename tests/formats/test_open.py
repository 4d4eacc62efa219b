"""Which format a source is opened in, and where pickles are fetched from. No test goes to the network."""

import edm_files
import huggingface_hub
import pytest
from huggingface_hub import errors

from sid_jax.errors import UserError
from sid_jax.experiment.export import published
from sid_jax.families.open import open_configs
from sid_jax.formats.edm_pickle import EDMPickle
from sid_jax.formats.open import open_bundle

PLACE = "UT-Austin-PML/SiD/cifar10-uncond/alpha1.2/network-snapshot-1.200000-403968.pkl"


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty current folder, and a hub that nobody may ask."""
    monkeypatch.chdir(tmp_path)
    for name in ("snapshot_download", "hf_hub_download"):
        monkeypatch.setattr(huggingface_hub, name, lambda *_, **__: pytest.fail("asked the hub"))
    return tmp_path


@pytest.mark.parametrize("source", ["a.pkl", "./a.pkl", "models/SiD/a.pkl", "models/SiD/more/a.pkl"])
def test_a_file_here_is_not_looked_for_on_the_hub(here, source):
    file = here / source
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(edm_files.dumps(edm_files.contents()))
    for name in (source, str(file), f"file://{file}"):
        bundle = open_bundle(name)
        assert isinstance(bundle, EDMPickle) and bundle.source == name
    assert published({"teacher": source})["teacher"] == "a.pkl"


def test_a_file_of_the_hub_is_fetched_with_its_revision(here, monkeypatch):
    asked = []

    def download(repository, name, *, revision):
        asked.append((repository, name, revision))
        (here / "cached.pkl").write_bytes(edm_files.dumps(edm_files.contents()))
        return str(here / "cached.pkl")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    assert open_bundle(PLACE, revision="v1").kind == "EDMPrecond"
    repository, name = "UT-Austin-PML/SiD", "cifar10-uncond/alpha1.2/network-snapshot-1.200000-403968.pkl"
    assert asked == [(repository, name, "v1")]
    assert published({"teacher": PLACE})["teacher"] == PLACE


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (errors.LocalEntryNotFoundError("no"), "the hub cannot be reached"),
        (errors.OfflineModeIsEnabled("no"), "the hub cannot be reached"),
        (OSError("disk\nfull"), r"\(disk\)"),
    ],
)
def test_what_the_hub_says_is_one_line(here, monkeypatch, error, expected):
    def download(*_, **__):
        raise error

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    with pytest.raises(UserError, match=rf"^{PLACE}: neither a file here nor .*{expected}"):
        open_bundle(PLACE)


@pytest.mark.parametrize(
    ("name", "link"),
    [
        ("edm-cifar10-32x32-cond-vp.pkl", "/edm-cifar10-32x32-cond-vp.pkl"),
        ("edm-imagenet-64x64-cond-adm.pkl", "/edm-imagenet-64x64-cond-adm.pkl"),
        ("edm-afhqv2-64x64-uncond-ve.pkl", "/edm-afhqv2-64x64-uncond-ve.pkl"),
        ("baseline-cifar10-32x32-uncond-ve.pkl", "/baseline/baseline-cifar10-32x32-uncond-ve.pkl"),
    ],
)
def test_for_a_file_of_nvidias_the_error_has_the_line_that_fetches_it(here, name, link):
    line = f"`curl -fLO https://nvlabs-fi-cdn.nvidia.com/edm/pretrained{link}`"
    for source in (name, f"/no/such/{name}", f"some/where/else/{name}"):
        with pytest.raises(UserError) as caught:
            open_bundle(source)
        assert str(caught.value) == f"{source}: no such file; fetch it with {line} and name the file"
    with pytest.raises(UserError, match="addresses are not opened; fetch it with `curl"):
        open_bundle(f"https://nvlabs-fi-cdn.nvidia.com/edm/pretrained{link}")


@pytest.mark.parametrize("source", ["no.pkl", "no/such.pkl", "/no/such/file.pkl", "a//b/c.pkl", "../a/b/c.pkl"])
def test_a_pickle_that_is_nowhere(here, source):
    with pytest.raises(UserError, match=r"\.pkl: no such file$"):
        open_bundle(source)


def test_pickles_have_no_variants_and_are_not_in_buckets(here):
    (here / "a.pkl").write_bytes(edm_files.dumps(edm_files.contents()))
    with pytest.raises(UserError, match="a pickle has no variants"):
        open_bundle("a.pkl", variant="fp16")
    with pytest.raises(UserError, match="copy it, or mount it"):
        open_bundle("gs://bucket/a.pkl")


def test_a_plan_needs_no_file_of_nvidias(here):
    bundle, origin = open_configs("edm-cifar10-32x32-uncond-vp.pkl")
    assert bundle.kind == "EDMPrecond" and bundle.config("denoiser")["channel_mult"] == [2, 2, 2]
    assert "come with sid_jax" in origin
    with pytest.raises(UserError, match="no weights"):
        bundle.weights("denoiser")
    (here / "edm-cifar10-32x32-uncond-vp.pkl").write_bytes(edm_files.dumps(edm_files.contents()))
    assert open_configs("edm-cifar10-32x32-uncond-vp.pkl")[0].config("denoiser") == edm_files.KWARGS | {
        "resample_filter": [1, 1]
    }


def test_a_folder_whose_name_ends_like_a_pickle(here):
    (here / "a.pkl").mkdir()
    with pytest.raises(UserError, match=r"a\.pkl"):
        open_bundle("a.pkl")
