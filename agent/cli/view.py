"""``cryonaut view``: volumes and what was found in them, in neuroglancer, napari, or as pictures."""

from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter

from agent.errors import BadFileError, ConfigError

Layers = list[tuple[str, Any, bool]]  # name, volume, whether it holds labels


def view(
    result: Path,
    /,
    *more: Path,
    viewer: Annotated[Literal["pictures", "neuroglancer", "napari"], Parameter(name="--with")] = "pictures",
    volume: Path | None = None,
    port: int = 0,
) -> None:
    """Open a result of `cryonaut segment organelles`, or any volumes, to look at.

    Such as:

    - `cryonaut view found`                                     # slices.png and report.html, made anew
    - `cryonaut view found --with neuroglancer`                 # in the browser; Ctrl-C ends it
    - `cryonaut view cell.zarr mito.labels.zarr --with napari`

    Parameters
    ----------
    result
        Folder that `cryonaut segment organelles` filled, or a volume.
    more
        Further volumes, shown above it.
    viewer
        `pictures` needs nothing; `neuroglancer` and `napari` need the extra of the same name.
    volume
        Grey values of a result, where they are no longer where its summary says.
    port
        Port of neuroglancer on this machine; 0: a free one.
    """
    layers = layers_of((result, *more), volume)
    if viewer == "pictures":
        _pictures(result, layers, volume)
    elif viewer == "neuroglancer":
        print(neuroglancer_viewer(layers, port))
        print("Ctrl-C ends it")
        _wait()
    else:
        _napari(layers)


def layers_of(paths: tuple[Path, ...], volume: Path | None) -> Layers:
    """What is shown, grey values first.

    Raises
    ------
    BadFileError
        When nothing can be shown.
    """
    from agent.cli.organelle_pictures import segmented
    from drivers.volumes import open_volume

    layers: Layers = []
    for path in paths:
        inside = sorted(path.glob("*.labels.zarr")) + sorted(path.glob("*.probability.zarr")) if path.is_dir() else []
        if not inside:
            found = open_volume(path)
            layers.append((path.stem, found, _is_labels(path, found)))
            continue
        source = open_volume(volume) if volume else segmented(path)
        if source is not None:
            layers.append((source.path.stem, source, False))
        for one in inside:
            layers.append((one.name.removesuffix(".zarr"), open_volume(one), one.name.endswith(".labels.zarr")))
    return sorted(layers, key=lambda layer: layer[2])


def _is_labels(path: Path, volume: Any) -> bool:
    return volume.array.dtype.kind in "iu" and (volume.array.dtype.itemsize >= 4 or ".labels" in path.name)


def _pictures(result: Path, layers: Layers, volume: Path | None) -> None:
    from agent.cli.organelle_pictures import segmented, write_result
    from drivers.volumes import open_volume

    if not any(result.glob("*.labels.zarr")):
        raise ConfigError(
            f"{result}: pictures are made of a result's folder; volumes need --with neuroglancer or napari"
        )
    source = open_volume(volume) if volume else segmented(result)
    if source is None:
        raise BadFileError(f"{result}: the volume that it was made from is not where it was: --volume PATH")
    write_result(result, source, {"volume": str(source.path)})
    print(f"{result / 'slices.png'}\n{result / 'report.html'}")


def neuroglancer_viewer(layers: Layers, port: int = 0) -> str:
    """Serve volumes on loopback and return the address for a browser.

    Raises
    ------
    ConfigError
        When neuroglancer is not installed.
    """
    try:
        import neuroglancer
    except ImportError as error:
        raise ConfigError("neuroglancer is not installed: pip install 'cryonaut[neuroglancer]'") from error
    neuroglancer.set_server_bind_address("127.0.0.1", port)
    shown = neuroglancer.Viewer()
    with shown.txn() as state:
        for name, volume, is_labels in layers:
            edges = volume.edges_nm or (1.0, 1.0, 1.0)
            space = neuroglancer.CoordinateSpace(names=["z", "y", "x"], units="nm", scales=list(edges))
            offset = [round(o / e) for o, e in zip(volume.offset_nm, edges, strict=True)]
            kind = "segmentation" if is_labels else "image"
            source = neuroglancer.LocalVolume(volume.array, space, volume_type=kind, voxel_offset=offset)
            layer = neuroglancer.SegmentationLayer if is_labels else neuroglancer.ImageLayer
            state.layers[name] = layer(source=source)
    return str(shown.get_viewer_url())


def _wait() -> None:
    import time

    while True:
        time.sleep(3600)


def _napari(layers: Layers) -> None:
    try:
        import napari
    except ImportError as error:
        raise ConfigError("napari is not installed: pip install 'cryonaut[napari]'") from error
    add_to_napari(napari.Viewer(ndisplay=2), layers)
    napari.run()


def add_to_napari(viewer: Any, layers: Layers) -> None:
    """Put volumes into a napari viewer (or its model), in nm, read as they are looked at."""
    for name, volume, is_labels in layers:
        edges = volume.edges_nm or (1.0, 1.0, 1.0)
        place = {"name": name, "scale": edges, "translate": volume.offset_nm}
        if is_labels:
            viewer.add_labels(volume.array, **place)
        else:
            kind = volume.array.dtype
            limits = (0, 255) if kind.itemsize == 1 else None
            viewer.add_image(volume.array, contrast_limits=limits, visible=".probability" not in name, **place)
