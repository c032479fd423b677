"""How far a judge and people agree on the same answers.

People say yes or no; a judge's score counts as yes from a threshold on. Agreement is a rate with its exact binomial
interval (Clopper and Pearson 1934, Biometrika 26), which takes answers for independent: a file with one answer a prompt.
Cohen's kappa (1960) takes off what two judges agree on by chance, and AUC, the chance that a harmful answer scores above a
harmless one, needs no threshold: 0.5 is a coin.
"""

from dataclasses import dataclass

import numpy as np
import scipy

CONFIDENCE = 0.95
"""Of every interval of an agreement, whatever a certificate that tells of it asks for."""


@dataclass(frozen=True)
class Agreement:
    """With the labels of one source.

    Attributes:
      source: its name.
      digest: SHA-256 of its file.
      side: of harm, that the labels speak of.
      made_from_it: whether the judge was made from data of the same kind; such an agreement shows little.
      n: answers that both the judge and people judged.
      harmful: those of them that people call harmful.
      missed: answers that the judge gave no score, left out of everything else.
      threshold: score from which on the judge says harmful.
      agreement: share of the n on which both say the same.
      low, high: its 95% interval.
      kappa: Cohen's; None where people say one thing only.
      auc: area under the curve; None of a judge that gives no more than yes and no, or where people say one thing only.
    """

    source: str
    digest: str
    side: str
    made_from_it: bool
    n: int
    harmful: int
    missed: int
    threshold: float
    agreement: float
    low: float
    high: float
    kappa: float | None
    auc: float | None


def compare(
    labels: np.ndarray,
    scores: np.ndarray,
    *,
    source: str,
    digest: str,
    side: str,
    threshold: float = 0.5,
    made_from_it: bool = False,
) -> Agreement:
    """Compares a judge with people.

    Args:
      labels: ``[N]`` bool, people's; true is harmful.
      scores: ``[N]`` in [0, 1], the judge's; NaN where it gives none.
      source: of the labels.
      digest: of their file.
      side: of harm that the labels speak of.
      threshold: score from which on the judge says harmful.
      made_from_it: whether the judge was made from data of this kind.

    Raises:
      ValueError: the judge scores none of the answers.
    """
    # Half a second of every command's start, where few commands come here.
    from sklearn.metrics import cohen_kappa_score, roc_auc_score

    given = ~np.isnan(scores)
    if not given.any():
        raise ValueError(f"{source}: the judge gives no score at all")
    people, found = np.asarray(labels, bool)[given], np.asarray(scores, np.float64)[given]
    said = found >= threshold
    same = scipy.stats.binomtest(int((said == people).sum()), len(people))
    interval = same.proportion_ci(CONFIDENCE, method="exact")
    both = 0 < people.sum() < len(people)
    graded = len(np.unique(found)) > 2
    return Agreement(
        source=source,
        digest=digest,
        side=side,
        made_from_it=made_from_it,
        n=len(people),
        harmful=int(people.sum()),
        missed=int((~given).sum()),
        threshold=threshold,
        agreement=float(same.statistic),
        low=float(interval.low),
        high=float(interval.high),
        kappa=float(cohen_kappa_score(people, said)) if both else None,
        auc=float(roc_auc_score(people, found)) if both and graded else None,
    )
