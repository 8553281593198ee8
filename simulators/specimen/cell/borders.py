"""Where a cell ends and its nucleus begins: plasma membrane with coated pits, and the envelope with its pores."""

import numpy as np

from simulators.specimen.cell.scene import WHOLE, Pit, Pore, Scene
from simulators.specimen.cell.shapes import Rows, Volume, axes, box_round, field, offsets, smooth_union, sphere

CLEFT_NM = 20.0
COAT_NM = 16.0
PERINUCLEAR_NM = 15.0  # half the distance between the membranes of the envelope
PORE_SPACING_NM = 200.0
NUCLEUS_APART_NM = 60.0  # from the plasma membrane, and from what hangs on it
PORE_RIM_NM = 25.0  # envelope that belongs to a pore's mark (five pixels of 5 nm in the seeds)


def plasma_membrane(scene: Scene) -> None:
    """Cytosol on one side, resin and the edge of another cell on the other; pits grow inwards, coated."""
    settings, rng, voxel = scene.settings, scene.rng, scene.settings.voxel_nm
    nz, ny, _ = settings.shape
    waves = 60 * field((nz, ny), 320 / voxel, rng) + 14 * field((nz, ny), 90 / voxel, rng)
    start = scene.size_nm[2] * rng.uniform(0.09, 0.15)
    _, _, x = axes(settings.shape, voxel)
    tilt_z, tilt_y = np.gradient(waves, voxel)
    depth = np.asarray((x - start - waves[:, :, None]) / np.sqrt(1 + tilt_z**2 + tilt_y**2)[:, :, None], np.float32)
    scene.stain[...] = settings.stain.cytosol
    outside = _pits(scene, depth)
    neighbour = depth + np.float32(CLEFT_NM + 60) + np.float32(30) * field((nz, ny), 150 / voxel, rng)[:, :, None]
    scene.stain[...] = np.where(outside < 0, np.float32(0.06), scene.stain)
    scene.stain[...] = np.where(neighbour < 0, np.float32(settings.stain.cytosol), scene.stain)
    scene.wall(WHOLE, outside, 1.1)
    scene.wall(WHOLE, neighbour, 1.1)
    scene.occupy(WHOLE, outside)


def _pits(scene: Scene, depth: Volume) -> Volume:
    """Signed distance from the outside with its pits, whose coats are drawn and which are marked."""
    settings, rng, voxel = scene.settings, scene.rng, scene.settings.voxel_nm
    outside = depth.copy()
    places: list[Rows] = []
    for _ in range(400):
        if len(places) == settings.anatomy.pits + settings.anatomy.coated_vesicles:
            break
        is_open = len(places) < settings.anatomy.pits
        radius = rng.uniform(38, 58) if is_open else rng.uniform(30, 44)
        below = radius * rng.uniform(0.35, 1.25) if is_open else rng.uniform(radius + 45, 330)
        z, y = (int(rng.integers(n)) for n in settings.shape[:2])
        x = int(np.argmin(np.abs(depth[z, y] - below)))
        centre = np.array([z, y, x]) * voxel
        if any(np.linalg.norm(centre - other) < 190 for other in places):
            continue
        box = box_round(centre, radius + 90, settings.shape, voxel)
        places.append(centre)
        ball = sphere(box, centre, radius, voxel)
        shell = (ball > -3) & (depth[box] > 6)
        coat = np.exp(-(((ball - 11) / 6) ** 2)) * shell
        spikes = 0.75 + 0.35 * field(ball.shape, 9 / voxel, rng)
        scene.stain[box] += np.float32(settings.stain.coat) * np.asarray(coat * spikes, np.float32)
        if is_open:
            outside[box] = smooth_union(outside[box], ball, 26.0)
        else:
            scene.fill(box, ball, settings.stain.cytosol * 0.5)
        scene.mark("coated_pit", box, (ball < COAT_NM) & (depth[box] > -4))
        scene.occupy(box, ball - np.float32(COAT_NM))
        z_nm, y_nm, x_nm = (float(c) for c in centre)
        scene.pits.append(Pit((z_nm, y_nm, x_nm), float(radius), float(below), is_open))
    return outside


def nucleus(scene: Scene) -> None:
    """A part of a nucleus at the far side: chromatin, two membranes, and pores where they turn into each other."""
    settings, rng, voxel = scene.settings, scene.rng, scene.settings.voxel_nm
    size = scene.size_nm
    radius = rng.uniform(1500, 2600)
    depth_nm = size[2] * rng.uniform(0.24, 0.36)
    way = np.array([rng.uniform(-0.5, 0.5), rng.uniform(-0.5, 0.5), 1.0])
    way /= np.linalg.norm(way)
    centre = size * (0.5, 0.5, 1.0) + way * (radius - depth_nm)
    distance = sphere(tuple(slice(0, n) for n in settings.shape), centre, radius, voxel)  # type: ignore[arg-type]
    distance += 26 * field(settings.shape, 170 / voxel, rng)
    distance = np.maximum(distance, np.float32(NUCLEUS_APART_NM) - scene.room_nm)
    lateral, hole = _pores(scene, distance, centre)
    # the space between the membranes ends at each pore in a round rim
    h = np.float32(PERINUCLEAR_NM)
    rim = np.sqrt(distance**2 + (lateral - hole - h) ** 2)
    gap = np.where(lateral < hole + h, rim, np.abs(distance)) - h
    chromatin = _chromatin(scene, distance, lateral)
    scene.stain[...] = np.where((distance < 0) & (gap > 0), chromatin, scene.stain)
    plug = np.exp(-((lateral / 30) ** 2) - (distance / 28) ** 2)
    scene.stain += np.float32(0.16) * plug * (1 - scene.stain)
    scene.fill(WHOLE, np.asarray(gap, np.float32), settings.stain.er_lumen)
    scene.mark("nucleus", WHOLE, distance < h)
    pore = (lateral < hole + PORE_RIM_NM) & (np.abs(distance) < h + 12)
    numbers = np.zeros(settings.shape, np.uint16)
    for number, one in enumerate(scene.pores, start=1):
        box = box_round(np.array(one.centre_nm), 110, settings.shape, voxel)
        numbers[box] = np.where(pore[box] & (numbers[box] == 0), number, numbers[box])
    scene.labels["nuclear_pore"] = numbers
    scene.occupy(WHOLE, distance - h)


def _pores(scene: Scene, distance: Volume, centre: Rows) -> tuple[Volume, Volume]:
    """Distance of each voxel from the axis of the nearest pore, and that pore's radius."""
    settings, rng, voxel = scene.settings, scene.rng, scene.settings.voxel_nm
    lateral, hole = np.full(settings.shape, np.float32(1e4)), np.full(settings.shape, np.float32(46.0))
    surface = np.argwhere(np.abs(distance) < 0.6 * voxel)
    placed: list[Rows] = []
    for index in surface[rng.permutation(len(surface))[:4000]] if len(surface) else []:
        point = index * voxel
        if placed and min(float(np.linalg.norm(point - other)) for other in placed) < PORE_SPACING_NM:
            continue
        if rng.random() < 0.35:
            continue
        placed.append(point)
        normal = _normal(distance, index, voxel)
        diameter = float(np.clip(rng.normal(settings.anatomy.pore_nm, settings.anatomy.pore_spread_nm), 60, 130))
        box = box_round(point, 120, settings.shape, voxel)
        dz, dy, dx = offsets(box, point, voxel)
        up = normal[0] * dz + normal[1] * dy + normal[2] * dx
        from_axis = np.sqrt(np.maximum(dz * dz + dy * dy + dx * dx - up * up, 0)).astype(np.float32)
        nearer = from_axis < lateral[box]
        lateral[box] = np.where(nearer, from_axis, lateral[box])
        hole[box] = np.where(nearer, np.float32(diameter / 2), hole[box])
        z, y, x = (float(p) for p in point)
        scene.pores.append(Pore((z, y, x), (float(normal[0]), float(normal[1]), float(normal[2])), diameter))
    return lateral, hole


def _normal(distance: Volume, index: Rows, voxel: float) -> Rows:
    """Outward unit normal of a surface at a voxel of it, from a plane fitted to what is around."""
    shape = distance.shape
    low = [max(0, int(i) - 4) for i in index]
    box = tuple(slice(a, min(n, int(i) + 5)) for a, i, n in zip(low, index, shape, strict=True))
    part = np.asarray(distance[box], float)
    way = np.array([g.mean() if n > 1 else 0.0 for g, n in zip(np.gradient(part, voxel), part.shape, strict=True)])
    return np.asarray(way / max(float(np.linalg.norm(way)), 1e-9))


def _chromatin(scene: Scene, distance: Volume, lateral: Volume) -> Volume:
    """Pale nucleoplasm, dark patches, and a dark rim that the channels below the pores interrupt."""
    stain, voxel, rng, shape = scene.settings.stain, scene.settings.voxel_nm, scene.rng, scene.settings.shape
    patches = field(shape, 55 / voxel, rng) + 0.5 * field(shape, 22 / voxel, rng)
    rim = np.exp(np.minimum(distance + PERINUCLEAR_NM, 0) / 65) * np.clip((lateral - 35) / 40, 0, 1)
    dense = np.clip(0.55 * (patches - 0.5), 0, 1) + rim * np.clip(0.75 + 0.4 * patches, 0, 1)
    fine = 0.035 * stain.grain * field(shape, 11 / voxel, rng)
    return np.asarray(stain.nucleoplasm + stain.heterochromatin * np.clip(dense, 0, 1.2) + fine, np.float32)
