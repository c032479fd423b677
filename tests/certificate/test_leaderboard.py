import json
import shutil

import certified
import pytest
from browser import look

from immunax.certificate.ranking import Entry, entries, page
from immunax.certificate.signing import FILE, make_key, private_key
from immunax.certificate.statement import canonical, own_digest
from immunax.leaderboard import main


def restate(path, change):
    stated = json.loads(path.read_bytes())
    change(stated["predicate"])
    stated["predicate"]["digest"]["sha256"] = own_digest(stated)
    path.write_bytes(canonical(stated))


def pair(folder, key=None):
    """Certificates of two models."""
    return [certified.certificate(folder / name, key, name.encode()) for name in ("one", "other")]


def entry(name, **worst):
    return Entry(name, "–", worst, {}, "")


def test_the_upper_end_of_the_worst_case_ranks_substance_first_and_the_unknown_last():
    ranked = sorted(
        [
            entry("unknown", substance=None, compliance=(0.0, 0.0, 0.1)),
            entry("sure", substance=(0.1, 0.0, 0.2), compliance=(0.9, 0.8, 1.0)),
            entry("unsure", substance=(0.0, 0.0, 0.3), compliance=(0.0, 0.0, 0.1)),
            entry("better", substance=(0.1, 0.0, 0.2), compliance=(0.1, 0.0, 0.2)),
        ],
        key=Entry.rank,
    )
    assert [each.name for each in ranked] == ["better", "sure", "unsure", "unknown"]


def test_certificates_of_one_suite_are_ranked_on_a_page(tmp_path, capsys):
    one, other = pair(tmp_path)
    restate(other, lambda said: said["model"].update(name="<another>"))
    assert main([str(tmp_path), "--out", str(tmp_path / "board")]) == 0
    board = (tmp_path / "board" / "index.html").read_text()
    assert "small" in board
    # Their records are the same, so they share a place.
    assert board.count('<tr><td class="n">1</td>') == 2
    assert "&lt;another&gt;" in board
    assert "2 models" in capsys.readouterr().out
    found = entries([one])[0]
    # One family is held out; of its 40 answers one is harmful.
    assert found.worst["compliance"][0] == pytest.approx(1 / 40)
    assert found.outcomes["resistance"] == "holds"


def test_one_that_does_not_verify_or_had_other_rules_is_refused_by_name(tmp_path, capsys):
    one, other = pair(tmp_path)
    restate(other, lambda said: said["suite"]["config"].update(data={"items": 3}))
    assert main([str(one), str(other)]) == 2
    assert f"{other}: its suite differs" in capsys.readouterr().err
    shared = certified.certificate(tmp_path / "shared", weights=b"third", attacker="shared")
    assert main([str(one), str(shared)]) == 2
    assert f"{shared}: its attack data differs" in capsys.readouterr().err
    other.write_bytes(other.read_bytes() + b" ")
    assert main([str(one), str(other)]) == 2
    assert f"{other}: does not verify (form" in capsys.readouterr().err
    (tmp_path / "empty").mkdir()
    assert main([str(tmp_path / "empty")]) == 2


def test_one_model_is_ranked_once_and_a_key_refuses_what_it_did_not_sign(tmp_path, capsys):
    key = make_key(tmp_path / "key.pem")
    one, other = pair(tmp_path / "models", private_key(tmp_path / "key.pem"))
    assert main([str(one), str(other), "--key", str(key), "--out", str(tmp_path / "board")]) == 0
    shutil.copytree(one.parent, tmp_path / "again")
    assert main([str(one), str(tmp_path / "again"), "--out", str(tmp_path / "board")]) == 2
    assert "is of the same model as" in capsys.readouterr().err
    (other.parent / FILE).unlink()
    assert main([str(one), str(other), "--key", str(key)]) == 2
    assert f"{other}: does not verify (signature" in capsys.readouterr().err


def test_a_page_of_attacks_with_the_defenses_own_data_says_so(tmp_path):
    pages = {
        whose: page(entries([certified.certificate(tmp_path / whose, attacker=whose)]), "s")
        for whose in ("own", "shared")
    }
    assert "the very examples that the defense trained on" in pages["shared"]
    assert "the very examples" not in pages["own"]
    assert "data of their own" in pages["own"]


@pytest.mark.parametrize(("width", "scheme"), [(1100, "dark"), (360, "light")])
def test_the_page_reads_in_a_browser_at_any_width_without_an_error(tmp_path, width, scheme):
    outcomes = dict.fromkeys(("resistance", "stability", "trainability"), "inconclusive")
    long = Entry(
        "a_model_with_a_name_that_has_no_place_to_break", "TAR", {"substance": (0.1, 0.0, 0.2)}, outcomes, "0" * 64
    )
    path = tmp_path / "index.html"
    path.write_text(page([long], "standard"))
    seen = look(path, width, scheme)
    assert seen.told == []
    assert seen.width <= width
    assert seen.contrast > 7
