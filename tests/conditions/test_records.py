import hashlib

import numpy as np

from immunax.conditions import records
from immunax.conditions.records import unit
from immunax.data.dialog import Dialog, Message
from immunax.runtime.errors import UserError


def table():
    random = np.random.default_rng(0)
    rows = [
        ("cell", 0, "test", records.HARMFUL_NLL, f"{i:04d}", value, 7.0) for i, value in enumerate(random.random(400))
    ]
    return records.frame(rows, records.RECORDS)


def test_a_table_is_read_as_it_was_written_and_equal_ones_have_equal_bytes(tmp_path):
    for name in ("one", "other"):
        records.write(tmp_path / name, table())
    assert (tmp_path / "one").read_bytes() == (tmp_path / "other").read_bytes()
    assert records.read(tmp_path / "one", records.RECORDS).equals(table())


def test_one_flipped_bit_never_gives_other_numbers(tmp_path):
    records.write(tmp_path / "whole", table())
    raw, random = (tmp_path / "whole").read_bytes(), np.random.default_rng(1)
    refused = 0
    for place in random.integers(len(raw), size=200):
        changed = bytearray(raw)
        changed[place] ^= 1 << random.integers(8)
        (tmp_path / "flipped").write_bytes(bytes(changed))
        try:
            found = records.read(tmp_path / "flipped", records.RECORDS)
        except UserError as error:
            refused += str(tmp_path / "flipped") in str(error)
            continue
        assert found.equals(table())
    assert refused > 100


def test_one_question_in_two_dialogs_is_two_examples_and_alone_is_known_by_its_words():
    alone = Dialog((Message("user", "why?"),), "")
    assert unit(alone) == hashlib.sha256(b"why?").hexdigest()[:16]
    told = [Dialog((Message("system", each), Message("user", "why?")), "") for each in ("be brief", "be kind")]
    assert len({unit(each) for each in (alone, *told)}) == 3
