"""A metric from outside the package: how far the mean of the samples' features is from the reference's."""

import bootdiff


def mean_distance(samples, reference):
    """Return ‖mean(samples) − mean(reference)‖ as a figure, for features (n, d) and (m, d)."""
    value = float((samples.double().mean(0) - reference.double().mean(0)).norm())
    return bootdiff.Estimate(value, len(samples), "distance of the features' means")


MEAN_DISTANCE = bootdiff.register_metric(bootdiff.Metric("mean_distance", "mean distance", mean_distance))
