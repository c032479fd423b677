import os

import kills
import pytest
import quick


@pytest.mark.slow
def test_a_run_that_is_killed_six_times_loses_nothing_and_ends_with_the_same_bits(tmp_path):
    environment = {**os.environ, "XLA_FLAGS": f"--xla_force_host_platform_device_count=1 {quick.FLAGS}"}
    found = kills.campaign(tmp_path, ["train"], 6, 1, environment)["train"]
    assert sum(found["kills"].values()) == 6
    assert found["lost"] == []
    assert found["differing_bits"] == 0


def test_results_that_differ_are_counted_by_the_bit_and_times_are_not(tmp_path):
    for name, loss, at in (
        ("one", b"\x01", "2026-01-01T00:00:00+00:00"),
        ("other", b"\x02", "2026-01-02T11:11:11+00:00"),
    ):
        run = tmp_path / name / "outputs" / "run"
        (run / "checkpoints").mkdir(parents=True)
        (run / "checkpoints" / "3").write_bytes(loss)
        (run / "records.jsonl").write_bytes(loss)
        (run / "manifest.json").write_text(f'{{"written": "{at}"}}')
    one, other = (kills.results(tmp_path / name) for name in ("one", "other"))
    assert kills.differing_bits(one, other) == {"outputs/run/records.jsonl": 2}
    assert kills.differing_bits(one, {}) == {"outputs/run/records.jsonl": 9, "outputs/run/manifest.json": 8 * 19 + 1}


@pytest.mark.parametrize(
    ("status", "number", "said", "lost", "unsaid"),
    [
        (0, None, "", 0, 0),
        (-9, 9, "", 0, 0),
        (143, 15, "stopped by SIGTERM: what is finished\n", 0, 0),
        (-15, 15, "", 0, 1),
        (130, 2, "Traceback\nstopped by SIGINT\n", 0, 1),
        (2, None, "error: no\n", 1, 0),
        (1, 9, "Traceback", 1, 0),
        (-11, 15, "stopped by SIGTERM\n", 1, 0),
    ],
)
def test_an_end_of_its_own_is_a_loss_and_an_end_without_a_word_is_counted(tmp_path, status, number, said, lost, unsaid):
    (tmp_path / "said").write_text(said)
    tally = kills.Tally()
    kills._judge(tmp_path, status, number, tally)
    assert (len(tally.lost), tally.unsaid) == (lost, unsaid)
