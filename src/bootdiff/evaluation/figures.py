"""The names and formats of an evaluation's figures, in the order of their columns."""

from bootdiff.metrics.registry import further_metrics

#: the heading and format of each figure that means something only in a feature space
IN_A_SPACE = {
    "frechet_distance": ("Fréchet distance", ".3f"),
    "kid": ("KID", ".4g"),
    "precision": ("precision", ".3f"),
    "recall": ("recall", ".3f"),
    "inception_score": ("inception score", ".2f"),
    "diversity": ("diversity", ".3f"),
    "faithfulness": ("faithful", ".1%"),
    "clip_score": ("CLIP score", ".2f"),
}
#: the heading and format of every figure of bootdiff's own
FIGURES = {**IN_A_SPACE, "path_error": ("path error", ".4f")}


def headings() -> dict[str, tuple[str, str]]:
    """Return the heading and format of every figure, with those that others have added, in the order of columns."""
    further = {name: (metric.title, metric.format) for name, metric in further_metrics().items()}
    return {**IN_A_SPACE, **further, **FIGURES}
