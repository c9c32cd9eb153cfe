"""How a run is trained: every choice, the paper's open ones included, has a name and a value here.

``literal`` is the paper as written, and ``paper`` adds its augmented views. ``staged`` goes past it
in eleven parts trained by gradient. ``default`` is two convex problems; docs/method.md says how and
shows all of them measured.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from ...pipeline.config import NotNegative, Section, Share, load_section

Control = Literal[
    "none",
    "shuffled",
    "template",
    "waffle",
    "no-generator",
    "no-distillation",
    "no-query",
    "no-seen-terms",
    "random-prompt",
    "mean-prompt",
    "mlp-prompt",
    "untrained",
    "no-class-text",
    "no-shared-map",
    "no-own-weights",
    "no-whitening",
]
# these change what the bank says, not the recipe
PROMPT_CONTROLS = ("shuffled", "template", "waffle")
# names that stand for several controls
CONTROL_GROUPS: dict[str, list[str]] = {
    "language": ["shuffled", "template", "waffle", "no-distillation"],
    "parts": [
        "no-class-text",
        "no-shared-map",
        "no-own-weights",
        "no-whitening",
        "no-generator",
        "no-distillation",
        "no-query",
        "no-seen-terms",
    ],
    "aggregators": ["random-prompt", "mean-prompt", "mlp-prompt"],
}


class AggregatorRecipe(Section):
    """How reference prompts become one target vector (Eq. 1)."""

    kind: Literal["attention", "mean", "random", "mlp"] = Field(
        default="attention", description="attention (the paper), or its ablations"
    )
    query: Literal["literal", "image", "free"] = Field(
        default="literal", description="starts at the mean prompt, sees the image too, or is free"
    )
    heads: int = Field(default=8, ge=1, description="of the attention")
    ffn: int = Field(default=0, ge=0, description="hidden width of the layer; 0 is d")
    identity: bool = Field(default=True, description="start exactly at the mean prompt")
    reward: float = Field(default=1.0, ge=0, description="weight of CLIP-S(x, p^a)")
    joint: bool = Field(default=False, description="the distillation also moves the aggregator")
    prompts: int = Field(default=0, ge=0, description="prompts of a class to use; 0 is all")


class SeenRecipe(Section):
    """What classes with training images get besides the generator (never new classes)."""

    residual: bool = Field(default=True, description="w_i + δ_i, averaged with the generator")
    penalty: float = Field(default=10.0, ge=0, description="of mean ‖δ‖²")
    residual_lr: float = Field(default=1e-3, gt=0, description="learning rate of δ")
    discriminant: bool = Field(default=True, description="add α·(x·Σ⁻¹μ_i + b_i)")
    alphas: list[NotNegative] = Field(
        default=[0.0, 0.001, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0],
        min_length=1,
        description="weights of the Gaussian term to choose from",
    )
    fallback_alpha: float = Field(default=0.1, ge=0, description="where no validation is possible")


class QueryRecipe(Section):
    """The AAPE as the query: what held-out classes may choose from. The first entries need none."""

    weights: list[Share] = Field(
        default=[0.0, 0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0],
        min_length=1,
        description="share of cos(h(x), w_i) in the logits",
    )
    blends: list[Share] = Field(
        default=[1.0, 0.5, 0.0],
        min_length=1,
        description="share of p^a in what h is distilled from; the rest is the class text",
    )
    penalties: list[NotNegative] = Field(
        default=[1.0, 10.0, 100.0], min_length=1, description="of the ridge that fits h"
    )


class ClassTextRecipe(Section):
    """What stands for a class: the choice with the least cross-entropy of untrained CLIP."""

    bases: list[Literal["template", "ensemble"]] = Field(
        default=["template"], min_length=1, description="hand-written texts to choose from"
    )
    shares: list[Share] = Field(
        default=[0.0], min_length=1, description="β, shares of the descriptions to choose from"
    )
    doubt: float = Field(
        default=1.0,
        ge=0,
        description="standard errors over classes that are taken off the gain of a text over the"
        " first one before it is preferred",
    )


class ConvexRecipe(Section):
    """What the two convex problems choose from, and how much work that may be.

    A variance says how far a logit may move; its inverse is the ridge.
    """

    own: list[NotNegative] = Field(
        default=[1.0, 10.0, 100.0, 1000.0],
        min_length=1,
        description="variances of δ; 0 is none",
    )
    shared: list[NotNegative] = Field(
        default=[0.0, 30.0, 300.0],
        min_length=1,
        description="variances of the map B from texts, in the problem of seen classes",
    )
    whiten: list[bool] = Field(
        default=[False, True],
        min_length=1,
        description="scale images by the spread within classes, or not",
    )
    new_whiten: list[bool] = Field(default=[False], min_length=1, description="for new classes")
    new_own: float = Field(default=30.0, ge=0, description="variance of δ beside the map below")
    new_shared: list[NotNegative] = Field(
        default=[10.0, 100.0, 1000.0], description="variances of B for new classes; none: zero-shot"
    )
    single_own: float = Field(
        default=200.0,
        ge=0,
        description="of δ where nothing is held out, times zero-shot's ignorance",
    )
    single_shared: float = Field(default=10.0, ge=0, description="of B where nothing is held out")
    folds: int = Field(default=4, ge=1, description="of the shots")
    class_folds: int = Field(
        default=4, ge=0, description="of the classes; 0 leaves new classes at zero-shot"
    )
    images: int = Field(
        default=600,
        ge=1,
        description="to train on while choosing, but four a class; a variance needs no more",
    )
    judged: int = Field(default=400, ge=1, description="held-out images that are enough")
    doubt: float = Field(
        default=1.0,
        ge=0,
        description="standard errors of its gain over zero-shot on held-out images that are taken"
        " off before a problem is trusted",
    )
    new_doubt: float = Field(
        default=2.0, ge=0, description="the same for new classes, judged by held-out classes"
    )


class Recipe(Section):
    """One way to train. ``to_yaml`` writes all of it, and that file is a recipe again."""

    name: str = Field(default="default", description="as tables print it")
    kind: Literal["trained", "convex"] = Field(
        default="trained", description="by gradient, as the paper; or two convex problems"
    )
    class_text: ClassTextRecipe = Field(default_factory=ClassTextRecipe)
    convex: ConvexRecipe = Field(default_factory=ConvexRecipe)
    # the parts of the trained kind
    aggregator: AggregatorRecipe = Field(default_factory=AggregatorRecipe)
    generator: Literal["residual", "literal", "none"] = Field(
        default="residual", description="form of h: with a residual, as written, or none"
    )
    width: int = Field(default=32, ge=1, description="hidden units of h")
    head: Literal["residual", "literal"] = Field(
        default="residual", description="form of g: with a residual, or as written"
    )
    rank: int = Field(default=32, ge=1, description="hidden units of g")
    normalise_h: bool = Field(default=True, description="unit-length h before it enters g")
    seen: SeenRecipe = Field(default_factory=SeenRecipe)
    query: QueryRecipe = Field(default_factory=QueryRecipe)
    hold_out: int = Field(
        default=3,
        ge=0,
        description="random halvings of the seen classes that decide how far new ones leave"
        " zero-shot; 0 takes the first of trusts and of query",
    )
    trusts: list[Share] = Field(
        default=[1.0, 0.5, 0.0], min_length=1, description="share of the head, for new classes"
    )
    zero_shot_groups: bool = Field(
        default=True, description="among seen and new classes, zero-shot CLIP says which of the two"
    )
    # the loss
    distillation: float = Field(default=5.0, ge=0, description="λ of Eq. 4")
    zero_shot: float = Field(default=0.5, ge=0, description="weight of KL to zero-shot CLIP")
    temperature: float = Field(default=0.0, ge=0, description="logit scale; 0 is the encoder's")
    # the optimiser
    optimiser: Literal["adamw", "sgd"] = Field(default="adamw", description="of the trained kind")
    lr: float = Field(default=1e-3, gt=0, description="learning rate at its peak")
    weight_decay: float = Field(default=1e-2, ge=0, description="of the optimiser")
    schedule: Literal["one-cycle", "cosine"] = Field(
        default="one-cycle", description="of the learning rate"
    )
    batch_size: int = Field(default=64, ge=1, description="images of a step")
    epochs: int = Field(default=6, ge=0, description="0 is CoOp's rule: 200, 100 or 50 by shots")
    views: int = Field(default=0, ge=0, description="augmented views per image in the cache")

    @property
    def group_rule(self) -> Literal["none", "zero-shot", "shared"]:
        """What says whether a class is seen or new: nothing, zero-shot CLIP, all shared terms."""
        if self.kind == "convex":
            return "shared"
        return "zero-shot" if self.zero_shot_groups else "none"

    @property
    def distils(self) -> bool:
        """Whether anything learns from the prompts."""
        return self.distillation > 0 and self.generator != "none"

    def epochs_for(self, shots: int, classes: int) -> int:
        """Return the number of epochs: the recipe's, or CoOp's rule (50 for ImageNet)."""
        if self.epochs:
            return self.epochs
        if classes >= 500:
            return 50
        return 200 if shots >= 8 else 100 if shots >= 2 else 50


DEFAULT = Recipe(
    kind="convex",
    class_text=ClassTextRecipe(bases=["template", "ensemble"], shares=[0.0, 0.25, 0.5, 0.75, 1.0]),
)
STAGED = Recipe(name="staged")
LITERAL = Recipe(
    name="literal",
    aggregator=AggregatorRecipe(identity=False, joint=True),
    generator="literal",
    head="literal",
    normalise_h=False,
    query=QueryRecipe(weights=[0.0]),
    hold_out=0,
    zero_shot_groups=False,
    seen=SeenRecipe(residual=False, discriminant=False),
    zero_shot=0.0,
    optimiser="sgd",
    lr=2e-3,
    weight_decay=5e-4,
    schedule="cosine",
    batch_size=32,
    epochs=0,
)
# literal, trained on random crops and flips as the paper was: eight of each image stand for the new
# one that it drew every epoch
PAPER = LITERAL.model_copy(update={"name": "paper", "views": 8})
RECIPES = {recipe.name: recipe for recipe in (DEFAULT, STAGED, LITERAL, PAPER)}


def load_recipe(name: str) -> Recipe:
    """Return a shipped recipe by its name, or one from a YAML file; UserError if there is none."""
    return load_section(Recipe, "recipe", name, RECIPES)


def controlled(recipe: Recipe, control: str) -> Recipe:
    """Return the recipe with one thing taken away, as ``--control`` says.

    ``shuffled``, ``template`` and ``waffle`` change the prompts, not the recipe: see
    :meth:`aape.adapter.method.problem.FewShot.with_control`.
    """
    if recipe.kind == "convex":
        return _controlled_convex(recipe, control)
    if control == "no-generator":
        return recipe.model_copy(update={"generator": "none", "distillation": 0.0})
    if control == "no-distillation":
        return recipe.model_copy(update={"distillation": 0.0})
    if control.endswith("-prompt"):
        kind = control.removesuffix("-prompt")
        aggregator = recipe.aggregator.model_copy(update={"kind": kind})
        return recipe.model_copy(update={"aggregator": aggregator})
    if control == "no-query":
        return recipe.model_copy(update={"query": QueryRecipe(weights=[0.0])})
    if control == "no-seen-terms":
        seen = recipe.seen.model_copy(update={"residual": False, "discriminant": False})
        return recipe.model_copy(update={"seen": seen})
    return recipe


def _controlled_convex(recipe: Recipe, control: str) -> Recipe:
    changes: dict[str, Section] = {}
    if control == "no-class-text":
        changes["class_text"] = ClassTextRecipe()
    elif control == "no-shared-map":
        off = {"shared": [0.0], "new_shared": [], "single_shared": 0.0}
        changes["convex"] = recipe.convex.model_copy(update=off)
    elif control in ("no-own-weights", "untrained"):
        off = {"own": [0.0], "new_own": 0.0, "single_own": 0.0}
        if control == "untrained":
            off |= {"shared": [0.0], "new_shared": [], "single_shared": 0.0}
        changes["convex"] = recipe.convex.model_copy(update=off)
    elif control == "no-whitening":
        changes["convex"] = recipe.convex.model_copy(
            update={"whiten": [False], "new_whiten": [False]}
        )
    return recipe.model_copy(update=changes)
