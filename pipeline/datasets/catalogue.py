"""Finding manifests: those of the package, those the user added, and any YAML file by its path."""

from __future__ import annotations

from functools import lru_cache
from importlib import resources
from pathlib import Path

from ..config import read_yaml
from ..errors import UserError, unknown_name
from ..files import cache_folder
from .manifest import ClassEntry, Manifest


def shipped_manifests() -> Path:
    """Return the folder of the manifests that come with the package."""
    package = (__package__ or "aape").partition(".")[0]
    return Path(str(resources.files(f"{package}.data_manifests")))


def user_manifests() -> Path:
    """Return the folder of the manifests that ``aape datasets add`` writes."""
    return cache_folder("datasets")


def known_datasets() -> list[str]:
    """Return the names of all data sets with a manifest, sorted; the user's own included."""
    return sorted(_manifest_files())


def _manifest_files() -> dict[str, Path]:
    files: dict[str, Path] = {}
    for folder in (shipped_manifests(), user_manifests()):
        files.update({path.stem: path for path in folder.glob("*.yaml")})
    return files


def load_manifest(name: str | Path) -> Manifest:
    """Read a manifest by name, by an alias (``stanford_cars``), or from a YAML file by its path.

    A user's own manifest wins over a shipped one of the same name.

    Raises:
        UserError: no such data set (the known ones are listed, the nearest named), or the file
            is not a valid manifest.
    """
    files = _manifest_files()
    text = str(name)
    if text in files:
        return _read(files[text])
    if text.endswith((".yaml", ".yml")):
        return _read(Path(text))
    wanted = _plain(text)
    for known, path in files.items():
        if _plain(known) == wanted:
            return _read(path)
    for path in files.values():
        if wanted in _aliases(path, path.stat().st_mtime_ns):
            return _read(path)
    raise unknown_name("data set", text, files)


@lru_cache(maxsize=64)
def _aliases(path: Path, modified: int) -> frozenset[str]:
    """Return the aliases in a manifest, which need not be valid otherwise."""
    values = read_yaml(path)
    aliases = values.get("aliases", []) if isinstance(values, dict) else []
    return frozenset(_plain(str(alias)) for alias in aliases)


def _plain(name: str) -> str:
    return name.casefold().replace("_", "").replace("-", "").replace(" ", "")


def _read(path: Path) -> Manifest:
    modified = path.stat().st_mtime_ns if path.exists() else 0
    return _read_once(path, modified)


@lru_cache(maxsize=64)
def _read_once(path: Path, modified: int) -> Manifest:
    """Read a manifest; the 1,000 classes of ImageNet serve five of them."""
    manifest = Manifest.from_yaml(path)
    if not manifest.classes_from:
        return manifest
    if manifest.classes:
        raise UserError(f"{path} has both classes and classes_from.", "Keep one of the two.")
    source = load_manifest(manifest.classes_from)
    return manifest.model_copy(update={"classes": _subset(source, manifest.class_folders, path)})


def _subset(source: Manifest, folders: list[str], path: Path) -> list[ClassEntry]:
    if not folders:
        return source.classes
    by_folder = {entry.folder or entry.name: entry for entry in source.classes}
    absent = [folder for folder in folders if folder not in by_folder]
    if absent:
        raise UserError(f"{path} names classes that {source.name!r} lacks: {', '.join(absent)}.")
    return [by_folder[folder] for folder in folders]
