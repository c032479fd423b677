import json
import re
import shutil

import certified
import pandas as pd
import pytest
from browser import look

from immunax.certificate.facts import limits_of
from immunax.certificate.gate import suite_name
from immunax.certificate.ranking import Board, Entry, Worst, board, page
from immunax.certificate.signing import FILE, make_key, private_key, public_key, sign
from immunax.certificate.statement import canonical, own_digest, verdicts_to_json
from immunax.certificate.verify import CELLS, RECORDS, assessed
from immunax.leaderboard import main
from immunax.runtime.digest import of_file


def restate(path, change):
    stated = json.loads(path.read_bytes())
    change(stated["predicate"])
    stated["predicate"]["digest"]["sha256"] = own_digest(stated)
    path.write_bytes(canonical(stated))


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Certificates of two models, made once."""
    folder = tmp_path_factory.mktemp("made")
    return [certified.certificate(folder / name, weights=name.encode()).parent for name in ("one", "other")]


@pytest.fixture
def pair(made, tmp_path):
    """The two in folders of their own, to be changed."""
    return [shutil.copytree(each, tmp_path / "models" / each.name) / "certificate.json" for each in made]


def signed(path, key):
    (path.parent / FILE).write_bytes(sign(path.read_bytes(), private_key(key)))
    return path


def case(value, high, measured=True):
    return Worst(value, 0.0, high, measured)


def entry(name, held_out=None, **worst):
    return Entry(name, "–", {"all": worst, "held-out": held_out or worst}, OUTCOMES, "0" * 64)


OUTCOMES = {"all": "inconclusive", "held-out": "holds", "stability": "not vouched for", "trainability": "inconclusive"}


def test_the_upper_end_of_the_worst_case_ranks_substance_first_and_what_lacks_an_attack_is_last():
    ranked = sorted(
        [
            entry("in part", substance=case(0.0, 1.0, measured=False), compliance=case(0.0, 0.1)),
            entry("fails", substance=case(1.0, 1.0), compliance=case(1.0, 1.0)),
            entry("sure", substance=case(0.1, 0.2), compliance=case(0.9, 1.0)),
            entry("unsure", substance=case(0.0, 0.3), compliance=case(0.0, 0.1)),
            entry("better", substance=case(0.1, 0.2), compliance=case(0.1, 0.2)),
            entry("not at all", substance=case(None, 1.0, measured=False), compliance=case(0.0, 0.0)),
        ],
        key=Entry.rank,
    )
    assert [each.name for each in ranked] == ["better", "sure", "unsure", "fails", "not at all", "in part"]


def test_certificates_of_one_suite_are_ranked_on_a_page_by_all_attacks_with_the_held_out_ones_beside(
    tmp_path, pair, capsys
):
    one, other = pair
    restate(other, lambda said: said["model"].update(name="<another>"))
    assert main([str(tmp_path), "--out", str(tmp_path / "board")]) == 0
    shown = (tmp_path / "board" / "index.html").read_text()
    assert "small" in shown
    # Their records are the same, so they share a place.
    assert shown.count('<tr><td class="n">1</td>') == 2
    assert "&lt;another&gt;" in shown
    assert "2 models" in capsys.readouterr().out
    [found] = board([one]).entries
    # Of 40 answers one is harmful after the family that is held out, three after the other.
    assert found.worst["held-out"]["compliance"].value == pytest.approx(1 / 40)
    assert found.worst["all"]["compliance"].value == pytest.approx(3 / 40)
    assert found.outcomes["all"] == found.outcomes["held-out"] == "holds"


def test_what_a_model_says_it_was_trained_against_never_improves_its_rank(pair):
    one, _ = pair

    def claim(*families):
        def change(said):
            said["model"]["trained"].update(against=list(families))
            for each in said["attacks"]:
                each["exposure"] = "seen" if each["family"] in families else "unseen"
            stated = {"predicate": said}
            verdicts = assessed(one.parent, stated)
            said["verdicts"] = verdicts_to_json(verdicts)
            said["limits"] = limits_of(said, certified.POLICY, verdicts)

        restate(one, change)
        [found] = board([one]).entries
        return found

    plain = claim()
    assert plain.outcomes["held-out"] == "holds"
    hard = claim("sft", "lora")
    assert hard.rank() == plain.rank()
    assert hard.outcomes["held-out"] == "unmeasured"


def test_a_family_that_was_skipped_puts_a_model_behind_one_that_fails(pair):
    whole, lacking = pair

    def skip(said):
        tables = {name: pd.read_parquet(lacking.parent / name) for name in (RECORDS, CELLS)}
        for place, (name, table) in enumerate(tables.items()):
            kept = table[~table["cell"].str.endswith("-lora")]
            kept.to_parquet(lacking.parent / name, index=False)
            said["records"][place].update(rows=len(kept), digest={"sha256": of_file(lacking.parent / name)})
        said["attacks"][1].update(skipped="it was too hard", cells=0)
        verdicts = assessed(lacking.parent, {"predicate": said})
        said["verdicts"] = verdicts_to_json(verdicts)
        said["limits"] = limits_of(said, certified.POLICY, verdicts)

    restate(lacking, skip)
    found = board([lacking, whole])
    assert found.left_out == ()
    assert [each.outcomes["all"] for each in found.entries] == ["holds", "unmeasured"]
    assert found.entries[1].rank()[0] == (True, 1.0)
    assert "in part" in page(found)


def test_one_that_does_not_verify_is_left_out_in_one_line_and_stops_nothing(tmp_path, pair, capsys):
    one, other = pair
    damaged = tmp_path / "damaged" / "certificate.json"
    shutil.copytree(other.parent, damaged.parent)
    (damaged.parent / RECORDS).write_bytes(b"no table")
    (tmp_path / "folder" / "certificate.json").mkdir(parents=True)
    other.write_bytes(b"{" * 100_000)
    asked = [str(tmp_path), str(tmp_path / "nowhere.json"), "--out", str(tmp_path / "board")]
    assert main(asked) == 1
    told = capsys.readouterr()
    assert "1 models ranked" in told.out
    assert len(told.err.splitlines()) == 4
    for bad in (damaged, other, tmp_path / "folder" / "certificate.json", tmp_path / "nowhere.json"):
        assert sum(str(bad) in line for line in told.err.splitlines()) == 1
    assert (tmp_path / "board" / "index.html").is_file()
    one.write_bytes(one.read_bytes() + b" ")
    assert main(asked) == 2
    assert "none of the certificates can be ranked" in capsys.readouterr().err
    (tmp_path / "empty").mkdir()
    assert main([str(tmp_path / "empty")]) == 2


def test_the_rules_are_what_is_asked_for_or_those_of_most_models_and_never_one_certificates(tmp_path, pair, capsys):
    first = shutil.copytree(pair[0].parent, tmp_path / "a") / "certificate.json"
    restate(first, lambda said: said["model"].update(weights="9" * 64))
    restate(first, lambda said: said["suite"]["config"].update(data="other"))
    # However often it is handed in, it is one model.
    again = shutil.copytree(first.parent, tmp_path / "b") / "certificate.json"
    found = board([first, again, *pair])
    assert len(found.entries) == 2
    assert [line.split(",")[0] for line in found.left_out] == [
        f"{path} is left out: its suite" for path in (first, again)
    ]
    asked = [str(first), str(pair[0]), "--suite", suite_name(json.loads(first.read_bytes()))]
    assert main([*asked, "--out", str(tmp_path / "board")]) == 1
    told = capsys.readouterr()
    assert "1 models ranked" in told.out
    assert f"{pair[0]} is left out: its suite" in told.err


def test_attack_data_of_another_kind_are_another_board(tmp_path, pair):
    shared = certified.certificate(tmp_path / "shared", weights=b"third", attacker="shared")
    assert f"{shared} is left out: its attack data" in board([*pair, shared]).left_out[0]


def test_where_equally_many_models_have_other_rules_the_order_of_certificates_does_not_choose(tmp_path, pair, capsys):
    shared = certified.certificate(tmp_path / "shared", weights=b"third", attacker="shared")
    asked = [str(pair[0]), str(shared), "--out", str(tmp_path / "board")]
    for order in (asked, [asked[1], asked[0], *asked[2:]]):
        assert main(order) == 2
        told = capsys.readouterr().err
        assert told.startswith("error: equally many models have the attack data ")
        assert told.endswith("choose with --attack-data.\n")
    assert main([*asked, "--attack-data", "shared"]) == 1
    assert f"{pair[0]} is left out: its attack data, own, differs from what is asked for" in capsys.readouterr().err
    assert main([*asked, "--attack-data", "mine"]) == 2
    assert "--attack-data mine: expected own|shared" in capsys.readouterr().err


def test_weights_are_ranked_once_however_their_files_are_cut_and_a_key_refuses_what_it_did_not_sign(
    tmp_path, pair, capsys
):
    key = make_key(tmp_path / "key.pem")
    one, other = (signed(path, tmp_path / "key.pem") for path in pair)
    asked = ["--out", str(tmp_path / "board")]
    assert main([str(one), str(other), "--key", str(key), *asked]) == 0
    again = tmp_path / "again" / "certificate.json"
    shutil.copytree(one.parent, again.parent)
    restate(again, lambda said: said["model"].update(name="mine"))
    stated = json.loads(again.read_bytes())
    stated["subject"].append({"name": "notes.txt", "digest": {"sha256": "2" * 64}})
    again.write_bytes(canonical(stated))
    (again.parent / FILE).unlink()
    # Nobody but the organiser's key could tell who is right: neither takes the other's place.
    assert main([str(one), str(again), str(other), *asked]) == 1
    told = capsys.readouterr()
    assert "1 models ranked" in told.out
    for mine, rival in ((one, again), (again, one)):
        assert f"{mine} is left out: {rival} is of the same weights, and they differ" in told.err
    assert main([str(one), str(again), str(other), "--key", str(key), *asked]) == 1
    assert "2 models ranked" in capsys.readouterr().out
    copy = shutil.copytree(one.parent, tmp_path / "copy") / "certificate.json"
    assert main([str(one), str(copy), *asked]) == 1
    assert f"{copy} is left out: it is the same certificate as {one}" in capsys.readouterr().err
    (other.parent / FILE).unlink()
    assert main([str(one), str(other), "--key", str(key), *asked]) == 1
    assert f"{other} is left out: it does not verify (signature" in capsys.readouterr().err


def test_a_reference_that_nobody_chose_says_nothing_of_stability_and_a_worse_one_is_another_board(tmp_path, pair):
    key = make_key(tmp_path / "key.pem")
    one, other = pair
    shown = board([one, other])
    assert {each.outcomes["stability"] for each in shown.entries} == {"not vouched for"}
    assert "nobody who is trusted here chose" in page(shown)
    fixed = board([one, other], fixed={"reference": "0" * 64})
    assert {each.outcomes["stability"] for each in fixed.entries} == {"inconclusive"}
    assert "nobody who is trusted here chose" not in page(fixed)
    # The model's own run named it, whoever signed.
    assert (
        board([signed(one, tmp_path / "key.pem")], public_key(key)).entries[0].outcomes["stability"]
        == "not vouched for"
    )

    def worse(said):
        said["model"].update(weights="9" * 64)
        said["reference"].update(weights="3" * 64, digests={"weights": "3" * 64})

    third = shutil.copytree(other.parent, tmp_path / "third") / "certificate.json"
    restate(third, worse)
    found = board([third, one, other])
    assert len(found.entries) == 2
    assert f"{third} is left out: its reference" in found.left_out[0]
    assert main([str(one), "--reference", "yes"]) == 2


def test_a_reference_that_the_certifier_chose_counts_where_his_signature_is_asked_for(tmp_path, pair):
    key, path = make_key(tmp_path / "key.pem"), pair[0]

    def choose(said):
        said["suite"]["config"]["reference"] = {"path": "start"}
        said["reference"]["named_by"] = "certifier"
        said["undefended"] = said["reference"]["weights"]

    restate(path, choose)
    assert board([path]).entries[0].outcomes["stability"] == "not vouched for"
    signed(path, tmp_path / "key.pem")
    assert board([path], public_key(key)).entries[0].outcomes["stability"] == "inconclusive"
    restate(path, lambda said: said["reference"].update(named_by="model"))
    (path.parent / FILE).unlink()
    assert "facts" in board([path]).left_out[0]


def test_a_page_of_attacks_with_the_defenses_own_data_says_so():
    shown = {}
    for whose in ("own", "shared"):
        each = entry("small", substance=case(0.1, 0.2))._replace(attacker=whose)
        shown[whose] = page(Board("s", (each,), ()))
    assert "the very examples that the defense trained on" in shown["shared"]
    assert "the very examples" not in shown["own"]
    assert "data of their own" in shown["own"]


def test_names_on_the_page_are_text_and_the_confidence_is_the_policys():
    name = "</title></style><script>alert(1)</script>' x=\" onload=x\n\u202e" + "long " * 100
    shapes = []
    for each in ("plain", name):
        shown = entry(each, substance=case(0.1, 0.2))._replace(defense=each)
        text = page(Board(each, (shown,), (), 0.5))
        assert "its 50% interval" in text
        assert all(line.isprintable() for line in text.split("\n"))
        shapes.append(re.findall(r"<[^>]*>", text))
    assert shapes[0] == shapes[1]
    assert '<span class="outcome other">' in shapes[0]
    assert "default-src &#39;none&#39;; style-src &#39;sha256-" in text
    assert not re.search(r" style=| on\w+=", "".join(shapes[1]))


@pytest.mark.parametrize(("width", "scheme"), [(1100, "dark"), (360, "light")])
def test_the_page_reads_in_a_browser_at_any_width_without_an_error(tmp_path, width, scheme):
    long = entry("a_model_with_a_name_that_has_no_place_to_break", substance=case(0.1, 0.2))
    path = tmp_path / "index.html"
    path.write_text(page(Board("standard", (long,), (), 0.95)))
    seen = look(path, width, scheme)
    assert seen.told == []
    assert seen.width <= width
    assert seen.contrast > 7
