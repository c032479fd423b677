import pytest

from immunax.runtime import console


def test_without_a_terminal_progress_is_plain_lines(capsys, monkeypatch):
    clock = iter(range(0, 1000, 3))
    monkeypatch.setattr(console.time, "monotonic", lambda: float(next(clock)))
    with console.progress("train", 10, "step") as bar:
        for step in range(10):
            bar.advance(loss=1.0 / (step + 1))
    lines = capsys.readouterr().err.splitlines()
    assert 2 <= len(lines) < 10
    assert lines[0].startswith("train: ")
    assert "left" in lines[0]
    assert "loss=" in lines[0]
    assert lines[-1].startswith("train: 10/10 step")
    assert "\x1b" not in "".join(lines)


def test_the_rate_and_the_time_left_follow_the_clock(capsys, monkeypatch):
    now = [100.0]
    monkeypatch.setattr(console.time, "monotonic", lambda: now[0])
    with console.progress("train", 40, "step") as bar:
        now[0] += 20.0
        bar.advance(10)
        line = capsys.readouterr().err
    assert "10/40 step, 2.00 s/step, 0:01:00 left" in line


def test_on_a_terminal_progress_is_a_bar(capsys, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    with console.progress("train", 2, "step") as bar:
        bar.advance(2, loss=0.5)
    assert "100%" in capsys.readouterr().err


def test_a_phase_says_how_long_it_took(capsys):
    with console.phase("load [weights]"):
        pass
    assert capsys.readouterr().err.splitlines() == ["load [weights] ...", "load [weights]: 0.0 s"]


def test_a_table_goes_to_standard_output(capsys):
    console.table("Attacks", ["name", "harmful"], [["lora", 0.123456], ["full [x]", 1], ["none", None]])
    out = capsys.readouterr().out
    assert "Attacks" in out
    assert "│  0.1235 │" in out
    assert "│       – │" in out
    assert "full [x]" in out


@pytest.mark.parametrize("show", [lambda: console.note("x"), lambda: console.table("x", ["a"], [["b"]])])
def test_only_the_leader_prints(capsys, monkeypatch, show):
    monkeypatch.setattr(console, "is_leader", lambda: False)
    show()
    captured = capsys.readouterr()
    assert captured.out + captured.err == ""


def test_a_place_that_is_drawn_anew_is_there_on_a_terminal_alone(capsys, monkeypatch):
    with console.drawn_anew() as draw:
        assert draw is None
    monkeypatch.setenv("FORCE_COLOR", "1")
    with console.drawn_anew() as draw:
        draw(console.line("first \x1b[2J"))
        draw(console.line("second"))
    out = capsys.readouterr().out
    assert "first \\x1b[2J" in out
    assert "second" in out
