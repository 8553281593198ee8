"""Rules of the CTF fit: what goes into a micrograph comes out again, checked against two generators."""

import itertools
import math
from functools import lru_cache

import numpy as np
import pytest
from numpy.typing import NDArray

from models.conditions import Conditions, wavelength_angstrom
from models.quality import ctf
from models.quality.optics import Defocus, Lens
from models.quality.spectrum import spectrum
from simulators.specimen import HoleTruth, Specimen, SpecimenSettings, View

PIXELS = (0.65, 1.06, 2.1)
VOLTAGES = (300.0, 200.0)
# of the relativistic formula, to four digits (Williams & Carter, Transmission Electron Microscopy, table 1.2)
WAVELENGTH = {100.0: 0.0370, 200.0: 0.0251, 300.0: 0.0197}


def white_object(
    px: float, kv: float, defocus_um: float, astigmatism_um: float, angle_deg: float, *, side: int = 768,
    shift_deg: float = 0.0, signal: float = 1.0, seed: int = 1,
) -> NDArray[np.float32]:  # fmt: skip
    """A micrograph of white noise under a weak-phase CTF, written down anew: no line of the product is used."""
    rng = np.random.default_rng(seed)
    h, m, e, c = 6.62607015e-34, 9.1093837e-31, 1.602176634e-19, 2.99792458e8
    volt = kv * 1e3
    lam = h / math.sqrt(2 * m * e * volt * (1 + e * volt / (2 * m * c * c))) * 1e10
    u, v = np.meshgrid(np.fft.fftfreq(side) / px, np.fft.fftfreq(side) / px)
    g2 = u * u + v * v
    first, second = defocus_um + astigmatism_um / 2, defocus_um - astigmatism_um / 2
    a = math.radians(angle_deg)
    along, across = u * math.cos(a) + v * math.sin(a), -u * math.sin(a) + v * math.cos(a)
    # z k² of an ellipse: first along its axis, second across it
    z_g2 = (first * along**2 + second * across**2) * 1e4
    gamma = math.pi * lam * z_g2 - math.pi / 2 * 2.7e7 * lam**3 * g2**2
    gamma += math.atan(0.07 / math.sqrt(1 - 0.07**2)) + math.radians(shift_deg)
    white = np.fft.fft2(rng.normal(size=(side, side)))
    image = np.fft.ifft2(white * np.sin(gamma) * np.exp(-15 * g2)).real
    return np.asarray(1000 - signal * image + rng.normal(size=(side, side)), dtype=np.float32)


@lru_cache
def specimen(kv: float) -> tuple[Specimen, HoleTruth]:
    grid = Specimen(SpecimenSettings(seed=7, ice="good", grid_radius_um=150, voltage_kv=kv))
    return grid, max((h for s in grid.squares for h in grid.holes(s.index)), key=lambda h: h.quality)


def fitted(image: NDArray, px: float, kv: float, **conditions: float | None) -> ctf.CtfFit:
    found = ctf.fit(spectrum(np.asarray(image, np.float32), px).polar(), Conditions(voltage_kv=kv, **conditions))
    assert found is not None
    return found


@pytest.mark.parametrize("kv", WAVELENGTH)
def test_the_wavelength_is_the_tabulated_one(kv: float) -> None:
    assert wavelength_angstrom(kv) == pytest.approx(WAVELENGTH[kv], abs=6e-5)


@pytest.mark.parametrize(("kv", "px"), list(itertools.product(VOLTAGES, PIXELS)))
@pytest.mark.parametrize("defocus_um", [0.5, 1.4, 4.0])
def test_defocus_of_a_white_object_is_found_within_two_percent(kv: float, px: float, defocus_um: float) -> None:
    astigmatism = 0.1 * defocus_um
    found = fitted(white_object(px, kv, defocus_um, astigmatism, 35.0), px, kv)
    assert found.defocus.mean_um == pytest.approx(defocus_um, rel=0.01)
    largest, smallest = (found.defocus.mean_um + s * found.defocus.astigmatism_um / 2 for s in (1, -1))
    assert largest == pytest.approx(1.05 * defocus_um, rel=0.02)
    assert smallest == pytest.approx(0.95 * defocus_um, rel=0.02)


@pytest.mark.parametrize(("kv", "px"), list(itertools.product(VOLTAGES, PIXELS)))
def test_defocus_and_astigmatism_of_a_simulated_micrograph_are_found_within_two_percent(kv: float, px: float) -> None:
    grid, hole = specimen(kv)
    side = 1536 if px < 1 else 1024  # fewer pixels of so small an area hold less than 2 % of information
    for defocus_um, angle_deg in ((0.5, 35.0), (1.3, 150.0), (4.0, 80.0)):
        astigmatism = 0.1 * defocus_um
        view = View(
            hole.x_um, hole.y_um, px, (side, side), defocus_um=defocus_um, astigmatism_um=astigmatism / 2,
            astigmatism_angle_deg=angle_deg, dose_e_per_a2=60,
        )  # fmt: skip
        found = fitted(grid.render(view), px, kv)
        assert found.defocus.mean_um == pytest.approx(defocus_um, rel=0.005)
        assert found.defocus.astigmatism_um == pytest.approx(astigmatism, rel=0.02)
        assert abs((found.defocus.angle_deg - angle_deg + 90) % 180 - 90) < 1.5
        assert found.resolution_angstrom < max(4.5, 2.1 * px)


def test_the_angle_of_astigmatism_is_that_of_the_larger_defocus_from_x_towards_y() -> None:
    for angle in (0.0, 45.0, 90.0, 135.0):
        found = fitted(white_object(1.5, 300.0, 1.5, 0.3, angle), 1.5, 300.0).defocus
        assert abs((found.angle_deg - angle + 90) % 180 - 90) < 2.0
        assert found.along(np.radians([angle]))[0] == pytest.approx(1.65, rel=0.01)
        assert found.along(np.radians([angle + 90]))[0] == pytest.approx(1.35, rel=0.01)


def test_noise_without_rings_is_resolved_nowhere_and_trusted_little() -> None:
    rng = np.random.default_rng(3)
    for _ in range(4):
        found = fitted(rng.normal(size=(1024, 1024)), 1.06, 300.0)
        assert found.confidence < 0.4
        assert found.resolution_angstrom > 8


def test_the_resolution_follows_the_signal() -> None:
    strong, weak = (fitted(white_object(1.06, 300.0, 1.5, 0.0, 0.0, signal=s), 1.06, 300.0) for s in (1.0, 0.25))
    assert strong.resolution_angstrom < 4.5 < weak.resolution_angstrom
    assert strong.confidence > 0.95


def test_a_phase_plate_is_found_when_it_is_said_to_be_there() -> None:
    image = white_object(1.06, 300.0, 1.0, 0.1, 20.0, shift_deg=90.0)
    found = fitted(image, 1.06, 300.0, phase_shift_deg=None)
    assert found.defocus.shift_deg == pytest.approx(90, abs=8)
    assert found.defocus.mean_um == pytest.approx(1.0, rel=0.02)
    known = fitted(image, 1.06, 300.0, phase_shift_deg=90.0)
    assert known.defocus.mean_um == pytest.approx(1.0, rel=0.01)


def test_a_long_frame_and_a_square_one_give_the_same_defocus() -> None:
    image = white_object(1.3, 300.0, 1.8, 0.2, 60.0)
    for part in (image, image[:700], image[:, :700]):
        assert fitted(part, 1.3, 300.0).defocus.mean_um == pytest.approx(1.8, rel=0.01)


def test_the_lens_turns_the_phase_as_the_formula_says() -> None:
    lens = Lens.of(Conditions(voltage_kv=300.0, cs_mm=2.7, amplitude_contrast=0.07))
    k, lam = 0.2, 0.0196875
    expected = math.pi * lam * 1e4 * k**2 - math.pi / 2 * 2.7e7 * lam**3 * k**4 + math.asin(0.07)
    assert lens.phase(np.array([k]), 1.0)[0] == pytest.approx(expected, rel=1e-4)
    assert Defocus(2.0, 0.4, 30.0).along(np.radians([30.0, 120.0])) == pytest.approx([2.2, 1.8])


def test_an_image_too_small_for_rings_is_not_fitted() -> None:
    tiny = np.random.default_rng(1).normal(size=(24, 24)).astype(np.float32)
    assert ctf.fit(spectrum(tiny, 1.0).polar(), Conditions()) is None
