"""Where the two electricity models differ most is stated by the price, known to carry the largest difference."""

import numpy as np

from xai_assets.config import MonitorConfig
from xai_assets.flow.monitor import Monitor
from xai_assets.flow.slice_rows import slice_columns
from xai_assets.lake.store import Lake
from xai_assets.records import MODEL_ROLES
from xai_assets.stats.slices import divergence_slices
from xai_assets_tests.examples.conftest import Example


def test_the_first_rule_speaks_of_the_price_and_holds_in_the_weeks_held_out(elec2: Example) -> None:
    config = MonitorConfig.from_mapping("elec2", elec2.attributes, elec2.root)
    monitor = Monitor(config, Lake(str(elec2.root / "unused")))
    log = elec2.stored("logs").sort("requested_at")
    models = [monitor.model(role) for role in MODEL_ROLES]
    production, experimental = (np.asarray(m.predict_output(m.encode(log)), np.float64) for m in models)
    flipped = (experimental >= 0.5) != (production >= 0.5)
    columns = slice_columns(log, monitor.features, [c for c in config.context if c in log.columns])
    weeks = (log["requested_at"].dt.truncate("1w").rank("dense") % 2 == 0).to_numpy()
    found = divergence_slices(columns, experimental - production, flipped, np.ones(log.height), weeks)
    first = next(s for s in found if s.confirmed)
    assert "nsw_price" in first.sentence
    assert first.lift > 2
    assert first.flip_share > 2 * first.flip_share_rest
