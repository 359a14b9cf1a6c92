from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from trimtab.runtime.seeds import name_of, permutation, rng, uniforms


def test_a_stream_is_its_name():
    assert uniforms(5, 0, "ppo", 3).tolist() == uniforms(5, 0, "ppo", 3).tolist()
    names = [(0, "ppo", 3), (1, "ppo", 3), (0, "ppo", 4), (0, "ppo", "3"), (0, "sft", 3), (0, "ppo"), (0, "ppo", 3, 0)]
    assert len({tuple(uniforms(2, *name)) for name in names}) == len(names)


def test_names_cannot_run_into_each_other():
    names = [
        (0, "ab", "c"),
        (0, "a", "bc"),
        (0, "abc"),
        (0, 1, 23),
        (0, 12, 3),
        (0, 123),
        (0, "1", "23"),
        (0, -1),
        (0, 1),
    ]
    names += [(0, "a", ""), (0, "", "a"), (0, "a"), (0, "i1:1"), (0, "s1:a")]
    assert len({name_of(*name) for name in names}) == len(names)


def test_the_kth_uniform_does_not_depend_on_how_many_are_drawn():
    long = uniforms(1000, 7, "x")
    for n in (0, 1, 2, 3, 17, 999):
        assert np.array_equal(uniforms(n, 7, "x"), long[:n])


def test_uniforms_are_uniform():
    draws = np.concatenate([uniforms(1, 0, "many names", i) for i in range(4000)])
    assert draws.dtype == np.float64 and (draws >= 0).all() and (draws < 1).all()
    counts = np.histogram(draws, 20, (0, 1))[0]
    assert ((counts - 200) ** 2 / 200).sum() < 43.8  # chi-square, 19 degrees of freedom, p = 0.001


def test_permutation():
    assert permutation(0, 1, "a") == [] and permutation(1, 1, "a") == [0]
    order = permutation(50, 1, "a")
    assert sorted(order) == list(range(50)) and order != list(range(50))
    assert order == permutation(50, 1, "a") and order != permutation(50, 1, "b")
    firsts = [permutation(4, 0, i)[0] for i in range(2000)]
    assert ((np.bincount(firsts) - 500) ** 2 / 500).sum() < 16.3  # 3 degrees of freedom, p = 0.001


def test_numbers_are_pinned():
    """A change here breaks the resumption of every run in the world."""
    assert uniforms(2, 0, "stage", 1).tolist() == [0.6219810664477702, 0.44020158276153065]
    assert permutation(6, 0, "stage", 1) == [4, 1, 0, 5, 2, 3]


def test_rng_is_the_same_stream_and_no_global_one():
    before = np.random.get_state()[1].tolist()  # type: ignore[index]
    a, b = rng(3, "a"), rng(3, "a")
    assert a.standard_normal(4).tolist() == b.standard_normal(4).tolist()
    assert np.random.get_state()[1].tolist() == before  # type: ignore[index]


@pytest.mark.parametrize("part", [True, 1.5, None, b"x", ("a",)])
def test_other_parts_are_refused(part: object):
    with pytest.raises(TypeError, match="named by strings and integers"):
        uniforms(1, 0, part)  # type: ignore[arg-type]


def test_another_process_and_no_torch():
    code = (
        "import sys; from trimtab.runtime.seeds import uniforms;"
        "print(uniforms(1, 5, 'é', 2)[0]); assert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert float(done.stdout) == uniforms(1, 5, "é", 2)[0]
