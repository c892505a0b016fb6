"""The engine ray gives what the local engine gives."""

from __future__ import annotations

import io
import os
import signal
import sys
import tempfile
import threading
import time
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import pytest

from bulk_models import OwnProcess, files, rows, write_poison
from bulk_models import files as files_of
from pictures import write_class_folders
from trustvlm.exceptions import InputError, TrustVLMWarning

pytestmark = [
    pytest.mark.ray,
    # Ray warns of itself, and of what it finds on a machine.
    pytest.mark.filterwarnings("default"),
]


@pytest.fixture(scope="module")
def cluster(request):
    if find_spec("moto") and find_spec("s3fs"):
        # Actors have the environment in which the cluster was started, so that comes first.
        request.getfixturevalue("s3_server")
    ray = pytest.importorskip("ray", reason="the engine ray needs the extra ray")
    pytest.importorskip("ray.data")
    from ray.cluster_utils import Cluster

    from trustvlm.bulk.ray_engine import RayEngine

    # A short path, as those of sockets have to be.
    folder = tempfile.TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True)
    with pytest.MonkeyPatch.context() as patch, folder as temporary:
        # The machine may belong to a cluster, which is not to be joined.
        patch.delenv("RAY_ADDRESS", raising=False)
        patch.setenv("RAY_AUTH_MODE", "disabled")
        patch.setenv("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        # Actors import the model of these tests.
        patch.setenv("PYTHONPATH", os.pathsep.join(filter(None, sys.path)))
        patch.setenv("RAY_BACKEND_LOG_LEVEL", "fatal")
        # Where Ray notes the address of its cluster, whatever folder it is given.
        Path(tempfile.gettempdir(), "ray").mkdir(exist_ok=True)
        head = {"num_cpus": 2, "include_dashboard": False, "temp_dir": temporary}
        nodes = Cluster(initialize_head=True, head_node_args=head)
        ray.init(nodes.address, log_to_driver=False, logging_level="ERROR")
        engine = partial(RayEngine, actors=(2, 2))
        engine.nodes = nodes
        try:
            yield engine
        finally:
            ray.shutdown()
            nodes.shutdown()


def test_the_same_files_as_locally_and_resumed(run, photos, cluster, tmp_path):
    sources = [str(photos), str(photos.with_suffix(".tar"))]
    run(sources, tmp_path / "local")
    out = tmp_path / "ray"
    first = run(sources, out, engine=cluster)
    assert files(out) == files(tmp_path / "local")
    assert first.n_images == 94
    for name in list(files(out))[3:6]:
        (out / name).unlink()
    assert run(sources, out, engine=cluster).n_now == 18
    assert files(out) == files(tmp_path / "local")


def test_a_worker_killed_midway_neither_loses_nor_repeats_a_row(run, photos, cluster, tmp_path):
    import ray

    sources = [str(photos), str(photos.with_suffix(".tar"))]
    run(sources, tmp_path / "local")
    out, started = tmp_path / "ray", tmp_path / "started"
    killed = []

    def kill_an_actor():
        for _ in range(15_000):
            time.sleep(0.02)
            done = out / "_trustvlm" / "done.jsonl"
            if done.exists() and done.read_bytes().count(b"\n") >= 2:
                # The parent of a process that loaded the model is an actor of Ray.
                for pid in map(int, started.read_text().split()):
                    try:
                        parent = int(
                            Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1]
                        )
                        os.kill(parent, signal.SIGKILL)
                    except (FileNotFoundError, ProcessLookupError):
                        continue
                    killed.append(parent)
                    return

    killer = threading.Thread(target=kill_an_actor)
    killer.start()
    summary = run(sources, out, engine=cluster, pause=0.15, started=str(started))
    killer.join()
    assert killed
    assert killed[0] != os.getpid()
    assert summary.n_images == 94
    assert files(out) == files(tmp_path / "local")
    assert len(rows(out)) == 94
    assert ray.is_initialized(), "a Ray that was there before is left running"


@pytest.mark.s3
def test_600_pictures_from_and_to_a_bucket_with_an_actor_killed(run, cluster, bucket, tmp_path):
    import s3fs

    files = s3fs.S3FileSystem()
    pictures = write_class_folders(tmp_path / "many", per_class=200, seed=11)
    files.put(f"{pictures}/", f"{bucket}/many/", recursive=True)
    run(pictures, tmp_path / "local", part_size=25)
    out, started, killed = f"{bucket}/out", tmp_path / "started", []

    def kill_an_actor():
        watching = s3fs.S3FileSystem(use_listings_cache=False, skip_instance_cache=True)
        for _ in range(3000):
            time.sleep(0.02)
            if watching.exists(f"{out}/_trustvlm/done"):
                pid = int(started.read_text().split()[-1])
                status = Path(f"/proc/{pid}/stat").read_text()
                killed.append(int(status.rpartition(")")[2].split()[1]))
                os.kill(killed[0], signal.SIGKILL)
                return

    killer = threading.Thread(target=kill_an_actor)
    killer.start()
    settings = {"part_size": 25, "pause": 0.02, "started": str(started)}
    summary = run(f"{bucket}/many", out, engine=cluster, **settings)
    killer.join()
    assert killed
    assert killed[0] != os.getpid()
    assert summary.n_images == 600
    assert summary.errors == {}
    files.invalidate_cache()
    parts = sorted(name for name in files.ls(out, detail=False) if name.endswith(".parquet"))
    remote = {name.rpartition("/")[2]: files.cat_file(name) for name in parts}
    local = files_of(tmp_path / "local")
    assert list(remote) == list(local)
    assert [row for part in remote.values() for row in rows(io.BytesIO(part))] == rows(
        tmp_path / "local"
    )
    assert remote == local
    assert len(rows(tmp_path / "local")) == 600


def test_an_image_that_kills_is_a_row_here_too(run, photos, cluster, tmp_path):
    write_poison(tmp_path / "bad.png")
    (tmp_path / "l.txt").write_text(f"{photos}/red/01.png\nbad.png\n{photos}/red/02.png\n")
    summary = run(tmp_path / "l.txt", tmp_path / "out", engine=cluster, deaths=str(tmp_path / "d"))
    assert summary.errors == {"fatal": 1}
    assert [row["error"] != "" for row in rows(tmp_path / "out")] == [False, True, False]


def test_what_a_worker_refuses_is_said_as_it_is(run, cluster, tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    parquet.write_table(pyarrow.table({"a": [1]}), tmp_path / "p.parquet")
    with pytest.raises(InputError, match="Say which to use"):
        run(tmp_path / "p.parquet", tmp_path / "out", engine=cluster)


@pytest.fixture
def second_node(cluster):
    """A node that `LoadTiny` may refuse; returns its address and identifier."""
    import ray

    before = {node["NodeID"] for node in ray.nodes()}
    node = cluster.nodes.add_node(num_cpus=2, env_vars={"TRUSTVLM_TEST_NODE": "second"})
    (added,) = (node for node in ray.nodes() if node["NodeID"] not in before)
    yield added["NodeID"]
    cluster.nodes.remove_node(node)


def test_a_node_without_the_weights_is_left_out_and_the_job_goes_on(
    run, photos, cluster, second_node, monkeypatch, tmp_path
):
    import ray

    from trustvlm.bulk import ray_engine

    run(photos / "red", tmp_path / "local", engine=OwnProcess)
    # All of the first node is in use until the second has refused.
    (first,) = (node["NodeID"] for node in ray.nodes() if node["NodeID"] != second_node)
    label = {"ray.io/node-id": first}
    holder = ray.remote(threading.Event).options(num_cpus=2, label_selector=label).remote()
    ray.get(holder.is_set.remote())
    leave_out = ray_engine._Nodes.leave_out

    def free_the_first(nodes, node, error):
        assert node == second_node
        ray.kill(holder)
        leave_out(nodes, node, error)

    monkeypatch.setattr(ray_engine._Nodes, "leave_out", free_the_first)
    one = partial(cluster, actors=(1, 1))
    with pytest.warns(TrustVLMWarning, match=r"the Ray node .* is left out: no weights here"):
        run(photos / "red", tmp_path / "ray", engine=one, without_weights="second")
    assert files(tmp_path / "ray") == files(tmp_path / "local")


def test_a_node_of_another_version_is_left_out_from_the_beginning(
    run, photos, cluster, second_node, monkeypatch, tmp_path
):
    from trustvlm.bulk import ray_engine

    faults = ray_engine._faults
    assert faults(ray_engine._Nodes(1, 0)._able()) == {}
    monkeypatch.setattr(ray_engine, "_faults", lambda _: {second_node: "it has trustvlm 0.0"})
    with pytest.warns(TrustVLMWarning, match=r"is left out: it has trustvlm 0\.0"):
        run(photos / "red", tmp_path / "ray", engine=cluster, started=str(tmp_path / "started"))
    assert len(rows(tmp_path / "ray")) == 15
    monkeypatch.setattr(ray_engine, "__version__", "99.0")
    assert "Install trustvlm 99.0" in faults([second_node])[second_node]


def test_settings_are_checked():
    from trustvlm.bulk.ray_engine import RayEngine

    with pytest.raises(InputError, match="fewest <= most"):
        RayEngine(lambda: None, actors=(3, 2))
    with pytest.raises(InputError, match="negative"):
        RayEngine(lambda: None, gpus=-1)


def test_without_an_address_no_recorded_cluster_is_joined(monkeypatch):
    ray = pytest.importorskip("ray", reason="the engine ray needs the extra ray")
    from trustvlm.bulk import ray_engine

    joined = []
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", lambda address, **_: joined.append(address))
    monkeypatch.setattr(ray, "shutdown", lambda: None)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    for address in (None, "auto", "10.0.0.1:6379"):
        with ray_engine._connected(address):
            pass
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.2:6379")
    with ray_engine._connected(None):
        pass
    # Ray itself reads the variable.
    assert joined == ["local", "auto", "10.0.0.1:6379", None]
