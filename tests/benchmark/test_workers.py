import os
import warnings

import numpy as np
import pytest
from threadpoolctl import threadpool_info

from benchmark_files import write_arrays
from trustvlm.benchmark import load_arrays, run_study
from trustvlm.benchmark.run import Workers
from trustvlm.environment import usable_cores
from trustvlm.exceptions import InputError, TrustVLMWarning


def started_at_once(*plugins):
    """Two processes that start after the first task, however short that was."""
    return Workers(2, plugins, start_seconds=0.0)


def blas_threads():
    return {pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"}


def describe(number):
    np.ones((2, 2)) @ np.ones((2, 2))
    return number, os.getpid(), blas_threads()


def complain(number):
    warnings.warn(f"number {number}", TrustVLMWarning, stacklevel=1)


def refuse(number):
    raise InputError(f"Expected another number than {number}.")


def test_tasks_keep_their_order_and_have_one_thread_each():
    described = list(started_at_once().map(describe, [(i,) for i in range(8)]))
    assert [number for number, _, _ in described] == list(range(8))
    assert described[0][1] == os.getpid()
    assert os.getpid() not in {process for _, process, _ in described[1:]}
    assert all(threads <= {1} for _, _, threads in described)


def test_processes_that_have_started_do_all_that_follows():
    workers_ = started_at_once()
    list(workers_.map(describe, [(1,), (2,), (3,)]))
    ((_, process, _),) = workers_.map(describe, [(4,)])
    assert process != os.getpid()


def test_little_work_stays_here():
    described = list(Workers(jobs=2).map(describe, [(i,) for i in range(4)]))
    assert {process for _, process, _ in described} == {os.getpid()}
    assert list(Workers(jobs=2).map(describe, [])) == []


def test_threads_are_as_before_afterwards():
    before = blas_threads()
    for _ in Workers().map(describe, [(1,)]):
        assert blas_threads() == before


def test_warnings_and_errors_of_other_processes_arrive():
    with pytest.warns(TrustVLMWarning) as caught:
        list(started_at_once().map(complain, [(1,), (2,), (3,)]))
    assert [str(warning.message) for warning in caught] == ["number 1", "number 2", "number 3"]
    with pytest.raises(InputError, match="Expected another number than 1"):
        list(started_at_once().map(refuse, [(1,), (2,)]))
    with pytest.raises(InputError, match="at least one job, but got 0"):
        Workers(jobs=0)
    assert usable_cores() >= 1


def test_rows_and_verdicts_do_not_depend_on_the_number_of_processes(tmp_path):
    support = load_arrays(write_arrays(tmp_path / "train.npz", 1, n=60))
    tests = [load_arrays(write_arrays(tmp_path / "test.npz", 2))]
    plugin = tmp_path / "plugin.py"
    plugin.write_text(
        "from trustvlm.scores import ScoreResult, register\n"
        '@register("first_logit", formula="z_1", source="a test")\n'
        "def first_logit(evidence):\n"
        '    """The first logit."""\n'
        "    return ScoreResult(evidence.logits.argmax(axis=1), evidence.logits[:, 0])\n"
    )
    from trustvlm.plugins import load_plugin
    from trustvlm.scores import unregister

    load_plugin(plugin)
    try:
        here, apart = (
            run_study(support, tests, shots=(1, 4), draws=2, workers=workers)
            for workers in (Workers(1, (plugin,)), started_at_once(plugin))
        )
    finally:
        unregister("first_logit")
    assert here.rows == apart.rows
    assert {row["score"] for row in here.rows} > {"first_logit", "auto", "trustvlm"}
    first, second = here.verdict_arrays(), apart.verdict_arrays()
    assert first.keys() == second.keys()
    for key, values in first.items():
        np.testing.assert_array_equal(values, second[key])
