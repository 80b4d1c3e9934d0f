"""Claims: the committed page is that of the committed runs, and each line its own."""

import pytest

from benchmarks import claims


def test_the_committed_page_is_that_of_the_committed_runs(tmp_path):
    assert claims.main(["--out", str(tmp_path)]) == 0
    for name in ("claims.csv", "claims.md"):
        kept = claims.RESULTS / "claims" / name
        assert (tmp_path / name).read_text() == kept.read_text(), (
            "write it again: python -m benchmarks.claims --out results/claims"
        )


def test_every_grid_with_runs_is_judged():
    grids = {path.parent.name for path in claims.RESULTS.glob("*/grid.json")}
    assert grids - {source.name for source in claims.SOURCES} == {
        # Each layer has a budget of its own there, so no method to compare with.
        "budget-digits-layer"
    }


@pytest.fixture
def results(tmp_path):
    head = "arch,augment,method,rescale,signed_constant,seed,thresholding,"
    head += "averaging_mean,keep_fraction,best_epoch,epochs,diverged"
    lines = [
        f"{arch},no,{method},{rescale},yes,{seed},{accuracy},{accuracy},0.5,9,10,"
        for arch, seed, ours, theirs in (
            ("conv2", 0, 0.62, 0.60),
            ("conv2", 1, 0.63, 0.60),
            ("conv4", 0, 0.70, 0.75),
        )
        for method, rescale, accuracy in (
            ("aslp", "smart", ours),
            ("edge_popup", "fan", theirs),
        )
    ]
    lines.append("conv4,no,edge_popup,fan,yes,1,,,,,,the loss was not finite")
    (tmp_path / "grid").mkdir()
    (tmp_path / "grid/runs.csv").write_text("\n".join([head, *lines, ""]))
    return tmp_path


def test_a_line_is_of_one_network_or_of_all(results):
    source = claims.Source("grid", "images", claims.claims, claims.table1_cell)
    lines = list(claims.judge(source, claims.read_records(source, results)))
    found = [line for line in lines if line["claim"].endswith("above edge-popup")]
    assert [line["networks"] for line in found] == ["Conv2", "Conv4", "Conv2, Conv4"]
    evidence = [line["evidence"].partition(" points")[0] for line in found]
    # 2 and 3 points; -5 points; by seed -1.5 and 3 points. t of one degree is 12.71.
    assert evidence == ["+2.50 ± 6.35", "-5.00", "+0.75 ± 28.59"]
    assert {line["epochs"] for line in lines} == {"10"}
    assert not any("supermask" in line["claim"] for line in lines)
