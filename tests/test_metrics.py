"""Metrics: closed forms, streaming, and the shipped feature space."""

import json

import numpy as np
import pytest
import torch

from bootdiff.builtin import builtin_folder
from bootdiff.core.errors import BootdiffError
from bootdiff.data.images import digit_labels, load_digits
from bootdiff.data.pictures import to_unit
from bootdiff.evaluation.evaluate import evaluate
from bootdiff.evaluation.references import find_reference
from bootdiff.metrics.features import DigitsFeatures, load_features
from bootdiff.metrics.frechet import Accumulator, Statistics, frechet_distance
from bootdiff.solvers import Heun, even_times, solve
from bootdiff.teachers import Gaussian

GENERATOR = torch.Generator().manual_seed(0)


def normal(mean: torch.Tensor, covariance: torch.Tensor) -> Statistics:
    return Statistics(mean.double(), covariance.double(), 100)


def test_the_distance_of_commuting_gaussians_is_closed_form():
    """|m|² + Σ (a − b)² for diagonal deviations a and b."""
    mean, a, b = torch.randn(3, 8, generator=GENERATOR).double()
    ours = frechet_distance(normal(torch.zeros(8), torch.diag(a**2)), normal(mean, torch.diag(b**2)))
    assert ours == pytest.approx(float(mean.square().sum() + (a.abs() - b.abs()).square().sum()), rel=1e-9)


def test_the_distance_agrees_with_a_matrix_square_root():
    roots = torch.randn(2, 6, 9, generator=GENERATOR).double()
    a, b = roots @ roots.mT
    values = np.linalg.eigvals((a @ b).numpy())
    expected = float(a.trace() + b.trace()) - 2 * np.sqrt(values.astype(complex)).real.sum()
    zero = torch.zeros(6)
    assert frechet_distance(normal(zero, a), normal(zero, b)) == pytest.approx(expected, rel=1e-8)
    assert frechet_distance(normal(zero, a), normal(zero, a)) == pytest.approx(0, abs=1e-6)


def test_streaming_equals_all_at_once():
    features = torch.randn(100, 5, generator=GENERATOR) * 3 + 2
    accumulator = Accumulator()
    for part in features.split(17):
        accumulator.add(part)
    streamed = accumulator.statistics()
    torch.testing.assert_close(streamed.mean, features.double().mean(0))
    torch.testing.assert_close(streamed.covariance, features.double().T.cov())


def test_statistics_round_trip_through_npz(tmp_path):
    statistics = normal(torch.ones(3), torch.eye(3))
    statistics.save(tmp_path / "a.npz", "space-1")
    again, space = Statistics.load(tmp_path / "a.npz")
    assert torch.equal(again.covariance, statistics.covariance) and space == "space-1" and again.count == 100


def test_the_digits_space_is_the_frozen_one_and_knows_digits():
    pytest.importorskip("sklearn")
    features = DigitsFeatures()
    assert features.name == "digits-526542f4"
    images, labels = to_unit(load_digits()), digit_labels()
    held_out = torch.arange(1797) % 5 == 4
    right = features.network(images).argmax(1) == labels
    assert float(right[held_out].float().mean()) > 0.99
    accumulator = Accumulator()
    accumulator.add(features(images))
    shipped = find_reference("digits", features).statistics
    assert frechet_distance(accumulator.statistics(), shipped) == pytest.approx(0, abs=1e-3)


def test_references_of_other_features_are_refused(tmp_path):
    normal(torch.ones(64), torch.eye(64)).save(tmp_path / "a.npz", "other-1")
    with pytest.raises(BootdiffError, match="other-1"):
        find_reference(str(tmp_path / "a.npz"), DigitsFeatures())
    with pytest.raises(BootdiffError, match="64 features and the reference 3"):
        frechet_distance(normal(torch.ones(64), torch.eye(64)), normal(torch.ones(3), torch.eye(3)))


def test_evaluation_measures_path_error(few_rows, monkeypatch):
    """A "student" that solves the path exactly has path error 0; the teacher's rows improve with steps."""
    from bootdiff.evaluation import curve

    assert few_rows == (1, 4, 10, 50), "the paper's rows"
    monkeypatch.setattr(curve, "PAPER", few_rows)
    teacher = Gaussian(shape=(1, 8, 8))
    times = even_times(50, 0.02, 0.95)
    exact = lambda eps, condition: solve(teacher, eps, times, Heun())[-1]  # noqa: E731
    result = evaluate({"student": exact}, teacher, (0.02, 0.95), num=64)
    errors = {row["name"]: row["path_error"] for row in result["rows"]}
    assert errors["student"] == 0 and errors["Heun's exact path 50 from t = 0.95"] is None
    assert errors["DDIM 1"] > errors["DDIM 4"] > errors["DDIM 10"] > errors["DDIM 50"] > 0
    assert json.dumps(result, allow_nan=False)
    assert result["call_equivalence"]["sentence"].startswith("One call is worth a number of the teacher's calls that")
    brief = evaluate({"student": exact}, teacher, (0.02, 0.95), num=64, heun=False)
    assert [row["name"] for row in brief["rows"]] == ["DDIM 1", "DDIM 4", "DDIM 10", "DDIM 50", "student"]
    assert brief["rows"][2]["path_error"] == errors["DDIM 10"]


def test_an_onnx_file_is_a_feature_space(tmp_path):
    pytest.importorskip("onnxruntime")
    onnx = pytest.importorskip("onnx")
    helper, kind = onnx.helper, onnx.TensorProto.FLOAT
    node = helper.make_node("Flatten", ["images"], ["features"])
    inputs = [helper.make_tensor_value_info("images", kind, ["b", 1, 2, 2])]
    outputs = [helper.make_tensor_value_info("features", kind, ["b", 4])]
    model = helper.make_model(
        helper.make_graph([node], "g", inputs, outputs), opset_imports=[helper.make_opsetid("", 18)], ir_version=10
    )
    onnx.save(model, tmp_path / "flat.onnx")
    features = load_features(str(tmp_path / "flat.onnx"), (1, 8, 8))
    images = torch.randn(3, 1, 2, 2)
    assert features.shape == (1, 2, 2)
    torch.testing.assert_close(features(images), images.flatten(1))


def test_the_shipped_files_are_small():
    sizes = [p.stat().st_size for p in builtin_folder("digits").rglob("*") if p.is_file()]
    assert sum(sizes) <= 3 * 2**20
