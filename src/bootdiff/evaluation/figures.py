"""What the figures of an evaluation are called, in the order of their columns."""

#: heading and format of those that mean something in a feature space only
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
#: and of all
FIGURES = {**IN_A_SPACE, "path_error": ("path error", ".4f")}
