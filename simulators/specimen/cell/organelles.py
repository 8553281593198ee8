"""What lies in the cytosol: mitochondria with cristae, Golgi stacks, reticulum, and what is there but not marked."""

import numpy as np

from simulators.specimen.cell.scene import WHOLE, Scene
from simulators.specimen.cell.shapes import (
    FAR_NM,
    Box,
    Course,
    Rows,
    Volume,
    along,
    box_round,
    field,
    offsets,
    sphere,
    winding,
)

INTERMEMBRANE_NM = 17.0
CRISTA_HALF_NM = 8.0
CISTERNA_SPACING_NM = 44.0
APART_NM = 24.0


def mitochondria(scene: Scene) -> None:
    """Winding bodies with an outer and an inner membrane, the inner one folded into cristae."""
    settings, rng, voxel = scene.settings, scene.rng, scene.settings.voxel_nm
    placed = 0
    for _ in range(settings.anatomy.mitochondria * 40):
        if placed == settings.anatomy.mitochondria:
            return
        radius = rng.uniform(*settings.anatomy.mitochondrion_radius_nm)
        length = rng.uniform(2.5, 9.0) * radius
        start = rng.uniform(-0.05, 1.05, 3) * scene.size_nm
        path = winding(start, rng.standard_normal(3), length, 1.5 * voxel, 0.12, rng)
        if _clear(scene, path, radius * 1.15 + APART_NM):
            placed += _mitochondrion(scene, path, radius)


def _clear(scene: Scene, path: Rows, reach_nm: float) -> bool:
    """Whether there is room along a path; what lies outside the region does not count, but something must be in it."""
    places = [scene.at(point) for point in path]
    within = [place for place in places if place is not None]
    return bool(within) and all(scene.room_nm[place] > reach_nm for place in within)


def _mitochondrion(scene: Scene, path: Rows, radius: float) -> bool:
    settings, rng, voxel = scene.settings, scene.rng, scene.settings.voxel_nm
    course = along(path, radius * 1.3 + 30, settings.shape, voxel)
    if course is None:
        return False
    box = course.box
    waist = 1 + 0.12 * field((len(path),), 90 / voxel, rng)
    ends = np.minimum(np.arange(len(path)), np.arange(len(path))[::-1]) * 1.5 * voxel
    swell = radius * waist * np.clip(0.75 + 0.25 * ends / radius, 0, 1)
    outer = course.distance_nm - swell[course.nearest].astype(np.float32)
    outer += 9 * field(outer.shape, 75 / voxel, rng)
    outer[course.nearest < 0] = FAR_NM
    room = scene.room_nm[box]
    if (room[outer < 0] < 6).mean() > 0.02:
        return False
    outer = np.maximum(outer, 8 - room)
    matrix = np.maximum(outer + np.float32(INTERMEMBRANE_NM), -_cristae(scene, course, path, radius))
    content = np.where(matrix < 0, np.float32(settings.stain.matrix), np.float32(settings.stain.crista))
    content += 0.03 * settings.stain.grain * field(outer.shape, 10 / voxel, rng)
    scene.fill(box, outer, content)
    scene.wall(box, np.where(outer < 0, matrix, FAR_NM), 0.95)
    scene.mark("mitochondrion", box, outer < 3)
    return True


def _cristae(scene: Scene, course: Course, path: Rows, radius: float) -> Volume:
    """Signed distance from the lumen of the cristae: folds across the axis, each from one side to somewhere."""
    rng, voxel, period = scene.rng, scene.settings.voxel_nm, scene.settings.anatomy.cristae_nm
    shape = course.distance_nm.shape
    nearest = np.maximum(course.nearest, 0)
    tangent = np.gradient(path, axis=0)
    tangent /= np.linalg.norm(tangent, axis=1, keepdims=True)
    corner = np.array([s.start for s in course.box]) * voxel
    axes = [
        (np.arange(n, dtype=np.float32) * voxel + c).reshape([-1 if k == axis else 1 for k in range(3)])
        for axis, (n, c) in enumerate(zip(shape, corner, strict=True))
    ]
    aside = [axes[k] - path[nearest, k].astype(np.float32) for k in range(3)]
    forward = sum(aside[k] * tangent[nearest, k].astype(np.float32) for k in range(3))
    place = nearest * np.float32(1.5 * voxel) + forward + 30 * field(shape, 130 / voxel, rng)
    phase = place / np.float32(period)
    number = np.floor(phase).astype(np.int32)
    across = np.abs(phase - number - 0.5) * np.float32(period) - np.float32(CRISTA_HALF_NM)
    # each fold grows in from a direction of its own and ends somewhere inside
    number -= number.min()
    count = int(number.max()) + 1
    ways = rng.standard_normal((count, 3))
    ways /= np.linalg.norm(ways, axis=1, keepdims=True)
    ends = (radius * rng.uniform(-0.55, 0.75, count)).astype(np.float32)
    ends[rng.random(count) < 0.12] = radius * 3  # here and there one is missing
    towards = sum(aside[k] * ways[number, k].astype(np.float32) for k in range(3))
    return np.asarray(np.maximum(across, ends[number] - towards), np.float32)


def golgi(scene: Scene) -> None:
    """Stacks of bent, perforated cisternae with vesicles at their rims."""
    for _ in range(scene.settings.anatomy.golgi):
        for _ in range(200):
            if _stack(scene):
                break


def _stack(scene: Scene) -> bool:
    settings, rng, voxel = scene.settings, scene.rng, scene.settings.voxel_nm
    centre = rng.uniform(0.15, 0.85, 3) * scene.size_nm
    layers, width = int(rng.integers(4, 7)), rng.uniform(190, 290)
    place = scene.at(centre)
    if place is None or scene.room_nm[place] < 0.62 * width + 40:
        return False
    box = box_round(centre, width + 130, settings.shape, voxel)
    up = rng.standard_normal(3)
    up /= np.linalg.norm(up)
    dz, dy, dx = offsets(box, centre, voxel)
    height = up[0] * dz + up[1] * dy + up[2] * dx
    out = np.sqrt(np.maximum(dz * dz + dy * dy + dx * dx - height * height, 0))
    shape = out.shape
    height = height + out**2 / np.float32(rng.uniform(900, 1800)) + 9 * field(shape, 70 / voxel, rng)
    height = np.asarray(height + CISTERNA_SPACING_NM * (layers - 1) / 2 - width * 0.08, np.float32)
    stack = np.full(shape, FAR_NM)
    hull = np.full(shape, FAR_NM)
    for layer in range(layers):
        rim = width * (1 - 0.35 * abs(layer / (layers - 1) - 0.4)) + 26 * field(shape, 60 / voxel, rng)
        half = 7.5 + 9 * np.exp(-(((out - rim) / 45) ** 2))
        one = np.maximum(np.abs(height - np.float32(layer * CISTERNA_SPACING_NM)) - half, out - rim)
        holes = 30 * (field(shape, 45 / voxel, rng) - 1.6)
        one = np.maximum(one, np.minimum(holes, out - 0.45 * width))
        stack = np.minimum(stack, one)
        near = np.abs(height - np.float32(layer * CISTERNA_SPACING_NM)) - CISTERNA_SPACING_NM / 2
        hull = np.minimum(hull, np.maximum(near, out - rim))
    room = scene.room_nm[box]
    stack, hull = np.maximum(stack, APART_NM - room), np.maximum(hull, APART_NM - room)
    scene.fill(box, np.asarray(stack, np.float32), settings.stain.golgi_lumen, wall=0.95)
    scene.mark("golgi", box, hull < 3)
    scene.occupy(box, np.asarray(hull, np.float32))
    for _ in range(30):
        turn = rng.standard_normal(3)
        turn -= up * (turn @ up)
        spot = centre + turn / np.linalg.norm(turn) * width * rng.uniform(0.9, 1.25)
        spot = spot + up * rng.uniform(-0.6, 0.6) * layers * CISTERNA_SPACING_NM
        _ball(scene, spot, rng.uniform(22, 34), settings.stain.golgi_lumen)
    return True


def _ball(scene: Scene, centre: Rows, radius: float, content: float | Volume, *, margin_nm: float = 8.0) -> Box | None:
    """A small round compartment, where there is room for it."""
    place = scene.at(centre)
    if place is None or scene.room_nm[place] < radius + margin_nm:
        return None
    box = box_round(centre, radius + 30, scene.settings.shape, scene.settings.voxel_nm)
    scene.fill(box, sphere(box, centre, radius, scene.settings.voxel_nm), content)
    return box


def reticulum(scene: Scene) -> None:
    """Sheets and tubes that wind between everything else, with ribosomes on them."""
    settings, rng, voxel = scene.settings, scene.rng, scene.settings.voxel_nm
    half = settings.anatomy.er_lumen_nm
    sheet = field(settings.shape, 105 / voxel, rng)
    steep = np.sqrt(sum(g**2 for g in np.gradient(sheet, voxel)))
    distance = np.abs(sheet) / np.maximum(steep, 0.0035) - np.float32(half)
    where = field(settings.shape, 240 / voxel, rng)
    level = np.float32(np.quantile(where[scene.cytosol], 1 - settings.anatomy.er_sheets)) if scene.cytosol.any() else 9
    distance = np.maximum(distance, (level - where) * np.float32(200))
    for _ in range(settings.anatomy.er_tubes):
        start = rng.uniform(0, 1, 3) * scene.size_nm
        path = winding(start, rng.standard_normal(3), rng.uniform(500, 1500), voxel, 0.45, rng)
        radius = half * rng.uniform(1.1, 1.6) + 6
        course = along(path, radius + 30, settings.shape, voxel)
        if course is not None:
            distance[course.box] = np.minimum(distance[course.box], course.distance_nm - np.float32(radius))
    distance += 4 * field(settings.shape, 40 / voxel, rng)
    distance = np.asarray(np.maximum(distance, APART_NM - scene.room_nm), np.float32)
    scene.fill(WHOLE, distance, settings.stain.er_lumen)
    scene.labels["er"] = (distance < 3).astype(np.uint16)


def bystanders(scene: Scene) -> None:
    """Lysosomes, endosomes, lipid droplets, vesicles, microtubules: not marked, and easily taken for what is."""
    settings, rng, voxel = scene.settings, scene.rng, scene.settings.voxel_nm
    anatomy, stain = settings.anatomy, settings.stain
    for count, kind in ((anatomy.lysosomes, "lysosome"), (anatomy.droplets, "droplet")):
        for _ in range(count * 30):
            radius = rng.uniform(70, 170)
            centre = rng.uniform(0, 1, 3) * scene.size_nm
            place = scene.at(centre)
            if place is None or scene.room_nm[place] < radius + 20:
                continue
            box = box_round(centre, radius + 60, settings.shape, voxel)
            body = sphere(box, centre, radius, voxel)
            body += 10 * field(body.shape, 55 / voxel, rng)
            if kind == "droplet":
                scene.fill(box, body, stain.cytosol * 1.45, wall=0.25)
            elif rng.random() < 0.55:
                scene.fill(box, body, stain.lysosome + 0.09 * field(body.shape, 22 / voxel, rng))
            else:
                scene.fill(box, body, stain.cytosol * 0.5)
                for _ in range(6):
                    inner = centre + rng.standard_normal(3) * radius * 0.4
                    scene.wall(box, sphere(box, inner, rng.uniform(18, 30), voxel), 0.8)
            count -= 1
            if count == 0:
                break
    for _ in range(anatomy.vesicles):
        _ball(scene, rng.uniform(0, 1, 3) * scene.size_nm, rng.uniform(20, 45), stain.cytosol * rng.uniform(0.5, 1.3))
    for _ in range(anatomy.microtubules):
        path = winding(rng.uniform(0, 1, 3) * scene.size_nm, rng.standard_normal(3), 1600, voxel, 0.03, rng)
        course = along(path, 24, settings.shape, voxel)
        if course is not None:
            ring = np.exp(-(((course.distance_nm - 9) / 5) ** 2)) * scene.cytosol[course.box]
            scene.stain[course.box] += np.float32(0.22) * np.asarray(ring, np.float32)
