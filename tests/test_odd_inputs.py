"""Every odd input comes out as it has to: labelled, as an error, or named in a message."""

from __future__ import annotations

import pytest

import odd_inputs

# What does not come out as it has to yet; a case that does has to leave this list.
NOT_YET: set[str] = set()


@pytest.mark.slow
@pytest.mark.parametrize("group", sorted({case.group for case in odd_inputs.CASES}))
def test_what_comes_out(group, odd_model, tmp_path):
    problems = []
    for i, case in enumerate(odd_inputs.CASES):
        if case.group != group:
            continue
        folder = tmp_path / str(i)
        folder.mkdir()
        outcome = odd_inputs.run(case, *odd_model, folder)
        problem = odd_inputs.mismatch(case, outcome)
        if bool(problem) != (case.name in NOT_YET):
            problems.append(f"{case.name!a}: {problem or 'is right'}; got {outcome!a}")
    assert not problems, "\n".join(problems)
