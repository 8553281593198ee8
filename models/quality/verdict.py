"""From measured numbers to a label, a score and reasons that a microscopist can check."""

import math

from models.detections import MicrographLabel
from models.quality import ctf
from models.quality.cover import chance
from models.quality.measured import Measured

_SATURATED = 0.02  # share of pixels at the highest count
_DARK_COUNTS = 1.0  # mean of an unsigned image below which no beam came through
_CRYSTAL_RING, _CRYSTAL_SPOTS = 0.2, 4  # ice ring over its surroundings; spots beyond noise
# slow variation over grain, and as share of the mean where both are known: for pixels too coarse for rings of ice
_MOTTLED, _WAVES = 0.56, 0.012
_DIRTY = 0.03  # share of the frame under lumps
_BROKEN = 0.4
_EDGE = 0.2  # share of the frame on foil
_EMPTY_NM, _THICK_NM = 6.0, 150.0
_FLAT = 0.12  # fall of log power towards high frequency below which nothing scatters
_RINGS = 6.0  # significance below which there are no Thon rings
_REFLECTIONS = 3.0  # log power by which reflections stand out, where the pixel size is not known
_SHADOW_NOISE, _SHADOW = 0.12, 0.75

_CAP: dict[MicrographLabel, float] = {
    "good": 1.0, "edge": 0.6, "dirty": 0.5, "thick": 0.35, "empty": 0.1, "broken": 0.1, "crystalline": 0.15,
    "dark": 0.02, "saturated": 0.02, "unknown": 0.3,
}  # fmt: skip


def label_of(m: Measured) -> tuple[MicrographLabel, str]:
    """The class of a micrograph and the reason for it; the first that holds."""
    n, nm = m.numbers, m.thickness_nm
    if n["saturated"] > _SATURATED:
        return "saturated", f"{n['saturated']:.1%} of the pixels are at the highest count"
    if n["floor"] > 0.5 or (m.counts and n["mean"] < _DARK_COUNTS):
        return "dark", "hardly any beam came through"
    rings = m.fit is not None and m.fit.significance > _RINGS
    crystal = m.lattice is not None and (m.lattice.ring > _CRYSTAL_RING or m.lattice.spots >= _CRYSTAL_SPOTS)
    if m.lattice is not None and crystal and m.conditions.vitreous:
        return "crystalline", f"ice ring {m.lattice.ring:.2f} over its surroundings, {m.lattice.spots} spots"
    if m.fit is None and n["spots"] > _REFLECTIONS:
        return "crystalline", f"reflections stand out by {n['spots']:.1f} in log power"
    if m.lattice is None and (mottled := _mottled(m)) > 1 and m.conditions.vitreous:
        return "crystalline", f"mottled all over, {mottled:.1f} times what vitreous ice may be"
    if m.cover.dirt_share > _BROKEN:
        return "broken", f"{m.cover.dirt_share:.0%} of the frame are far darker than the rest"
    if m.cover.foil_share > _EDGE:
        return "edge", f"{m.cover.foil_share:.0%} of the frame are foil"
    if nm is not None and nm < _EMPTY_NM and not (rings and nm > 0.5 * _EMPTY_NM):
        return "empty", f"{nm:.0f} nm of ice: an empty hole"
    if nm is None and not rings and -n["high_share"] < _FLAT:
        return "empty", "the power spectrum is flat: nothing scatters"
    if m.cover.dirt_share > _DIRTY:
        return "dirty", f"{m.cover.dirt_share:.1%} of the area is covered by something dark"
    if nm is not None and nm > _THICK_NM:
        return "thick", f"{nm:.0f} nm of ice"
    if (
        nm is None
        and not rings
        and (n["noise_share"] < _SHADOW_NOISE or (n["unevenness"] > _SHADOW and n["rings"] < 2.5))
    ):
        return "thick", "slow shadows outweigh the fine contrast"
    return "good", ""


def score_of(m: Measured, label: MicrographLabel) -> float:
    """Worth from 0 to 1: a product of what each measurement leaves, capped by the label."""
    parts = list(parts_of(m).values())
    product = math.prod(parts)
    return round(min(max(product, 0.0), _CAP[label]), 6)


def parts_of(m: Measured) -> dict[str, float]:
    """What each measurement leaves of a perfect score, 0 to 1; measurements that are not there leave all."""
    n, nm = m.numbers, m.thickness_nm
    parts = {"clean": math.exp(-m.cover.dirt_share / 0.05), "hole": 1 - 0.9 * m.cover.foil_share}
    plain = _plain_rings(n)
    if m.fit is not None:
        # rings to 5 Å are good, to 9 Å hardly; pixels too coarse for 5 Å cannot show more than they have
        finest = max(0.0, 1 / m.spectrum.nyquist - 3.0)
        resolved = 1 - chance(m.fit.resolution_angstrom - 0.75 * finest, 7.0, 1.0)
        parts["rings"] = 0.05 + 0.95 * m.fit.confidence * resolved
        if m.spectrum.nyquist < ctf.COARSE:  # too few rings to hold it against the micrograph
            parts["rings"] = max(parts["rings"], 0.8 * plain)
    else:
        parts["rings"] = plain
    if nm is not None:
        parts["ice"] = chance(nm, 12.0, 2.5) / (1 + (max(nm - 50.0, 0.0) / 70.0) ** 2)
    if m.lattice is not None:
        parts["vitreous"] = 1 / (1 + (m.lattice.ring / 0.3) ** 2) * (0.5 if m.lattice.spots >= _CRYSTAL_SPOTS else 1.0)
    else:
        parts["vitreous"] = 1 - 0.8 * chance(_mottled(m), 1.0, 0.06)
    return parts if m.conditions.vitreous else {key: value for key, value in parts.items() if key != "vitreous"}


def _mottled(m: Measured) -> float:
    """Slow variation in units of the limit of vitreous ice: by contrast where pixels are counts of known size."""
    if m.cover.waves is not None and m.counts:
        return m.cover.waves / _WAVES
    return m.cover.mottle / _MOTTLED


def _plain_rings(n: dict[str, float]) -> float:
    """How much the spectrum looks as that of a good micrograph does, where no CTF can be fitted."""
    even = min(max(1.2 - n["unevenness"], 0.0), 1.0)
    signal = min(max(-n["high_share"], 0.0), 1.0)
    swing = min(max((n["rings"] - 1.2) / 1.8, 0.0), 1.0)
    return (0.3 + 0.7 * even) * (0.1 + 0.9 * signal) * (0.4 + 0.6 * swing)


def reasons(m: Measured) -> str:
    """The figures in one line."""
    parts = []
    if m.fit is not None:
        f = m.fit
        if f.confidence >= 0.5:
            parts.append(f"CTF to {f.resolution_angstrom:.1f} Å, {f.defocus.mean_um:.2f} µm underfocus")
            if f.defocus.astigmatism_um > 0.04 * f.defocus.mean_um:
                parts.append(f"astigmatism {f.defocus.astigmatism_um:.2f} µm at {f.defocus.angle_deg:.0f}°")
        else:
            parts.append("no Thon rings to trust")
    if m.thickness_nm is not None:
        parts.append(f"ice {max(m.thickness_nm, 0.0):.0f} nm")
    if m.lattice is not None and m.lattice.ring > 0.1:
        parts.append(f"ice ring {m.lattice.ring:.2f}")
    if m.cover.dirt_share >= 0.005:
        parts.append(f"{m.cover.dirt_share:.1%} dirt")
    if m.cover.foil_share > 0:
        parts.append(f"{m.cover.foil_share:.0%} foil")
    return ", ".join(parts)
