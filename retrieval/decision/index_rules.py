"""The decision rules that an index holds, and the figures that were measured with them."""

from index.errors import IndexDamaged, IndexFailure
from index.reader import IndexReader
from retrieval.decision.kept_evaluation import KeptEvaluation
from retrieval.decision.rules import Rules

__all__ = ["RULES_SINCE", "evaluation_with_rules", "stored_rules"]

RULES_SINCE = "rules_since"  # metadata of an index: the generation in which its rules were changed last


def stored_rules(index: IndexReader) -> Rules:
    """The decision rules of an index. Raises IndexFailure for a shard, IndexDamaged where they are not readable."""
    stored = index.metadata("rules")
    if index.metadata("shard") is not None and stored is None:
        raise IndexFailure(f"{index.path} is one shard of an index; join all of them: mura-search index merge SHARD...")
    try:
        return Rules.from_dict(stored)  # type: ignore[arg-type]  # TypeError if it is not a mapping
    except (TypeError, ValueError) as error:
        raise IndexDamaged(
            f"{index.path} has no decision rules that this version reads; build the index again"
        ) from error


def evaluation_with_rules(index: IndexReader, model: str) -> KeptEvaluation | None:
    """The figures that were kept of this index and of the model with this SHA-256, unless the rules changed since."""
    kept = KeptEvaluation.read(index.path, index.identity, model)
    since = index.metadata(RULES_SINCE)
    return None if kept and isinstance(since, int) and kept.generation < since else kept
