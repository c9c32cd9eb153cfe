"""What is mutated, and which tests must notice: those of the module, and its own examples."""

from __future__ import annotations

_ACCURACY = "tests/adapter/method/test_adapter_accuracy.py"
_CAPTIONS = "tests/adapter/metrics/test_metrics_captions.py"
_CONVEX = "tests/adapter/method/test_adapter_convex.py"
_CHOICES = "tests/adapter/method/test_convex_choices.py"
_MODEL = "tests/adapter/method/test_adapter_model.py"
_PROBLEM = "tests/adapter/method/test_convex_problem.py"
_RACE = "tests/adapter/method/test_convex_race.py"
_TERMS = "tests/adapter/method/test_terms.py"
_TRAIN = "tests/adapter/method/test_adapter_train.py"
_QUERY = "tests/adapter/method/test_adapter_query.py"
_RULES = "tests/adapter/classification/test_protocols_rules.py"
_SPLITS = "tests/pipeline/datasets/test_datasets_splits.py"
_BANK = "tests/pipeline/bank/test_bank_file.py"
_SCHEMA = "tests/pipeline/bank/test_bank_schema.py"
_DAMAGE = "tests/pipeline/bank/test_bank_damage.py"
_SEARCH = "tests/pipeline/bank/test_bank_search.py"
_INDEX = "tests/pipeline/bank/test_bank_index.py"
_HASH = "tests/pipeline/bank/test_content_hash.py"
_FOLDER = "tests/pipeline/bank/test_bank_folder.py"

_NO_JAVA = tuple(  # a minute; they are about another module
    f"--deselect={_CAPTIONS}::{name}"
    for name in ("test_tokens_equal_the_java_tokenizer", "test_meteor_runs_where_java_is")
)

_ADD = "tests/pipeline/datasets/test_datasets_add.py"
_SHARES = f"{_ADD}::test_without_given_shares_small_classes_have_no_validation"

# place -> module -> arguments of pytest: test files, the quickest first
PLACES: dict[str, dict[str, tuple[str, ...]]] = {
    "metrics": {
        "adapter/metrics/accuracy.py": (_ACCURACY,),
        "adapter/metrics/calibration.py": (_ACCURACY,),
        "adapter/metrics/intervals.py": (_ACCURACY,),
        "adapter/metrics/clipscore.py": (_CAPTIONS, *_NO_JAVA),
        "adapter/metrics/ngrams.py": (_CAPTIONS, *_NO_JAVA),
        "adapter/metrics/recall.py": ("tests/adapter/metrics/test_metrics_recall.py",),
        "adapter/metrics/vqa.py": ("tests/adapter/metrics/test_metrics_vqa.py",),
    },
    "protocols": {
        "pipeline/datasets/splits.py": (_SPLITS, _SHARES),
        "adapter/classification/draws.py": ("tests/adapter/classification/test_draws.py",),
        "adapter/classification/protocols.py": (
            _RULES,
            "tests/adapter/classification/test_targets.py",
        ),
        "adapter/classification/incremental.py": (
            "tests/adapter/classification/test_incremental.py",
            *(
                f"tests/adapter/test_extend_run.py::{name}"
                for name in ("test_too_few_classes_for_ten_sessions", "test_ten_sessions")
            ),
        ),
    },
    "bank": {
        "pipeline/bank/schema.py": (_SCHEMA, _BANK),
        "pipeline/bank/format.py": (_BANK, _DAMAGE),
        "pipeline/bank/verify.py": (_DAMAGE, _FOLDER),
        "pipeline/bank/content.py": (_HASH, _BANK, _DAMAGE),
        "pipeline/bank/search.py": (_INDEX, _SEARCH),
        "pipeline/bank/index.py": (_INDEX, _SEARCH, _DAMAGE),
    },
    "method": {
        "adapter/method/convex.py": (_PROBLEM, _CHOICES, _CONVEX),
        "adapter/method/convex_problem.py": (_PROBLEM, _CHOICES, _CONVEX),
        "adapter/method/convex_folds.py": (_RACE, _PROBLEM, _CHOICES, _CONVEX),
        "adapter/method/terms.py": (_TERMS, _CHOICES, _TRAIN),
        "adapter/method/model.py": (_MODEL, _TRAIN),
    },
}
