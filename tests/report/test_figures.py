"""Figures: what they show and that extreme input does not stop them."""

import io

import numpy as np
import pytest
from matplotlib.image import imread

from didact.report import _figures as figures
from didact.report._figures import Line, Scale
from didact.report._read import Floats

PNG = b"\x89PNG\r\n\x1a\n"


def test_first_coordinate_runs_to_the_right_second_upwards() -> None:
    panel = np.full((4, 4), 1e-3)
    panel[3, 0] = 1.0
    image = imread(io.BytesIO(figures.density_pixels(panel, Scale(1e-3, 1.0), figures.DENSITY)))
    bright = np.asarray(figures.DENSITY(1.0))[:3]
    np.testing.assert_allclose(image[-1, -1, :3], bright, atol=0.01)
    assert not np.allclose(image[0, 0, :3], bright, atol=0.1)


def test_right_is_white_too_little_blue_too_much_orange() -> None:
    target = np.full((1, 3), 0.25)
    student = np.array([[0.25, 1e-9, 1.0]])
    image = imread(io.BytesIO(figures.ratio_pixels(student, target)))
    height = image.shape[0] // 3
    much, little, right = (image[i * height + height // 2, 0, :3] for i in range(3))
    assert np.ptp(right) < 0.02
    assert little[2] > little[0]
    assert much[0] > much[2]


def test_ratio_of_nothing_is_no_error() -> None:
    zero, one = np.zeros((2, 2)), np.ones((2, 2))
    assert np.isnan(figures.log_ratio(one, zero)).all()
    assert np.isneginf(figures.log_ratio(zero, one)).all()


@pytest.mark.parametrize("panel", [np.zeros((3, 3)), np.full((3, 3), 0.1), np.eye(3) * 1e-30])
def test_flat_and_empty_densities(panel: Floats) -> None:
    scale = Scale.of([panel], 7.0)
    assert 0 < scale.low < scale.high
    assert figures.png(figures.density(panel, scale, figures.DENSITY, (0, 1))).startswith(PNG)
    assert figures.png(figures.difference(panel, panel, (0, 1))).startswith(PNG)
    assert figures.ratio_pixels(panel, panel).startswith(PNG)


def test_scale_keeps_to_its_decades() -> None:
    scale = Scale.of([np.array([0.0, 1e-30, 1e-3])], 7.0)
    assert scale.low == pytest.approx(1e-10)
    assert scale.high == pytest.approx(1e-3)


def test_large_panels_are_averaged() -> None:
    panel = np.random.default_rng(0).random((600, 600))
    image = imread(io.BytesIO(figures.density_pixels(panel, Scale(0.1, 1.0), figures.DENSITY)))
    assert image.shape[:2] == (200, 200)


def test_curves_with_gaps() -> None:
    x = np.arange(1.0, 6.0)
    y = np.array([[1.0, np.nan], [np.nan, np.nan], [0.0, -1.0], [10.0, 3.0], [4.0, 5.0]])
    line = Line("a", x, y, figures.BLUE)
    for log in (False, True):
        drawn = figures.curves([line], "y", log=log, smooth=True, reference=(2.0, "true"))
        assert figures.png(drawn).startswith(PNG)


def test_short_logarithmic_axes_have_labels() -> None:
    x, y = np.arange(1.0, 4.0), np.array([[9.1], [7.0], [5.8]])
    (ax,) = figures.curves([Line("a", x, y, figures.BLUE)], "y", log=True).axes
    assert len(ax.get_yticks()) >= 2


def test_running_mean_keeps_constants_and_length() -> None:
    for width in (1, 2, 5):
        np.testing.assert_allclose(figures.running_mean(np.full(9, 3.0), width), 3.0)


def test_cells_without_objects_are_hatched_and_explained() -> None:
    panel, void = np.full((3, 3), 1 / 9), np.zeros((3, 3), dtype=np.bool_)
    void[2, 2] = True
    scale = Scale(0.01, 1.0)
    for drawn in (
        figures.density(panel, scale, figures.DENSITY, (0, 1), void),
        figures.difference(panel, panel, (0, 1), void),
        figures.ratio(panel, panel, (0, 1), None, void),
    ):
        (hatched,) = drawn.axes[0].collections
        assert hatched.get_hatch()
        assert hatched.get_paths()[0].get_extents().bounds == (1.5, 1.5, 1, 1)
        assert [t.get_text() for t in drawn.legends[0].get_texts()] == ["no object"]
    image = imread(
        io.BytesIO(figures.density_pixels(panel, scale, figures.DENSITY, void)),
    )
    assert np.ptp(image[0, -1, :3]) < 0.05  # grey, at the top right
    assert np.ptp(image[-1, 0, :3]) > 0.05


def test_cells_that_are_scattered_are_no_thousand_shapes() -> None:
    """They would take minutes to draw."""
    void = np.indices((200, 200)).sum(axis=0) % 2 == 0
    drawn = figures.mode_map(void, ~void, (0, 1), void)
    assert not drawn.axes[0].collections
    _, grey = drawn.axes[0].images
    assert (grey.get_array().mask == ~void.T).all()
    assert [t.get_text() for t in drawn.legends[0].get_texts()] == ["no object"]
    void = np.zeros((200, 200), dtype=np.bool_)
    void[50:, 20:80] = True
    (hatched,) = figures.mode_map(~void, ~void, (0, 1), void).axes[0].collections[1:]
    assert len(hatched.get_paths()) == 150
    assert hatched.get_paths()[-1].get_extents().bounds == (198.5, 19.5, 1, 60)


def test_counts_have_whole_ticks() -> None:
    x, y = np.arange(1.0, 4.0), np.array([[0.0], [1.0], [2.0]])
    (ax,) = figures.curves([Line("a", x, y, figures.BLUE)], "modes", whole=True).axes
    assert all(tick == round(tick) for tick in ax.get_yticks())


def test_outline_of_missed_modes() -> None:
    modes = np.zeros((5, 5), dtype=np.bool_)
    modes[1:3, 1:3] = True
    held = modes.copy()
    held[1, 1] = False
    drawn = figures.mode_map(modes, held, (0, 1))
    (outline,) = drawn.axes[0].collections
    assert len(outline.get_paths()) == 4
