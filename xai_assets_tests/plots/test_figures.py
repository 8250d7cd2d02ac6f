"""What is drawn is what was given: bar heights, marks and gaps are read back from the figure."""

import subprocess
import sys
from datetime import date, timedelta

import numpy as np
import pytest

from xai_assets.errors import StatisticsError
from xai_assets.plots.divergence import divergence_rate, divergence_reasons
from xai_assets.plots.heatmap import drift_heatmap
from xai_assets.plots.histogram import attribution_histogram
from xai_assets.plots.palette import to_png
from xai_assets.plots.service_levels import Panel, service_level_lines
from xai_assets.records import Edges

DAYS = [date(2025, 1, 1) + timedelta(days=i) for i in range(4)]


def heights(figure):
    return [round(float(p.get_height()), 6) for p in figure.axes[0].patches]


def test_heatmap_marks_alerts_and_leaves_what_was_not_judged_blank():
    psi = np.array([[0.0, 0.3, np.nan, 0.6], [-0.02, 0.0, 0.0, 0.0]])
    alerts = np.array([[False, False, False, True], [False] * 4])
    figure = drift_heatmap(psi, alerts, ["income", "age"], DAYS, title="income moved on 2025-01-04")
    axes = figure.axes[0]
    mesh, dots = axes.collections
    assert mesh.get_array().mask.reshape(2, 4).tolist() == [[False, False, True, False], [False] * 4]
    assert mesh.get_array().min() == 0.0
    assert dots.get_offsets().tolist() == [[3.5, 0.5]]
    assert figure.get_suptitle() == "income moved on 2025-01-04"
    assert "nats" in figure.axes[1].get_ylabel()
    assert to_png(figure).startswith(b"\x89PNG")


def test_heatmap_without_alerts_has_no_legend():
    figure = drift_heatmap(np.zeros((1, 4)), np.zeros((1, 4), bool), ["age"], DAYS, title="nothing moved")
    assert figure.axes[0].get_legend() is None


def test_histogram_shows_shares_and_only_the_outer_cells_that_hold_somebody():
    edges = Edges("age", np.array([0.0, 1.0, 2.0]))
    reference, window = np.array([0.0, 30, 10, 0, 0]), np.array([0.0, 10, 10, 60, 0])
    figure = attribution_histogram(edges, reference, window, title="age moved up")
    assert heights(figure) == [75.0, 25.0, 0.0, 12.5, 12.5, 75.0]
    labels = [t.get_text() for t in figure.axes[0].get_xticklabels()]
    assert labels == ["0", "1", "above 2"]


def test_histogram_of_a_categorical_feature_names_levels_and_the_unseen():
    edges = Edges("home", np.array([-0.5, 0.5, 1.5]))
    window = np.array([0.0, 1, 1, 1, 1])
    figure = attribution_histogram(edges, window, window, title="home", levels=("rent", "own"))
    assert [t.get_text() for t in figure.axes[0].get_xticklabels()] == ["rent", "own", "unseen", "missing"]


@pytest.mark.parametrize("cuts", [np.array([3.0, 3.0]), np.array([])], ids=["constant", "all null"])
def test_histogram_of_a_degenerate_reference_draws(cuts):
    edges = Edges("age", cuts)
    counts = np.ones(edges.cells)
    figure = attribution_histogram(edges, counts, 0 * counts, title="nobody in the window")
    assert to_png(figure)
    assert heights(figure)[edges.cells :] == [0.0] * edges.cells


def test_reasons_carry_size_direction_and_share():
    args = ["income", "age"], np.array([0.3, 0.1]), np.array([0.75, 0.25]), np.array([0.2, -0.1])
    axes = divergence_reasons(*args, title="income explains most").axes[0]
    assert [p.get_width() for p in axes.patches] == [0.3, 0.1]
    assert axes.patches[0].get_facecolor() != axes.patches[1].get_facecolor()
    assert [t.get_text().strip() for t in axes.texts] == ["75%", "25%"]


def test_rate_leaves_a_gap_where_there_was_no_request():
    rates = np.array([0.1, 0.2, np.nan, 0.4])
    axes = divergence_rate(DAYS, rates, reference_rate=0.15, reference=(DAYS[0], DAYS[1]), title="up").axes[0]
    reference, line = axes.lines
    assert reference.get_ydata()[0] == pytest.approx(15.0)
    np.testing.assert_allclose(line.get_ydata(), [10, 20, np.nan, 40])


def test_service_levels_show_each_role_and_the_target_where_it_is_in_sight():
    lines = {"production": np.array([1.0, 1, np.nan, 1]), "experimental": np.array([1.0, 1, 0.6, 1])}
    fast = {"production": np.full(4, 0.3), "experimental": np.full(4, 0.4)}
    none = {"production": np.zeros(4), "experimental": np.full(4, np.nan)}
    panels = [
        Panel("coverage", "share", lines, 0.95),
        Panel("median", "ms", fast, 50.0),
        Panel("error rate", "share", none, 0.01),
        Panel("deletion", "ratio", fast),
    ]
    figure = service_level_lines(DAYS, panels, title="coverage missed on 2025-01-03")
    coverage, median, errors, deletion = figure.axes
    np.testing.assert_array_equal([line.get_ydata() for line in coverage.lines[:2]], list(lines.values()))
    assert coverage.lines[2].get_ydata()[0] == 0.95
    assert len(median.lines) == 2, "a target far off would flatten the lines: it is in the title"
    assert "target 50" in median.get_title(loc="left")
    assert errors.get_ylim()[1] > 0.01 == errors.lines[2].get_ydata()[0]
    assert len(deletion.lines) == 2
    assert [t.get_text() for t in figure.legends[0].get_texts()] == ["production", "experimental", "target"]
    assert figure.get_suptitle() == "coverage missed on 2025-01-03"
    assert to_png(figure).startswith(b"\x89PNG")


@pytest.mark.parametrize(
    "draw",
    [
        lambda: service_level_lines(DAYS, [], title=""),
        lambda: service_level_lines(DAYS, [Panel("a", "b", {"production": np.ones(3)})], title=""),
        lambda: drift_heatmap(np.zeros((2, 3)), np.zeros((2, 4), bool), ["a", "b"], DAYS, title=""),
        lambda: drift_heatmap(np.zeros((0, 4)), np.zeros((0, 4), bool), [], DAYS, title=""),
        lambda: attribution_histogram(Edges("a", np.arange(3.0)), np.ones(4), np.ones(5), title=""),
        lambda: divergence_reasons(["a"], np.ones(2), np.ones(2), np.ones(2), title=""),
        lambda: divergence_rate(DAYS, np.ones(3), reference_rate=0, reference=(DAYS[0], DAYS[0]), title=""),
    ],
)
def test_arrays_that_do_not_fit_are_refused(draw):
    with pytest.raises(StatisticsError, match="Expected"):
        draw()


def test_the_same_figure_gives_the_same_bytes_and_pyplot_stays_out():
    code = (
        "import sys, hashlib, numpy as np\n"
        "from xai_assets.plots.divergence import divergence_reasons\n"
        "from xai_assets.plots.palette import to_png\n"
        "draw = lambda: to_png(divergence_reasons(['a'], np.ones(1), np.ones(1), np.ones(1), title='t'))\n"
        "assert draw() == draw()\n"
        "assert 'matplotlib.pyplot' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
