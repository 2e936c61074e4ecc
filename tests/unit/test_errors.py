"""Every error crosses a process boundary whole, says its facts, and has the exit code of its decision."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest

from obs import errors
from obs.errors import ObsError

FACTS: dict[str, Any] = {"path": "/data/x", "offset": 17, "reason": "checksum", "size": 3, "none": None, "many": ["a", "b"]}


def kinds() -> list[type[ObsError]]:
    found = [value for value in vars(errors).values() if isinstance(value, type) and issubclass(value, ObsError)]
    assert len(found) >= 11
    return found


@pytest.mark.parametrize("facts", [{}, FACTS], ids=["bare", "with facts"])
@pytest.mark.parametrize("kind", kinds(), ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("carry", [lambda one: pickle.loads(pickle.dumps(one)), copy.copy, copy.deepcopy], ids=["pickle", "copy", "deep"])
def test_an_error_survives_pickling(kind: type[ObsError], facts: dict[str, Any], carry: Any) -> None:
    if kind is errors.DecodeError:
        facts = {name: value for name, value in facts.items() if name != "reason"}  # it is the message
    error = kind("what failed", **facts)
    again = carry(error)
    assert type(again) is kind
    assert str(again) == str(error)
    assert (again.message, again.facts, again.args) == (error.message, error.facts, error.args)
    assert again.exit_code == error.exit_code
    for name in ("problems", "reason", "path", "offset"):
        assert getattr(again, name, None) == getattr(error, name, None)


def test_a_cause_does_not_go_along_and_the_message_stays() -> None:
    def fill() -> None:
        try:
            raise OSError(28, "No space left on device")
        except OSError as error:
            raise errors.LoadRetryable("database is full", code=error.errno) from error

    with pytest.raises(errors.LoadRetryable) as caught:
        fill()
    assert str(pickle.loads(pickle.dumps(caught.value))) == "database is full: code=28"


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (ObsError("it failed"), "it failed"),
        (ObsError("it failed", name="x", size=3), "it failed: name='x' size=3"),
        (errors.DecodeError("width", fields=3), "width: fields=3"),
        (errors.SegmentCorrupt(path="/a", offset=4, reason="torn"), "segment is damaged: path='/a' offset=4 reason='torn'"),
        (errors.ConfigError("wrong", problems=["a.b = 1: 2 to 3", "c: unknown"]), "wrong\n  a.b = 1: 2 to 3\n  c: unknown"),
        (errors.ConfigError("wrong"), "wrong"),
    ],
)
def test_the_message_holds_the_facts(error: ObsError, text: str) -> None:
    assert str(error) == text


def test_fields_that_a_repair_needs() -> None:
    assert errors.ConfigError("one thing").problems == ["one thing"]
    assert errors.ConfigError("many", problems=["x", "y"]).problems == ["x", "y"]
    assert errors.DecodeError("width").reason == "width"
    corrupt = errors.SegmentCorrupt(path="/a/b", offset=4096, reason="checksum")
    assert (corrupt.path, corrupt.offset, corrupt.reason) == ("/a/b", 4096, "checksum")


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        (ObsError, 1), (errors.ConfigError, 2), (errors.ShmFull, 2), (errors.SchemaMismatch, 3), (errors.OwnedElsewhere, 3),
        (errors.AuthRejected, 1), (errors.ConnectionLost, 1), (errors.LoadRetryable, 1), (errors.DecodeError, 1),
        (errors.SegmentCorrupt, 1), (errors.DiskTrouble, 1),
    ],
)  # fmt: skip
def test_exit_codes(kind: type[ObsError], code: int) -> None:
    """2 and 3 end a process for ever, so no error of a moment may have them."""
    assert kind("x").exit_code == code


def test_one_root() -> None:
    for kind in kinds():
        assert kind.__mro__[-4:] == (ObsError, Exception, BaseException, object)
        assert kind.__doc__
