"""The event files are TensorBoard's own, byte by byte."""

from __future__ import annotations

import io

from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.compat.tensorflow_stub.pywrap_tensorflow import masked_crc32c
from tensorboard.summary.writer.record_writer import RecordWriter

from trial.event_file import crc32c, masked, record, records, scalars


def test_records_are_those_of_tensorboards_writer():
    for content in (b"", b"a", bytes(range(256)) * 3):
        buffer = io.BytesIO()
        RecordWriter(buffer).write(content)
        assert record(content) == buffer.getvalue()
        assert masked(content) == masked_crc32c(content)


def test_the_published_checksum():
    assert crc32c(bytes(32)) == 0x8A9136AA  # RFC 3720, appendix B.4


def test_scalars_are_events_with_a_value_each():
    events = scalars({"val/accuracy": 0.5}, step=3, wall_time=1.5)
    value = Summary.Value(tag="val/accuracy", simple_value=0.5)
    expected = Event(wall_time=1.5, step=3, summary=Summary(value=[value])).SerializeToString()
    assert records(events) == record(expected)
