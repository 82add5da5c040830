"""What travels to another machine, and which cells may."""

from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from uuid import UUID

import pytest
from httpx import ConnectError, HTTPStatusError, Request, Response
from prefect.client import orchestration
from prefect.exceptions import ObjectNotFound
from prefect.states import Completed

from pipeline.flows import remote
from pipeline.flows.graph import GraphError, StageGraph
from pipeline.flows.remote import (
    CellOrder,
    ExchangeError,
    code_digest,
    enter_checkout,
    order_cell,
    ready_cells,
    require_remote,
    run_cell,
)
from pipeline.flows.stage_runs import Stop

LOCK = """\
schema: '2.0'
stages:
  prepare@a:
    cmd: p
    outs:
    - path: data/a/pack
      md5: '1'
  distill@a-64:
    cmd: d
  teach@a:
    cmd: t
"""
GRAPH = StageGraph(
    {
        "prepare@a": (),
        "teach@a": ("prepare@a",),
        "distill@a-64": ("prepare@a", "teach@a"),
        "distill@a-48": ("prepare@a", "teach@a"),
        "evaluate@a-64": ("distill@a-64",),
    },
    {"distill@a-64": ("new",), "evaluate@a-64": ("new",)},
    frozenset({"prepare@a", "teach@a"}),
)


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name, text in (
        ("dvc.yaml", "stages: {}"),
        ("dvc.lock", LOCK),
        ("params.yaml", "threads: 1\n"),
        ("pipeline/one.py", "1"),
        (".dvc/config", "[core]\n    remote = exchange\n"),
    ):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path


def test_an_order_carries_the_lock_entries_of_its_inputs_only(checkout: Path) -> None:
    order = order_cell("distill@a-64", ["prepare@a"], GRAPH.names)
    assert "prepare@a" in order.lock
    assert "distill@a-64" not in order.lock
    assert "teach@a" not in order.lock
    assert order.params == "threads: 1\n"
    assert order.code == code_digest()


def test_a_checkout_with_other_code_refuses_and_changes_nothing(checkout: Path) -> None:
    order = order_cell("distill@a-64", ["prepare@a"], GRAPH.names)
    (checkout / "pipeline/one.py").write_text("2")
    (checkout / "params.yaml").write_text("threads: 2\n")
    with pytest.raises(ExchangeError, match="bring both to one commit"):
        run_cell(order, print)
    assert (checkout / "params.yaml").read_text() == "threads: 2\n"
    assert (checkout / "dvc.lock").read_text() == LOCK


def test_without_a_remote_there_is_no_exchange(checkout: Path) -> None:
    require_remote()
    (checkout / ".dvc/config").write_text("[core]\n    analytics = false\n")
    with pytest.raises(ExchangeError, match="dvc remote add --default"):
        require_remote()
    with pytest.raises(ExchangeError, match="no default remote"):
        run_cell(CellOrder("s", [], "", "", code_digest()), print)


def test_cells_that_are_out_of_date_and_ready_go() -> None:
    assert ready_cells(GRAPH, ["distill"]) == ["distill@a-64"]
    assert ready_cells(GRAPH, ["distill@a-48"]) == []
    with pytest.raises(
        GraphError, match=r"unknown targets: distil; stages: .*groups: distill, evaluate"
    ):
        ready_cells(GRAPH, ["distil"])
    with pytest.raises(ExchangeError, match="l2s study --targets distill@a-64"):
        ready_cells(GRAPH, ["evaluate"])


def test_a_worker_goes_to_its_own_checkout(
    checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir("/")
    monkeypatch.setenv("L2S_CHECKOUT", str(checkout))
    assert enter_checkout() == {"directory": str(checkout)}
    assert Path.cwd() == checkout
    for wrong in ("", str(tmp_path / "none")):
        monkeypatch.setenv("L2S_CHECKOUT", wrong)
        with pytest.raises(ValueError, match=r"L2S_CHECKOUT = .*: must name a checkout"):
            enter_checkout()


def test_a_deployment_that_the_server_does_not_know_is_told_in_words(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Client:
        def read_deployment_by_name(self, name: str) -> None:
            asked = Request("GET", f"http://127.0.0.1/{name}")
            raise ObjectNotFound(HTTPStatusError("404", request=asked, response=Response(404)))

    monkeypatch.setattr(orchestration, "get_client", lambda **_: nullcontext(Client()))
    with pytest.raises(ExchangeError, match="--deployment cell/typo: the Prefect server knows"):
        remote._run_orders([], "cell/typo", Stop(), print)


class UnsteadyClient:
    """Of a server that is away for a while, or from the third order on; notes what is cancelled."""

    def __init__(self, *, orders: int) -> None:
        self.orders, self.asked, self.looks = orders, 0, 0
        self.cancelled: list[UUID] = []

    def read_deployment_by_name(self, _: str) -> SimpleNamespace:
        return SimpleNamespace(id=UUID(int=99))

    def create_flow_run_from_deployment(self, *_: object, **__: object) -> SimpleNamespace:
        self.asked += 1
        if self.asked > self.orders:
            raise ConnectError("refused")
        return SimpleNamespace(id=UUID(int=self.asked))

    def read_flow_run(self, _: UUID) -> SimpleNamespace:
        self.looks += 1
        if self.looks < 3:
            raise ConnectError("refused")
        return SimpleNamespace(state=Completed())

    def set_flow_run_state(self, run: UUID, *_: object, **__: object) -> None:
        self.cancelled.append(run)
        if run.int == 1:
            raise ConnectError("refused")


ORDERS = [CellOrder(stage, [], "", "", "") for stage in ("distill@a-64", "distill@a-48")]


def test_a_server_that_is_away_for_a_while_loses_no_cell(monkeypatch: pytest.MonkeyPatch) -> None:
    client, taken = UnsteadyClient(orders=2), []
    monkeypatch.setattr(orchestration, "get_client", lambda **_: nullcontext(client))
    monkeypatch.setattr(remote, "LOOK_EVERY_S", 0.01)
    monkeypatch.setattr(remote, "_take_result", lambda stage, *_: not taken.append(stage))
    assert remote._run_orders(ORDERS, "cell/a", Stop(), print) == []
    assert sorted(taken) == ["distill@a-48", "distill@a-64"]
    assert client.cancelled == []


def test_an_order_that_fails_cancels_those_before_it(monkeypatch: pytest.MonkeyPatch) -> None:
    client = UnsteadyClient(orders=1)
    monkeypatch.setattr(orchestration, "get_client", lambda **_: nullcontext(client))
    with pytest.raises(ConnectError):
        remote._run_orders(ORDERS, "cell/a", Stop(), print)
    assert client.cancelled == [UUID(int=1)]  # though that failed, too
