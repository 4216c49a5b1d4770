# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from perception.cli.main import main
from perception.errors import InputError
from perception.models.blending import blend, blend_files
from perception.models.weights import load_arrays, save_arrays

FIRST = {"a.weight": np.full((2, 2, 1, 1), 1.0, np.float32), "a.bias": np.array([0.0, 4.0], np.float32)}
SECOND = {"a.weight": np.full((2, 2, 1, 1), 3.0, np.float32), "a.bias": np.array([2.0, 0.0], np.float32)}


def test_blend_goes_from_the_first_to_the_second():
    quarter = blend(FIRST, SECOND, 0.25)
    assert quarter["a.weight"].tolist() == np.full((2, 2, 1, 1), 1.5).tolist()
    assert quarter["a.bias"].tolist() == [0.5, 3.0]
    for share, expected in ((0.0, FIRST), (1.0, SECOND)):
        found = blend(FIRST, SECOND, share)
        assert all((found[name] == expected[name]).all() for name in expected)


def test_blend_refuses_other_networks_and_shares():
    with pytest.raises(InputError, match="share"):
        blend(FIRST, SECOND, 1.5)
    with pytest.raises(InputError, match="without"):
        blend(FIRST, {"a.weight": SECOND["a.weight"]}, 0.5)
    with pytest.raises(InputError, match="shape"):
        blend(FIRST, {**SECOND, "a.bias": np.zeros(3, np.float32)}, 0.5)


def test_command_writes_half_precision_convolutions(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    first, second, target = (tmp_path / f"{name}.safetensors" for name in ("first", "second", "target"))
    save_arrays(first, FIRST)
    save_arrays(second, SECOND)
    assert main(["weights", "blend", str(first), str(second), "--share", "0.5", "--output", str(target)]) == 0
    assert "6 parameters" in capsys.readouterr().out
    assert load_arrays(target)["a.weight"].max() == 2.0
    blend_files(first, second, 0.5, tmp_path / "whole.safetensors", "float32")
    assert target.stat().st_size < (tmp_path / "whole.safetensors").stat().st_size
    with pytest.raises(InputError, match="dtype"):
        blend_files(first, second, 0.5, target, "int8")
