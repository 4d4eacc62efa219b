"""What files record of the networks, and what of it is refused."""

import math

import pytest

from sid_jax.errors import UserError
from sid_jax.models.edm.config import iddpm_levels
from sid_jax.models.registry import NETWORK_TYPES
from sid_jax.teachers import build

SONG = {"img_resolution": 16, "img_channels": 3, "model_type": "SongUNet"}
ADM = {"img_resolution": 64, "img_channels": 3, "model_type": "DhariwalUNet"}


def parsed(values, class_name="EDMPrecond"):
    return NETWORK_TYPES[class_name].config.from_dict(values)


def test_what_files_leave_unsaid():
    song = parsed(SONG).network
    assert (song.model_channels, song.channel_mult, song.channel_mult_emb, song.num_blocks) == (128, (1, 2, 2, 2), 4, 4)
    assert (song.attn_resolutions, song.dropout, song.augment_dim) == ((16,), 0.10, 0)
    assert (song.embedding_type, song.encoder_type, song.channel_mult_noise) == ("positional", "standard", 1)
    assert song.resample_filter == (1, 1)
    adm = parsed(ADM).network
    assert (adm.model_channels, adm.channel_mult, adm.channel_mult_emb, adm.num_blocks) == (192, (1, 2, 3, 4), 4, 3)
    assert (adm.attn_resolutions, adm.dropout, adm.augment_dim) == ((32, 16, 8), 0.10, 0)
    assert parsed(SONG).label_dim == 0 and parsed(SONG).sigma_data == 0.5


def test_the_network_that_each_preconditioner_takes_by_itself():
    bare = {"img_resolution": 64, "img_channels": 3}
    types = {name: parsed(bare, name).model_type for name in NETWORK_TYPES if name.endswith("Precond")}
    assert types == {
        "EDMPrecond": "DhariwalUNet", "VPPrecond": "SongUNet", "VEPrecond": "SongUNet", "iDDPMPrecond": "DhariwalUNet"
    }  # fmt: skip


def test_a_network_may_have_no_attention_but_at_its_bottom():
    assert parsed({**SONG, "attn_resolutions": []}).network.attn_resolutions == ()


def test_ranges_of_noise_levels():
    assert parsed(SONG).sigma_range == (0, math.inf)
    assert parsed({**SONG, "sigma_min": 0.002, "sigma_max": 80}).sigma_range == (0.002, 80)
    assert parsed({**SONG, "sigma_max": math.inf}).sigma_range == (0, math.inf)
    assert parsed(SONG, "VEPrecond").sigma_range == (0.02, 100)
    assert parsed(SONG, "VPPrecond").sigma_range == pytest.approx((1.0005e-3, 152.17), rel=1e-4)
    levels = iddpm_levels()
    assert len(levels) == 1001 and levels[-1] == 0 and (levels[:-1] > levels[1:]).all()
    assert parsed(SONG, "iDDPMPrecond").sigma_range == (levels[999], levels[0])


@pytest.mark.parametrize(
    ("values", "names"),
    [
        ({**SONG, "channels": 3}, "'channels'"),
        ({**SONG, "network": {}}, "'network'"),
        ({**SONG, "_note": 1}, "'_note'"),
        ({**SONG, "decay": 0.9}, "'decay'"),
        ({**ADM, "embedding_type": "positional"}, "'embedding_type'"),
        ({**SONG, "beta_d": 19.9}, "'beta_d'"),
        ({"img_channels": 3}, "'img_resolution' is missing"),
        ({"img_resolution": 64}, "'img_channels' is missing"),
        ({**SONG, "model_type": "UNet"}, "'model_type'"),
        ({**SONG, "model_type": ["SongUNet"]}, "'model_type'"),
        ({**SONG, "img_resolution": 0}, "'img_resolution'"),
        ({**SONG, "img_resolution": 20}, "'img_resolution'"),
        ({**SONG, "img_resolution": "16"}, "'img_resolution'"),
        ({**SONG, "img_channels": True}, "'img_channels'"),
        ({**SONG, "label_dim": -1}, "'label_dim'"),
        ({**SONG, "label_dim": 10.0}, "'label_dim'"),
        ({**SONG, "use_fp16": 1}, "'use_fp16'"),
        ({**SONG, "sigma_data": 0}, "'sigma_data'"),
        ({**SONG, "sigma_data": math.nan}, "'sigma_data'"),
        ({**SONG, "model_channels": 30}, "groups"),
        ({**SONG, "model_channels": 7}, "'model_channels'"),
        ({**SONG, "model_channels": 10**9}, "'model_channels'"),
        ({**SONG, "channel_mult": []}, r"'channel_mult' is \[\]; at least one value is needed"),
        ({**SONG, "channel_mult": [2, 0]}, "'channel_mult'"),
        ({**SONG, "channel_mult": [1] * 50}, "'channel_mult'"),
        ({**SONG, "channel_mult_noise": 0}, "'channel_mult_noise'"),
        ({**SONG, "num_blocks": 10**12}, "'num_blocks'"),
        ({**SONG, "attn_resolutions": 16}, "'attn_resolutions'"),
        ({**SONG, "dropout": 1.0}, "'dropout'"),
        ({**SONG, "label_dropout": 0.1}, "'label_dropout'"),
        ({**SONG, "augment_dim": -9}, "'augment_dim'"),
        ({**SONG, "embedding_type": "sinusoidal"}, "'embedding_type'"),
        ({**SONG, "encoder_type": "skip"}, "'encoder_type'"),
        ({**SONG, "decoder_type": "skip"}, "'decoder_type'"),
        ({**SONG, "resample_filter": [1, 2, 1]}, "'resample_filter'"),
        ({**SONG, "resample_filter": []}, "'resample_filter'"),
        ({**SONG, "embedding_type": []}, "'embedding_type'"),
        ({**ADM, "model_channels": 96}, "head"),
    ],
)
def test_what_is_refused(values, names):
    with pytest.raises(UserError, match=names) as error:
        build("EDMPrecond", values, where="teacher.pkl")
    assert str(error.value).startswith("teacher.pkl: ") and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("class_name", "value"),
    [("VPPrecond", {"beta_d": 20}), ("VPPrecond", {"M": 100}), ("iDDPMPrecond", {"C_2": 0.01})],
)
def test_constants_that_no_published_file_has(class_name, value):
    with pytest.raises(UserError, match=next(iter(value))):
        build(class_name, {**SONG, **value})


def test_constants_that_are_said_as_they_are():
    parsed({**SONG, "beta_d": 19.9, "beta_min": 0.1, "M": 1000, "epsilon_t": 1e-5}, "VPPrecond")
    parsed({**SONG, "decoder_type": "standard", "label_dropout": 0}, "EDMPrecond")
