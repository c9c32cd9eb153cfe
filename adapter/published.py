"""Figures of the literature, printed beside ours where data set, encoder, shots and protocol agree.

Those of classification are means over seeds 1, 2, 3 with CLIP ViT-B/16 and 16 shots in the
base-to-new protocol of CoCoOp (Zhou et al. 2022). Those of retrieval are zero-shot, from the table
that open_clip keeps of its models (``docs/openclip_retrieval_results.csv``).
"""

from __future__ import annotations

from .results import MethodResult
from .shots import Shots

# (base, new, H), average over eleven data sets
AVERAGE_BASE2NEW: dict[str, tuple[tuple[float, float, float], str]] = {
    "CLIP zero-shot": ((69.34, 74.22, 71.70), "Zhou et al. 2022, CoCoOp, Table 1"),
    "CoOp": ((82.69, 63.22, 71.66), "Zhou et al. 2022, CoCoOp, Table 1"),
    "CoCoOp": ((80.47, 71.69, 75.83), "Zhou et al. 2022, CoCoOp, Table 1"),
    "MaPLe": ((82.28, 75.14, 78.55), "Khattak et al. 2023a"),
    "PromptSRC": ((84.26, 76.10, 79.97), "Khattak et al. 2023b"),
    "OGEN": ((84.17, 76.86, 80.34), "Zang et al. 2024"),
    "AAPE": ((84.72, 77.54, 80.97), "Huang et al. 2024"),
    "MMRL": ((85.68, 77.16, 81.20), "Guo & Gu 2025"),
    "LLaMP": ((85.16, 77.71, 81.27), "Zheng et al. 2024"),
}

# zero-shot CLIP a data set, CoCoOp's Table 1: a check of class names, splits and templates
ZERO_SHOT_BASE2NEW: dict[str, tuple[float, float, float]] = {
    "imagenet": (72.43, 68.14, 70.22),
    "caltech101": (96.84, 94.00, 95.40),
    "oxford_pets": (91.17, 97.26, 94.12),
    "pets": (91.17, 97.26, 94.12),
    "cars": (63.37, 74.89, 68.65),
    "stanford_cars": (63.37, 74.89, 68.65),
    "flowers": (72.08, 77.80, 74.83),
    "oxford_flowers": (72.08, 77.80, 74.83),
    "food101": (90.10, 91.22, 90.66),
    "aircraft": (27.19, 36.29, 31.09),
    "fgvc_aircraft": (27.19, 36.29, 31.09),
    "sun397": (69.36, 75.35, 72.23),
    "dtd": (53.24, 59.90, 56.37),
    "eurosat": (56.48, 64.05, 60.03),
    "ucf101": (70.53, 77.50, 73.85),
}

# (data set, OpenAI's model): i2t R@1, R@5, R@10, then t2i, on Karpathy's test images
_FLICKR, _COCO = ("flickr30k", 1000), ("coco", 5000)
ZERO_SHOT_RETRIEVAL: dict[tuple[tuple[str, int], str], tuple[float, ...]] = {
    (_FLICKR, "vitb32"): (78.90, 94.90, 98.20, 58.78, 83.56, 90.02),
    (_FLICKR, "vitb16"): (82.20, 96.60, 99.00, 62.16, 85.72, 91.92),
    (_FLICKR, "vitl14"): (85.20, 97.40, 99.20, 64.96, 87.24, 92.04),
    (_FLICKR, "vitl14336"): (87.70, 98.50, 99.40, 66.90, 89.00, 93.34),
    (_COCO, "vitb32"): (50.12, 75.00, 83.52, 30.44, 55.94, 66.87),
    (_COCO, "vitb16"): (52.42, 76.70, 84.62, 33.09, 58.42, 68.99),
    (_COCO, "vitl14"): (56.34, 79.38, 86.60, 36.51, 61.06, 71.13),
    (_COCO, "vitl14336"): (57.94, 81.20, 87.92, 37.09, 61.62, 71.47),
}


def published_rows(dataset: str, encoder: str, protocol: str, shots: Shots) -> list[MethodResult]:
    """Return rows that may stand beside ours: same data set, encoder, shots and protocol."""
    if protocol != "base2new" or shots != 16 or "vitb16" not in _plain(encoder):
        return []
    if dataset not in ZERO_SHOT_BASE2NEW:
        return []
    base, new, h = ZERO_SHOT_BASE2NEW[dataset]
    row: dict[str, float] = {"base": base, "new": new, "H": h}
    source = "Zhou et al. 2022, CoCoOp, Table 1"
    return [MethodResult("CLIP zero-shot (published)", [row], group="published", note=source)]


def published_average(encoder: str) -> list[MethodResult]:
    """Return the published averages over the eleven data sets, for an average of ours over them."""
    if "vitb16" not in _plain(encoder):
        return []
    rows = []
    for name, ((base, new, h), source) in AVERAGE_BASE2NEW.items():
        values: dict[str, float] = {"base": base, "new": new, "H": h}
        rows.append(MethodResult(f"{name} (published)", [values], group="published", note=source))
    return rows


def published_retrieval(dataset: str, encoder: str, images: int) -> list[MethodResult]:
    """Return zero-shot retrieval of the same encoder on the same test images."""
    model = _plain(encoder).replace("quickgelu", "")
    for (where, name), values in ZERO_SHOT_RETRIEVAL.items():
        if where == (dataset, images) and model == f"{name}openai":
            columns = [f"{way} R@{k}" for way in ("i2t", "t2i") for k in (1, 5, 10)]
            row = dict(zip(columns, values)) | {"mean R": sum(values) / len(values)}
            note = "open_clip, docs/openclip_retrieval_results.csv"
            return [MethodResult("x (published)", [row], group="published", note=note)]
    return []


def _plain(encoder: str) -> str:
    return "".join(character for character in encoder.lower() if character.isalnum())
