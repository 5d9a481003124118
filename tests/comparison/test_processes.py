"""Worker processes: what becomes of a request to end."""

from __future__ import annotations

import signal
from types import SimpleNamespace

import pytest

from pyro_relevance.comparison import processes


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="no timers")
@pytest.mark.contract
def test_a_request_that_the_collector_swallowed_is_made_again(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = []
    monkeypatch.setattr(signal, "setitimer", lambda kind, seconds: asked.append((kind, seconds)))
    swallowed = SimpleNamespace(exc_type=processes._Ended)
    processes._not_raised(swallowed)
    assert asked == [(signal.ITIMER_REAL, 0.01)]
    assert capsys.readouterr().err == ""
