"""The public names, for editors and type checkers; ``__init__.py`` imports them when used."""

from .adapter.baselines.own import add_baseline as add_baseline
from .adapter.captions.verbs import (
    eval_captioning as eval_captioning,
    eval_retrieval as eval_retrieval,
    eval_vqa as eval_vqa,
    train_captions as train_captions,
)
from .adapter.classification.verbs import (
    eval_classification as eval_classification,
    sweep as sweep,
    train as train,
)
from .adapter.classifier import Classifier as Classifier
from .adapter.method.model import (
    Aggregator as Aggregator,
    Generator as Generator,
)
from .adapter.captions.describe import (
    ask as ask,
    caption as caption,
)
from .adapter.captions.search import search as search
from .adapter.compare import compare as compare
from .adapter.doctor import doctor as doctor
from .adapter.explain import explain as explain
from .adapter.extend import extend as extend
from .adapter.export import export as export
from .adapter.method.recipe import (
    Recipe as Recipe,
    load_recipe as load_recipe,
)
from .adapter.open_model import (
    OpenModel as OpenModel,
    open_model as open_model,
)
from .adapter.options import options as options
from .adapter.predict import (
    Prediction as Prediction,
    predict as predict,
)
from .adapter.report import report as report
from .adapter.results import Results as Results
from .adapter.run import RunFolder as RunFolder
from .adapter.serve import serve as serve
from .adapter.share import (
    pull as pull,
    push as push,
)
from .adapter.suite.verbs import (
    demo as demo,
    eval_all as eval_all,
    suites as suites,
)
from .adapter.term_sum import Adapter as Adapter
from .pipeline.bank import PromptBank as PromptBank
from .pipeline.bank.verbs import (
    bank_card as bank_card,
    bank_diff as bank_diff,
    bank_export as bank_export,
    bank_info as bank_info,
    bank_merge as bank_merge,
    bank_reindex as bank_reindex,
    bank_search as bank_search,
    bank_show as bank_show,
    bank_sql as bank_sql,
    bank_stats as bank_stats,
    bank_verify as bank_verify,
)
from .pipeline.datasets import (
    load_manifest as load_manifest,
    open_dataset as open_dataset,
)
from .pipeline.datasets.manifest import Manifest as Manifest
from .pipeline.datasets.verbs import (
    datasets_add as datasets_add,
    datasets_check as datasets_check,
    datasets_fetch as datasets_fetch,
    datasets_list as datasets_list,
    datasets_remove as datasets_remove,
    datasets_show as datasets_show,
)
from .pipeline.embed.verbs import encode as encode
from .pipeline.encoders import load_encoder as load_encoder
from .pipeline.encoders.verbs import encoders as encoders
from .pipeline.errors import UserError as UserError
from .pipeline.prompts.verbs import (
    generate_prompts as generate_prompts,
    import_prompts as import_prompts,
)

__all__: list[str]
__version__: str
