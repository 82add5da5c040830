"""The CUB sample and the ImageNet weights, untrained, against the figures of another program.

Origin of the figures: shared/DESIGN.md, section "Real data".
"""

from pathlib import Path

import pytest

from benchmarks.untrained_reference import TOLERANCE, PooledFeatures, measure, sample_pack


@pytest.mark.timeout(1200)
def test_untrained_features_have_the_reference_figures(shared: Path, tmp_path: Path) -> None:
    """1487 queries at three sizes: the archive, the view, the weights and the ranking at once."""
    pack = sample_pack(shared, tmp_path)
    assert (len(pack.rows("train")), len(pack.rows("test"))) == (1402, 1487)
    assert pack.class_names[25] == "026.Bronzed_Cowbird"
    figures = measure(pack, PooledFeatures(shared))
    assert [figure.query_px for figure in figures] == [224, 112, 64]
    for figure in figures:
        assert max(map(abs, figure.differences())) <= TOLERANCE, figure
