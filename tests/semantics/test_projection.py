import numpy as np
import pytest

from hiersplat.semantics.projection import DenseProjection, fit_projection


@pytest.fixture
def views():
    rng = np.random.default_rng(0)
    mixing = rng.normal(size=(3, 12)) * np.array([9.0, 3.0, 1.0])[:, None]
    return [rng.normal(size=(5, 6, 3)) @ mixing + 4 for _ in range(6)]


def test_projected_values_have_mean_0_variance_1_and_do_not_correlate(views):
    projection = fit_projection(views, 3)
    values = np.concatenate([projection.project(v).reshape(-1, 3) for v in views])
    np.testing.assert_allclose(values.mean(axis=0), 0, atol=1e-4)
    np.testing.assert_allclose(np.cov(values.T, bias=True), np.eye(3), atol=1e-3)
    assert projection.explained == pytest.approx(1)


def test_views_one_by_one_give_what_all_together_give(views):
    apart, together = fit_projection(views, 2), fit_projection([np.concatenate(views)], 2)
    np.testing.assert_allclose(apart.basis, together.basis, atol=1e-5)


def test_half_precision_features_as_cached_are_taken(views):
    exact = fit_projection(views, 2)
    half = fit_projection([v.astype(np.float16) for v in views], 2)
    np.testing.assert_allclose(exact.basis, half.basis, atol=1e-2)
    assert half.project(views[0].astype(np.float16)).dtype == np.float32


def test_directions_without_variation_are_zero(views):
    projection = fit_projection(views, 5)
    assert np.abs(projection.basis[:, 3:]).max() == 0
    assert np.isfinite(projection.project(views[0])).all()
    flat = fit_projection([np.ones((2, 2, 4))], 2)
    assert np.abs(flat.project(np.ones((2, 2, 4)))).max() == 0


def test_a_projection_survives_its_arrays(views):
    projection = fit_projection(views, 2)
    again = DenseProjection.from_arrays(projection.to_arrays())
    np.testing.assert_array_equal(again.basis, projection.basis)
    with pytest.raises(ValueError, match="basis"):
        DenseProjection.from_arrays({"mean": projection.mean})
    with pytest.raises(ValueError, match="no projection"):
        DenseProjection.from_arrays(projection.to_arrays() | {"mean": np.zeros(3)})


def test_what_cannot_be_fitted_is_refused(views):
    with pytest.raises(ValueError, match="no views"):
        fit_projection([], 2)
    for count in (0, 13):
        with pytest.raises(ValueError, match="num_values"):
            fit_projection(views, count)
