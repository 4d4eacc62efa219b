"""The laws of the losses' times: what they draw, and which of them a process has."""

import jax
import numpy as np
import pytest
from processes import RectifiedFlow, stable_diffusion

from sid_jax.sid import EDM, LAWS, FewStep, LogNormalKarras, Networks, Settings, Uniform, make_train_step

PROCESS = stable_diffusion()


def test_times_are_uniform_in_their_range():
    times = Uniform(7, 11)
    for draw in (times.fake, times.generator):
        t = np.asarray(draw(jax.random.key(0), 4000))
        assert t.dtype == np.int32 and t.shape == (4000,)
        values, counts = np.unique(t, return_counts=True)
        assert list(values) == [7, 8, 9, 10]
        assert counts.min() > 850


@pytest.mark.parametrize(("t_min", "t_max"), [(0.25, 0.75), (0, 0.5), (0.5, 1)])
def test_times_that_are_no_integers(t_min, t_max):
    """One that is none is enough: they are float32, as dense in one half of the range as in the other."""
    times = Uniform(t_min, t_max)
    for draw in (times.fake, times.generator):
        t = np.asarray(draw(jax.random.key(0), 4000))
        assert t.dtype == np.float32 and t.shape == (4000,)
        assert t_min <= t.min() < t_min + 0.01 and t_max - 0.01 < t.max() < t_max
        assert len(np.unique(t)) > 3900
        counts, _ = np.histogram(t, bins=4, range=(t_min, t_max))
        assert counts.min() > 850


def test_a_key_is_a_draw():
    for times in (Uniform(), Uniform(0.1, 0.9)):
        one, again, other = (np.asarray(times.fake(jax.random.key(seed), 100)) for seed in (0, 0, 1))
        np.testing.assert_array_equal(one, again)
        assert np.any(one != other)


def test_published_range():
    assert Uniform() == Uniform(20, 980)
    assert LAWS["uniform"] is Uniform


@pytest.mark.parametrize(
    ("process", "times"),
    [
        *((PROCESS, times) for times in ((-1, 10), (10, 10), (0, 1001), (0.0, 10), (20.0, 980.0))),
        *((RectifiedFlow(), times) for times in ((20, 980), (0.0, 0.5), (0.5, 0.5), (0.5, 1.5))),
    ],
)
def test_loss_times_outside_the_process(process, times):
    """Refused by name, by the law itself and where the train step is made."""
    with pytest.raises(ValueError, match=r"^sid\.t_min, sid\.t_max: "):
        Uniform(*times).check(process)
    few_step = FewStep(process, 1, process.default_start(1))
    networks, settings = Networks(lambda params, x, t, cond, dropout_key: x), Settings(batch=1, shape=(1, 1, 1))
    with pytest.raises(ValueError, match=r"^sid\.t_min, sid\.t_max: "):
        make_train_step(networks, few_step, Uniform(*times), settings)


@pytest.mark.parametrize(
    ("process", "times"), [(PROCESS, (20, 980)), (PROCESS, (0, 1000)), (RectifiedFlow(), (0.001, 1))]
)
def test_loss_times_of_the_process(process, times):
    Uniform(*times).check(process)


def test_quantiles_of_edms_times():
    """The numbers of the published losses; omega's mean and median under the fake network's law."""
    law, count = LogNormalKarras(), 200_000
    t = np.asarray(law.fake(jax.random.key(0), count))
    assert t.dtype == np.float32 and t.shape == (count,) and t.min() > 0
    levels = [0.05, 0.25, 0.5, 0.75, 0.95]
    normal = np.array([-1.6448536, -0.6744898, 0, 0.6744898, 1.6448536])
    np.testing.assert_allclose(np.log(np.quantile(t, levels)), -1.2 + 1.2 * normal, atol=0.02)
    omega = EDM().fake_weight(t)
    assert float(np.median(omega)) == pytest.approx(15, rel=0.02)
    assert float(np.mean(omega)) == pytest.approx(200.4, rel=0.1)  # its tail is heavy

    t = np.asarray(law.generator(jax.random.key(1), count))
    assert t.dtype == np.float32 and t.shape == (count,)
    assert t.min() == pytest.approx(0.002, rel=0.01) and t.max() == pytest.approx(24.41, rel=1e-3)
    assert float(np.quantile(t, 0.5)) == pytest.approx(0.964, rel=0.02)
    assert float(np.quantile(t, 0.625)) == pytest.approx(2.515, rel=0.02)  # u = 0.5
    whole = np.asarray(LogNormalKarras(u_max=1.0).generator(jax.random.key(1), count))
    assert whole.max() == pytest.approx(80, rel=1e-3)


@pytest.mark.parametrize("changes", [{"p_std": -1.0}, {"u_max": 0.0}, {"u_max": 1.5}, {"rho": 0.0}])
def test_laws_that_are_none(changes):
    with pytest.raises(ValueError, match=rf"^sid\.{next(iter(changes))}: "):
        LogNormalKarras(**changes)


@pytest.mark.parametrize("process", [PROCESS, RectifiedFlow(), EDM(sigma_max=40.0)])
def test_edms_times_are_for_its_process(process):
    with pytest.raises(ValueError, match=r"^sid\.sigma_min, sid\.sigma_max: "):
        LogNormalKarras().check(process)
    LogNormalKarras().check(EDM())
