"""Forgetting a data set that the user added: its manifest, never its photos."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import UserError, unknown_name
from ..paths import is_plain_name
from .catalogue import shipped_manifests, user_manifests


@dataclass(frozen=True)
class Removed:
    """The manifest that is gone, and the photos that stayed."""

    name: str
    path: Path

    def as_dict(self) -> dict[str, Any]:
        """Return what was removed, for ``--json``."""
        return {"name": self.name, "removed": str(self.path)}

    def line(self) -> str:
        """Return what was removed, for people."""
        return f"removed {self.path}; the photos of {self.name} stay where they are"


def remove_dataset(name: str) -> Removed:
    """Delete the manifest that ``aape datasets add`` wrote under a name.

    Raises:
        UserError: no data set was added under that name, or it comes with the package.
    """
    own = {path.stem: path for path in user_manifests().glob("*.yaml")}
    if name in own and is_plain_name(name):
        own[name].unlink()
        return Removed(name, own[name])
    if is_plain_name(name) and (shipped_manifests() / f"{name}.yaml").exists():
        raise UserError(
            f"{name!r} comes with the package and cannot be removed.",
            "Only data sets that were added can: aape datasets list.",
        )
    if not own:
        raise UserError(f"There is no data set {name!r} to remove: none was added.")
    raise unknown_name("added data set", name, own)
