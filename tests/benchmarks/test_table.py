"""The tables of a report, and the file that a report is kept in."""

from accelerated import table
from accelerated.catalogue import EAGER, IMMUNAX, PEAK
from accelerated.record import FAILED, SKIPPED, Report, Row, read, write

FACTS = {
    "immunax": {"device": "NVIDIA H200", "platform": "gpu", "versions": {"jax": "0.11.2"}},
    "torch": {"versions": {"torch": "2.11.0"}},
}
ROWS = (
    Row(PEAK, IMMUNAX, seconds=(0.002, 0.001), units=1, flops=8e11),
    Row("full_8x512", IMMUNAX, "done", "", (0.2, 0.1, 0.4), 4096, 4e13, 3 * 2**30, 31.4, 60.0, {"loss": 10.0}),
    Row("full_8x512", EAGER, "done", "", (0.4,), 4096, None, 2**30, None, 20.0),
    Row("decoding", EAGER, FAILED, "OutOfMemoryError: too large"),
    Row("attacks_1.1B", IMMUNAX, "done", "", (2.0,), 8, 4e14),
    Row("attacks_1.1B", EAGER, "done", "", (1.0,), 1),
    Row("attention", "immunax blocks", "done", "", (0.02,), 10, 1e12),
)


def shown(report):
    return "\n".join(table.lines(report))


def cells(report, case, side):
    return next(line.split(" | ") for line in table.lines(report) if case in line and f"| {side} |" in line)


def test_a_row_has_its_rate_ratios_share_memory_and_compilation():
    row = cells(Report(False, facts=FACTS, rows=ROWS), "1.1B, all weights, 8×512", IMMUNAX)
    assert row[2:] == ["20,480 tokens/s", "2.00", "", "200", "25%", "3.0", "31", "loss 10 |"]


def test_another_side_is_given_the_flops_that_were_counted_for_a_unit():
    report = Report(False, facts=FACTS, rows=ROWS)
    assert cells(report, "1.1B, all weights, 8×512", EAGER)[5:7] == ["100", "12%"]
    assert cells(report, "LoRA × 8 on 1.1B", EAGER)[5:7] == ["", ""]


def test_attacks_are_counted_by_the_hour_and_calls_in_milliseconds():
    report = Report(False, facts=FACTS, rows=ROWS)
    assert cells(report, "LoRA × 8 on 1.1B", IMMUNAX)[2:4] == ["14,400 attacks an hour", "4.00"]
    assert cells(report, "attention alone", "immunax blocks")[2] == "2 ms"


def test_a_row_without_figures_says_why():
    assert "| torch eager |  |  |  |  |  |  |  | failed: OutOfMemoryError: too large |" in shown(
        Report(False, facts=FACTS, rows=ROWS)
    )


def test_the_head_names_device_versions_and_peak_and_marks_tiny_sizes():
    first = shown(Report(False, facts=FACTS, rows=ROWS)).splitlines()[0]
    assert first == "NVIDIA H200; jax 0.11.2, torch 2.11.0. Matrix peak of the same run: 800 TFLOP/s."
    assert shown(Report(True, facts=FACTS)).startswith("NVIDIA H200: tiny sizes, whose times say nothing; jax")
    assert "peak of the same run: not measured" in shown(Report(False))


def test_every_line_of_a_table_has_as_many_cells_as_its_head():
    failed = Row(PEAK, IMMUNAX, FAILED, "no device")
    for report in (Report(False, facts=FACTS, rows=(*ROWS, failed)), Report(False, True, FACTS, (viewed(), failed))):
        counts, columns = [], None
        for line in table.lines(report):
            columns = None if not line.startswith("|") else columns or line.count("|")
            counts += [] if columns is None else [line.count("|") - columns]
        assert set(counts) == {0}


def viewed():
    sizes = {"moved": 3 * 2**30, "arguments": 2**30, "temporaries": 2**29, "calls": {"flash": 22}}
    return Row("full_8x512", IMMUNAX, flops=26e12, peak_bytes=2 * 2**30, details=sizes)


def test_a_view_shows_what_was_compiled_and_no_goals():
    text = shown(Report(False, True, FACTS, (viewed(), Row("tar", IMMUNAX, SKIPPED, "no room"))))
    assert text.startswith("Compiled for one NVIDIA H200 and not run; jax")
    assert "goal" not in text
    assert "| immunax | 26 | 3 | 2 | 1 | 0.5 | 22 × flash |" in text


def test_a_report_is_read_as_it_was_written(tmp_path):
    report = Report(False, facts=FACTS, rows=ROWS)
    write(tmp_path / "report.json", report)
    assert read(tmp_path / "report.json") == report
    assert [each.name for each in tmp_path.iterdir()] == ["report.json"]
