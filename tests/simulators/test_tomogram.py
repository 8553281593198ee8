"""Simulated tomograms are what they say: known truth, a missing wedge, the asked-for noise."""

import numpy as np
import pytest

from simulators.specimen.tomogram import TomogramSettings, diffuse, simulate

SMALL = TomogramSettings(seed=4, shape=(48, 96, 96), vesicles=12, tilt_step_deg=4.0)


def test_the_same_settings_give_the_same_tomogram() -> None:
    one, two = simulate(SMALL), simulate(SMALL)
    assert np.array_equal(one.volume, two.volume)
    assert np.array_equal(one.labels, two.labels)


@pytest.mark.parametrize("kind", ["ordinary", "crowded"])
def test_labels_are_the_spheres_of_the_table(kind: str) -> None:
    made = simulate(TomogramSettings(seed=5, kind=kind, shape=(64, 128, 128), vesicles=20, tilt_step_deg=6.0))
    assert len(made.radii) == 20
    for number, (centre, radius) in enumerate(zip(made.centres, made.radii, strict=True), start=1):
        z, y, x = np.nonzero(made.labels == number)
        far = np.sqrt((z - centre[0]) ** 2 + (y - centre[1]) ** 2 + (x - centre[2]) ** 2)
        assert far.max() <= 1.06 * radius + 1
        if (centre > 1.1 * radius).all() and (centre < np.array(made.labels.shape) - 1.1 * radius - 1).all():
            assert len(z) == pytest.approx(4 / 3 * np.pi * radius**3, rel=0.12)


def test_vesicles_do_not_run_into_each_other() -> None:
    made = simulate(TomogramSettings(seed=6, kind="crowded", shape=(64, 128, 128), vesicles=40, tilt_step_deg=10.0))
    gaps = np.linalg.norm(made.centres[:, None] - made.centres[None], axis=2) - made.radii[:, None] - made.radii[None]
    np.fill_diagonal(gaps, np.inf)
    assert gaps.min() >= -1e-9
    assert (gaps.min(axis=1) < 2).mean() > 0.4, "crowded: many touch"


def test_nothing_is_seen_in_the_missing_wedge() -> None:
    """The share of the power in directions that no tilt saw, against an equal share of directions that were seen."""
    made = simulate(TomogramSettings(seed=7, shape=(64, 64, 64), vesicles=6, tilt_deg=50.0, tilt_step_deg=2.0))
    window = np.hanning(64)
    power = np.abs(np.fft.fftn(made.volume * window[:, None, None] * window[:, None] * window)) ** 2
    k = np.fft.fftfreq(64)
    kz, ky, kx = np.meshgrid(k, k, k, indexing="ij")
    shell = (np.sqrt(kz**2 + ky**2 + kx**2) > 0.12) & (np.sqrt(kz**2 + ky**2 + kx**2) < 0.4)
    angle = np.degrees(np.arctan2(np.abs(kz), np.abs(kx)))
    missing, seen = power[shell & (angle > 60)].mean(), power[shell & (angle < 40)].mean()
    assert missing < 0.05 * seen


def test_matter_is_dark_at_membranes() -> None:
    made = simulate(TomogramSettings(seed=8, shape=(48, 96, 96), vesicles=12, snr=20.0, tilt_step_deg=4.0))
    grid = np.stack(np.meshgrid(*[np.arange(n) for n in made.labels.shape], indexing="ij"), axis=-1)
    darker = []
    for centre, radius in zip(made.centres, made.radii, strict=True):
        offset = grid - centre
        far = np.linalg.norm(offset, axis=-1)
        level = np.abs(offset[..., 0]) < 0.4 * radius  # where the wedge takes little
        membrane = made.volume[level & (np.abs(far - radius + 1.4) < 1.0)].mean()
        darker.append(membrane < made.volume[level & (far < radius - 4)].mean())
    assert np.mean(darker) > 0.9


def test_diffusion_takes_noise_and_keeps_edges() -> None:
    rng = np.random.default_rng(1)
    step = np.zeros((24, 24, 24), np.float32)
    step[:, :, 12:] = 8.0
    noisy = step + rng.standard_normal(step.shape).astype(np.float32)
    scale = noisy.std()
    smooth = diffuse(noisy, edge=1.0)
    assert smooth[:, :, 2:9].std() < 0.6 * noisy[:, :, 2:9].std() / scale
    assert smooth[:, :, 14].mean() - smooth[:, :, 9].mean() > 0.8 * 8.0 / scale
