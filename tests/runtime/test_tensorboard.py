import os
import struct

import pytest
from tensorboardX.proto.event_pb2 import Event

from immunax.runtime import tensorboard
from immunax.runtime.tensorboard import Events


def read(folder):
    """Step, name and value of each number, by the format of the file: length, its checksum, record, its checksum."""
    (path,) = folder.iterdir()
    data, found = path.read_bytes(), []
    while data:
        (length,) = struct.unpack_from("<Q", data)
        event = Event.FromString(data[12 : 12 + length])
        found += [(event.step, value.tag, value.simple_value) for value in event.summary.value]
        data = data[16 + length :]
    return found


def test_numbers_are_read_back_as_events(tmp_path):
    events = Events(tmp_path / "new" / "board")
    events.add(1, "train/loss", 0.5)
    events.add(2, "train/loss", 0.25)
    events.close()
    assert read(tmp_path / "new" / "board") == [(1, "train/loss", 0.5), (2, "train/loss", 0.25)]


def test_what_has_waited_long_enough_is_on_disk_before_the_end(tmp_path, monkeypatch):
    monkeypatch.setattr(tensorboard, "FLUSH_SECONDS", 0.0)
    events = Events(tmp_path)
    events.add(1, "loss", 0.5)
    assert read(tmp_path) == [(1, "loss", 0.5)]
    events.close()


def test_a_full_disk_is_told_where_the_file_is_closed(tmp_path):
    events = Events(tmp_path)
    full = os.open("/dev/full", os.O_WRONLY)
    os.dup2(full, events._records._writer.fileno())
    os.close(full)
    events.add(1, "loss", 0.5)
    with pytest.raises(OSError, match="No space left"):
        events.close()
    assert events._records._writer.closed
