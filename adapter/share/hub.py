"""The few things asked of a model hub, through huggingface_hub; its errors in one sentence."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from ...pipeline.errors import UserError
from ...pipeline.hub_errors import is_of_hub
from .contents import BANK, FILE, RUN

_TYPES = {RUN: "model", BANK: "dataset"}
_REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}", re.ASCII)


class Hub:
    """One repository of the hub that ``HF_ENDPOINT`` names.

    Raises:
        UserError: the name is not ``OWNER/NAME``.
    """

    def __init__(self, repository: str) -> None:
        from huggingface_hub import HfApi

        if not _REPOSITORY.fullmatch(repository):
            raise UserError(f"{repository!r} is no repository.", "Write OWNER/NAME.")
        self.repository = repository
        self.endpoint = os.environ.get("HF_ENDPOINT", "").rstrip("/") or None
        self.api = HfApi(endpoint=self.endpoint, library_name="aape")

    def upload(self, kind: str, folder: Path, private: bool, message: str) -> tuple[str, str]:
        """Upload a folder as one commit; return the commit and its address.

        Raises:
            UserError: the hub refuses or is out of reach.
        """
        from huggingface_hub import CommitOperationAdd

        with self._plainly():
            if not self.api.repo_exists(self.repository, repo_type=_TYPES[kind]):
                self.api.create_repo(self.repository, repo_type=_TYPES[kind], private=private)
            files = [CommitOperationAdd(path.name, path) for path in sorted(folder.iterdir())]
            done = self.api.create_commit(
                self.repository, files, repo_type=_TYPES[kind], commit_message=message
            )
        return done.oid, str(done.commit_url)

    def find(self, kinds: Sequence[str], revision: str) -> tuple[str, str]:
        """Return the kind of thing that is there, and the commit it is at.

        Raises:
            UserError: there is none, or the hub is out of reach.
        """
        from huggingface_hub.utils import EntryNotFoundError, HfHubHTTPError

        status = 0
        with self._plainly():
            for kind in kinds:
                try:
                    info = self.api.repo_info(
                        self.repository, repo_type=_TYPES[kind], revision=revision or None
                    )
                except (EntryNotFoundError, HfHubHTTPError) as error:
                    status = _status(error)
                    if status not in (401, 404):
                        raise
                    continue
                if any(file.rfilename == FILE for file in getattr(info, "siblings", None) or []):
                    return kind, str(info.sha)
        hint = " or it is private (hf auth login)" if status == 401 else ""
        raise UserError(
            f"{self.repository} has no {' and no '.join(kinds)} of aape{hint}.",
            f"Push one with: aape push RUN {self.repository}.",
        )

    def download(self, kind: str, name: str, commit: str, folder: Path, most: int) -> Path:
        """Download one file of a commit; one that is larger than ``most`` bytes is refused.

        Raises:
            UserError: it is absent or larger, or the hub is out of reach.
        """
        from huggingface_hub import get_hf_file_metadata, hf_hub_download, hf_hub_url

        repo_type = _TYPES[kind]
        with self._plainly():
            url = hf_hub_url(
                self.repository, name, repo_type=repo_type, revision=commit, endpoint=self.endpoint
            )
            size = get_hf_file_metadata(url, endpoint=self.endpoint).size
            if size is None or size > most:
                raise UserError(f"{name} of {self.repository} is larger than it says.")
            return Path(
                hf_hub_download(
                    self.repository,
                    name,
                    repo_type=repo_type,
                    revision=commit,
                    local_dir=folder,
                    endpoint=self.endpoint,
                )
            )

    @contextmanager
    def _plainly(self) -> Iterator[None]:
        """Turn what huggingface_hub raises into one sentence."""
        from huggingface_hub.utils import disable_progress_bars

        disable_progress_bars()
        try:
            yield
        except UserError:
            raise
        except Exception as error:  # its classes differ by version
            status = _status(error)
            if status in (401, 403):
                raise UserError(
                    f"The hub does not let you do this with {self.repository} ({status}).",
                    "Log in with: hf auth login, or set HF_TOKEN.",
                ) from error
            if not is_of_hub(error):
                raise
            reason = " ".join(str(error).split())[:200]
            remedy = "Is HF_ENDPOINT right, and the hub within reach?"
            if "/xet-" in reason:  # a mirror that takes large files by plain HTTP alone
                remedy = "If this hub has no Xet storage: HF_HUB_DISABLE_XET=1 in the environment."
            raise UserError(
                f"The hub cannot give or take {self.repository}: {reason}", remedy
            ) from error


def _status(error: Exception) -> int:
    """Return the status of the hub's answer, or 0 where there was none."""
    return getattr(getattr(error, "response", None), "status_code", 0)
