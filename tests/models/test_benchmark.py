# SPDX-License-Identifier: Apache-2.0
"""Speed of networks: what is counted, compared and left out."""

from __future__ import annotations

import importlib.util
import json
import shutil

import numpy as np
import pytest

from perception.cli.arguments import parse_size
from perception.cli.bench_model import row, summary
from perception.cli.main import main
from perception.errors import InputError
from perception.models import benchmark
from perception.models.benchmark import Costs, Result, Variant, benchmark_segmenter, fastest_that_agrees

IMAGES = [np.full((30, 40, 3), value, np.uint8) for value in (40, 200)]


def test_costs_of_a_convolution_are_those_counted_by_hand():
    torch = pytest.importorskip("torch")
    from perception.models.costs import count_costs

    layer, image = torch.nn.Conv2d(3, 4, 3, padding=1), torch.zeros(1, 3, 8, 8)
    costs = count_costs(lambda: layer(image)[:, 1:])
    # 4 · 8 · 8 outputs of 27 products and sums; 27 · 4 weights and 4 biases; the slice moves nothing.
    assert costs == Costs(parameters=112, flops=2 * 256 * 27, bytes_moved=4 * (192 + 108 + 4 + 256))
    with torch.inference_mode():
        assert count_costs(lambda: layer(image)) == costs
    assert count_costs(lambda: None) is None


def test_a_parameter_that_is_used_twice_counts_once():
    torch = pytest.importorskip("torch")
    from perception.models.costs import count_costs

    layer, vector = torch.nn.Linear(5, 5, bias=False), torch.zeros(1, 5)
    costs = count_costs(lambda: layer(layer(vector)))
    assert costs is not None
    assert (costs.parameters, costs.flops) == (25, 2 * 2 * 25)


def test_fastest_is_chosen_among_those_that_agree():
    torch_row = Result("torch eager", 64, 64, frame_ms=20.0, agreement=1.0)
    close = Result("onnxruntime", 64, 64, frame_ms=10.0, agreement=0.995)
    wrong = Result("openvino bfloat16", 64, 64, frame_ms=5.0, agreement=0.9949)
    absent = Result("openvino", 64, 64, skipped="openvino is not installed")
    assert fastest_that_agrees([torch_row, close, wrong, absent]) is close
    assert fastest_that_agrees([wrong, absent]) is None
    # Without PyTorch nothing is known about agreement.
    assert fastest_that_agrees([Result("onnxruntime", 64, 64, frame_ms=10.0)]) is None


def test_rows_say_why_something_was_not_measured():
    absent = Result("openvino", 64, 48, skipped="openvino is not installed")
    assert row(absent).startswith("| 64x48 | openvino | not measured: openvino is not installed |")
    assert "| 99.50% |" in row(Result("onnxruntime", 64, 48, frame_ms=10.0, agreement=0.995))
    measured = Result("torch eager", 64, 48, frame_ms=9.0, agreement=1.0, costs=Costs(2_000_000, 3_000_000_000, 10**7))
    assert summary([measured, absent]) == [
        "64x48: 2 M parameters, 3 GFLOPs, 10 MB moved; fastest that agrees to 99.5%: torch eager, 9.0 ms"
    ]


def test_libraries_and_compilers_that_are_not_there_are_named(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *_: None if name == "openvino" else object())
    monkeypatch.setattr(shutil, "which", lambda name: None)
    results = list(
        benchmark_segmenter(
            "default",
            [(64, 64)],
            IMAGES,
            variants=[Variant("openvino", "openvino"), Variant("torch compiled", "torch", "compiled")],
        )
    )
    assert [result.skipped for result in results] == [
        "openvino is not installed: pip install 'perception[openvino]'",
        "no C++ compiler is installed",
    ]
    assert all(result.frame_ms is None and result.agreement is None for result in results)


@pytest.mark.parametrize("text", ["512", "0x64", "64x", "x", "axb", "-64x64", "64x9999"])
def test_sizes_that_are_none_are_refused(text):
    with pytest.raises(InputError, match="expected WIDTHxHEIGHT in pixels"):
        parse_size(text, "--input-size")


def test_size_is_width_by_height():
    assert parse_size("640x480", "--input-size") == (480, 640)


@pytest.mark.parametrize("change", [{"sizes": []}, {"images": []}, {"repeats": 0}])
def test_nothing_to_measure_with_is_refused(change):
    given = {"sizes": [(64, 64)], "images": IMAGES, "repeats": 1} | change
    with pytest.raises(InputError, match="expected images, input sizes and repeats"):
        next(benchmark_segmenter("default", given["sizes"], given["images"], repeats=given["repeats"]))


def test_command_measures_in_processes_of_their_own_and_writes_what_it_prints(tmp_path, capsys):
    for module in ("torch", "onnxruntime"):
        pytest.importorskip(module)
    path = tmp_path / "bench.json"
    arguments = ["bench", "model", "default", "--input-size", "64x48", "--count", "2", "--repeats", "2"]
    assert main([*arguments, "--backend", "onnxruntime", "--json", str(path)]) == 0
    printed = capsys.readouterr().out
    data = json.loads(path.read_text())
    reference, other = data["results"]
    assert (reference["variant"], other["variant"]) == ("torch eager", "onnxruntime")
    assert (reference["width"], reference["height"]) == (64, 48)
    assert reference["agreement"] == 1.0
    assert other["agreement"] > 0.995
    assert reference["costs"]["parameters"] == 2_256_272
    # 10.0 GFLOPs at 512×512, by the area; image pooling aside.
    assert reference["costs"]["flops"] > 1e8
    assert 0 < other["network_ms"] < other["frame_ms"] * 1.5
    # PyTorch alone takes more than 200 MB; this process has not lent its peak to the other.
    assert other["peak_memory_mb"] < reference["peak_memory_mb"]
    assert "64x48: 2.26 M parameters" in printed


def test_unknown_network_and_backend_end_with_a_sentence(capsys, monkeypatch):
    assert main(["bench", "model", "--backend", "tvm"]) == 1
    assert "--backend: expected some of" in capsys.readouterr().err
    monkeypatch.setattr(benchmark, "_missing", lambda variant: "nothing is installed")
    assert main(["bench", "model", "--input-size", "64x64", "--count", "1"]) == 1
    assert "nothing could be measured (nothing is installed)" in capsys.readouterr().err


def test_an_error_of_the_network_is_the_reason_in_its_row():
    pytest.importorskip("onnxruntime")
    variants = [Variant("onnxruntime", "onnxruntime")]
    (result,) = benchmark_segmenter("no_such_network", [(64, 64)], IMAGES, variants=variants, repeats=1)
    assert "network 'no_such_network': expected one of" in result.skipped
