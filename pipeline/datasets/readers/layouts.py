"""How the folder of a data set looks on disk: one section a layout, chosen by ``kind`` in YAML.

A layout only says where things are. ``read_*.py`` hold the readers. Paths are relative to the root.
Image patterns take ``{path}`` (as listed), ``{folder}`` and ``{name}`` (its two parts), ``{stem}``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from ...config import Section
from ...paths import ImagePattern, RelativePath
from ..hints import SplitOrNone
from ..records import Split


def _as_list(value: Any) -> Any:
    return ([value] if value else []) if isinstance(value, str) else value


# one name, or several; manifests of earlier versions have one
Names = Annotated[list[str], BeforeValidator(_as_list)]
SplitAs = dict[str, SplitOrNone]


class _Layout(Section):
    title: str

    def marks(self, root: Path) -> list[str]:
        """Return the paths whose presence shows that a root has this layout, found or not."""
        raise NotImplementedError


class CoopSplit(_Layout):
    """Images listed in a ``split_zhou_*.json`` of CoOp: ``{split: [[path, label, name], …]}``."""

    kind: Literal["coop_split"]
    title: str = "CoOp"
    split_file: RelativePath
    images: list[ImagePattern] = Field(
        default=["{path}"], description="patterns; the first that leads to an image is taken"
    )

    def marks(self, root: Path) -> list[str]:
        return [self.split_file]


class Listing(_Layout):
    """Text files with one image a line, as the original releases have them."""

    kind: Literal["listing"]
    title: str = "original lists"
    lists: dict[Split, list[RelativePath]]
    images: list[ImagePattern]
    label: Literal["folder", "rest", "number", "prefix"] = Field(
        default="folder",
        description="folder of the path; the words after the key; the number after it, from 1; "
        "the file name up to its number",
    )

    def marks(self, root: Path) -> list[str]:
        return [file for files in self.lists.values() for file in files]


class Cub(_Layout):
    """The text files of CUB-200-2011: path, label from 1, and training or not, by image number."""

    kind: Literal["cub"]
    title: str = "CUB-200-2011"
    folder: RelativePath = "."

    def marks(self, root: Path) -> list[str]:
        names = ("images.txt", "image_class_labels.txt", "train_test_split.txt")
        return [str(Path(self.folder) / name) for name in names]


class MatlabLabels(_Layout):
    """Labels in MATLAB files: Flowers102 and Stanford Cars as released, and as in torchvision."""

    kind: Literal["matlab"]
    title: str = "original MATLAB labels"
    style: Literal["flowers", "cars"]
    folder: RelativePath = "."

    def marks(self, root: Path) -> list[str]:
        names = {
            "flowers": ["imagelabels.mat", "setid.mat", "jpg"],
            "cars": ["devkit/cars_train_annos.mat", "cars_test_annos_withlabels.mat"],
        }[self.style]
        return [str(Path(self.folder) / name) for name in names]


class ImageFolders(_Layout):
    """One folder a class, below one folder a split, or without splits."""

    kind: Literal["image_folders"]
    title: str = "one folder a class"
    splits: dict[Split, RelativePath] = Field(
        default={}, description="folder of each split; empty: no split folders"
    )
    class_folder: Literal["name", "id"] = "name"
    flat: RelativePath = Field(
        default="", description="folder of the classes where there are no splits"
    )
    flat_split: Split | None = Field(
        default=None, description="the one split that a flat folder is; none: split it here"
    )
    ignore: list[str] = Field(default=[], description="folders that are no classes")
    own_val: bool = Field(
        default=False, description="take one training image in five as validation"
    )

    def marks(self, root: Path) -> list[str]:
        if self.flat:
            return [self.flat]
        present = [folder for folder in self.splits.values() if (root / folder).is_dir()]
        return present[:1] or list(self.splits.values()) or ["."]


class Table(_Layout):
    """CSV, TSV, JSON lines, JSON or Parquet files with a path and a label (or captions) a row."""

    kind: Literal["table"]
    title: str = "table of paths and labels"
    files: list[RelativePath] = Field(min_length=1)
    form: Literal["rows", "label_studio", "fiftyone_labels", "fiftyone_samples"] = Field(
        default="rows", description="rows with a header, or the export of a labelling tool"
    )
    path: str = "path"
    label: str = Field(
        default="label", description="column of the labels; of an export, the field it has them in"
    )
    one_hot: list[str] = Field(default=[], description="one column a class, 1 where it applies")
    caption: Names = Field(default=[], description="columns of captions")
    split: str = Field(default="", description="column with train, val or test; none: split here")
    split_as: SplitAs = Field(default={}, description="what other names of splits mean")
    split_of: dict[RelativePath, Split] = Field(default={}, description="split of a whole file")
    split_lists: dict[Split, RelativePath] = Field(
        default={}, description="files that list the photos of each split by name"
    )
    beside: bool = Field(
        default=False, description="paths are relative to their own file, not to the root"
    )
    images: RelativePath = Field(default=".", description="folder that the paths are relative to")
    images_of: dict[RelativePath, RelativePath] = Field(
        default={}, description="that folder for each file, where files have their own"
    )
    strip: int = Field(default=0, ge=0, description="leading parts of a path to leave out")
    suffixes: list[str] = Field(default=[], description="tried where a path has no suffix")
    unprefixed: bool = Field(default=False, description="cut Label Studio's prefix off a name")
    skip_missing: bool = Field(default=False, description="leave out photos that are not there")

    def marks(self, root: Path) -> list[str]:
        return list(self.files)


class HuggingFace(_Layout):
    """A data set folder of the Hugging Face hub, or one written by ``save_to_disk``.

    Images are bytes, or structs of bytes and path, in Parquet or Arrow files; the bytes are
    written to the cache once.
    """

    kind: Literal["hugging_face"]
    title: str = "Hugging Face"
    files: dict[Split, list[RelativePath]] = Field(
        description="Parquet or Arrow files of each split"
    )
    image: str = "image"
    label: str = "label"
    label_ids: bool = Field(default=False, description="labels are class ids, not names")
    caption: Names = Field(default=[], description="columns of captions")
    split: str = Field(default="", description="column with the split; it decides, not the file")
    split_as: SplitAs = Field(default={}, description="what other names of splits mean")

    def marks(self, root: Path) -> list[str]:
        return [file for files in self.files.values() for file in files]


class WebDataset(_Layout):
    """Tar files of WebDataset: ``key.jpg`` with ``key.cls``, ``key.txt`` or ``key.json`` beside.

    The images are written to the cache once.
    """

    kind: Literal["web_dataset"]
    title: str = "WebDataset"
    files: dict[Split, list[RelativePath]] = Field(description="tar files of each split")
    label: str = Field(default="", description="member with the label, such as cls, or json:label")
    label_ids: bool = Field(default=False, description="labels are class ids, not names")
    caption: str = Field(default="", description="member with the caption: txt, or json:caption")

    def marks(self, root: Path) -> list[str]:
        return [file for files in self.files.values() for file in files]


class EasyVqa(_Layout):
    """The folder ``data`` of the package ``easy_vqa``."""

    kind: Literal["easy_vqa"]
    title: str = "easy-VQA"

    def marks(self, root: Path) -> list[str]:
        return ["train/questions.json", "test/questions.json"]


class CaptionedFolders(_Layout):
    """Images with a text file of the same name beside them: every line is a caption.

    A class is a folder: its images are those below it that no deeper class folder claims.
    """

    kind: Literal["captioned_folders"]
    title: str = "images with text files"
    folder: RelativePath = "."
    marks_at: RelativePath = Field(
        default=".", description="a folder that is there if this is the one"
    )

    def marks(self, root: Path) -> list[str]:
        return [str(Path(self.folder) / self.marks_at)]


class CocoCaptions(_Layout):
    """COCO's caption annotations: images and annotations joined by image id."""

    kind: Literal["coco_captions"]
    title: str = "COCO captions"
    annotations: dict[Split, RelativePath]
    images: list[ImagePattern] = Field(description="patterns with {name} and {split}")

    def marks(self, root: Path) -> list[str]:
        present = [file for file in self.annotations.values() if (root / file).is_file()]
        return present[:1] or list(self.annotations.values())


class Karpathy(_Layout):
    """Karpathy and Fei-Fei's ``dataset_*.json``; its ``restval`` images are training images."""

    kind: Literal["karpathy"]
    title: str = "Karpathy split"
    file: RelativePath
    images: list[ImagePattern] = Field(
        description="patterns with {name}, {folder} (filepath), {path}"
    )

    def marks(self, root: Path) -> list[str]:
        return [self.file]


class NoCaps(_Layout):
    """NoCaps' caption files: COCO's format, with a domain and an Open Images id an image."""

    kind: Literal["nocaps"]
    title: str = "NoCaps"
    annotations: dict[Split, RelativePath]
    images: list[ImagePattern] = Field(
        description="patterns with {name} and {stem} (the Open Images id)"
    )

    def marks(self, root: Path) -> list[str]:
        return list(self.annotations.values())


class VqaFiles(Section):
    """The files of one split of VQAv2."""

    questions: RelativePath
    annotations: RelativePath = Field(default="", description="empty: the answers are not public")
    images: list[ImagePattern] = Field(
        description="patterns with {stem}: the image id in 12 digits"
    )


class Vqa(_Layout):
    """VQAv2's official question and annotation files."""

    kind: Literal["vqa"]
    title: str = "VQAv2"
    splits: dict[Split, VqaFiles]

    def marks(self, root: Path) -> list[str]:
        files = [entry.questions for entry in self.splits.values()]
        present = [file for file in files if (root / file).is_file()]
        return present[:1] or files


class QuestionTable(_Layout):
    """CSV files with image_id, question and answer a row; several answers are joined by commas."""

    kind: Literal["question_table"]
    title: str = "question table"
    files: dict[Split, RelativePath]
    images: list[ImagePattern] = Field(description="patterns with {stem}: the image id")

    def marks(self, root: Path) -> list[str]:
        return list(self.files.values())


class SugarCrepe(_Layout):
    """SugarCrepe's files: ``{number: {filename, caption, negative_caption}}``, one a category."""

    kind: Literal["sugarcrepe"]
    title: str = "SugarCrepe"
    files: dict[str, RelativePath] = Field(description="category: file")
    images: list[ImagePattern] = Field(description="patterns with {name}")

    def marks(self, root: Path) -> list[str]:
        return list(self.files.values())[:1]


Layout = Annotated[
    CoopSplit
    | Listing
    | Cub
    | MatlabLabels
    | ImageFolders
    | Table
    | HuggingFace
    | WebDataset
    | EasyVqa
    | CaptionedFolders
    | CocoCaptions
    | Karpathy
    | NoCaps
    | Vqa
    | QuestionTable
    | SugarCrepe,
    Field(discriminator="kind"),
]
