"""How long a store that does not answer is waited for: seconds before a run has begun, minutes afterwards."""

import threading
import time

import pytest
from support.s3 import Proxy, Server

from lmmpress.errors import AwayError, UserError
from lmmpress.host.patience import PATIENCE, be_patient_from_now, first_patience, patience, seconds_of
from lmmpress.progress import Event, Said, listening
from lmmpress.store import open_store
from lmmpress.store.bucket import BucketObjects


@pytest.mark.parametrize(("text", "seconds"), [("90s", 90), ("10m", 600), ("1h", 3600), ("0.5s", 0.5)])
def test_a_duration_is_a_number_and_its_unit(text: str, seconds: float) -> None:
    assert seconds_of(text) == seconds


@pytest.mark.parametrize("text", ["", "10", "m", "-1m", "10 minutes", "1m30s", "1d"])
def test_anything_else_is_no_duration(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="no duration"):
        seconds_of(text)
    if text:
        monkeypatch.setenv(PATIENCE, text)
        with pytest.raises(UserError, match="LMMPRESS_PATIENCE is"):
            patience()


def test_only_a_process_of_a_run_that_has_begun_waits_long_for_the_first_answer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(PATIENCE, "10m")
    assert (first_patience(), patience()) == (10, 600)
    be_patient_from_now()
    assert first_patience() == 600
    monkeypatch.setenv(PATIENCE, "2s")
    assert first_patience() == 2


def test_a_wrong_address_is_told_at_once_and_a_server_that_is_away_is_waited_for(
    own_server: tuple[Server, Proxy, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    server, _, address = own_server
    monkeypatch.setattr("lmmpress.host.patience._FIRST", 0.3)
    monkeypatch.setattr("lmmpress.store.retries._EVERY", 0.5)
    open_store(address).write_record("something", {})
    server.kill()
    with pytest.raises(AwayError, match="tried for 0 s"):
        open_store(address).read_record("nothing")
    be_patient_from_now()
    said: list[Event] = []
    back = threading.Timer(3, server.start)
    back.start()
    begun = time.monotonic()
    with listening(said.append):
        assert open_store(address).read_record("nothing") is None
    back.join()
    assert time.monotonic() - begun >= 3
    lines = [event.words for event in said if isinstance(event, Said)]
    assert lines, "people hear of it while it lasts"
    assert all("no answer from the server" in line and "more minutes" in line for line in lines)


def test_patience_of_an_object_is_that_of_the_environment(bucket_address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(PATIENCE, "7m")
    assert BucketObjects(bucket_address)._requests._seconds == 420
