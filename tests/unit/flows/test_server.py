"""Prefect's server of our own: where it may start."""

import pytest

from pipeline.flows import server


def test_the_server_of_a_schedule_that_was_killed_keeps_no_new_one_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It lives on, answers at the port, and is ended as all that nobody looks after."""
    alive = ["schedule-server"]

    def end(*, own: bool) -> None:
        assert not own
        alive.clear()

    def start(*_: object) -> None:
        raise InterruptedError("it starts")

    monkeypatch.setattr(server, "set_up_prefect", lambda: None)
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    monkeypatch.setattr(server, "answers", lambda _: bool(alive))
    monkeypatch.setattr(server, "end_leftovers", end)
    monkeypatch.setattr(server, "_start_server", start)
    with pytest.raises(InterruptedError, match="it starts"), server.prefect_server(4200):
        pass


def test_another_server_at_the_port_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "set_up_prefect", lambda: None)
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    monkeypatch.setattr(server, "answers", lambda _: True)
    monkeypatch.setattr(server, "end_leftovers", lambda *, own: [])
    with (
        pytest.raises(server.ServerError, match=r"a Prefect server answers at .* already"),
        server.prefect_server(4200),
    ):
        pass
