"""W&B servers that are not there, do not answer, or die."""

import socket
import time
from pathlib import Path

import pytest
import wandb
from support.wandb_server import Server

from runs.loggers import close_loggers, unsent, wandb_logger

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def afresh() -> None:
    """W&B remembers the settings of the process's first run."""
    wandb.teardown()


@pytest.mark.parametrize("server", ["is not there", "never answers"])
def test_a_run_goes_on_offline_where_wandb_cannot_be_reached(
    server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """In online mode, with a key."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        if server == "is not there":
            listening.close()
        monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{port}")
        monkeypatch.setenv("WANDB_API_KEY", 40 * "a")
        monkeypatch.delenv("WANDB_MODE", raising=False)
        monkeypatch.setattr("runs.loggers.PATIENCE", 3)
        logger = wandb_logger(str(tmp_path / "run"), "vrnn")
    logger.log_hyperparams({"hidden": 8})
    logger.log_metrics({"val/elbo": -1.0}, step=3)
    told = unsent([logger])
    wandb.finish()
    wandb.teardown()
    (folder,) = (tmp_path / "run" / "wandb").glob("offline-run-*")
    (recorded,) = folder.glob("*.wandb")
    assert b"val/elbo" in recorded.read_bytes()
    assert told == folder and unsent([logger]) is None
    (warning,) = [r.getMessage() for r in caplog.records if r.name == "runs.loggers"]
    assert "recorded offline" in warning and "\n" not in warning


def test_a_run_ends_in_time_where_the_wandb_server_has_died(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """In the middle of it. All is on disk, and the warning says what sends it."""
    server = Server()
    monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("WANDB_API_KEY", 40 * "a")
    monkeypatch.delenv("WANDB_MODE", raising=False)
    monkeypatch.setattr("runs.loggers.END_PATIENCE", 3)
    logger = wandb_logger(str(tmp_path / "run"), "vrnn")
    logger.log_metrics({"val/before": -2.0}, step=3)
    assert server.begun.wait(10) and not logger._offline
    server.die()
    logger.log_metrics({"val/after": -1.0}, step=4)
    began = time.monotonic()
    close_loggers([logger])
    assert time.monotonic() - began < 30 and wandb.run is None
    wandb.teardown()
    (recorded,) = (tmp_path / "run" / "wandb").glob("run-*/*.wandb")
    assert b"val/before" in recorded.read_bytes() and b"val/after" in recorded.read_bytes()
    (warning,) = [r.getMessage() for r in caplog.records if r.name == "runs.loggers"]
    assert "Nothing is lost" in warning and f"wandb sync {recorded.parent}" in warning
