# SPDX-License-Identifier: Apache-2.0
"""``perception weights import``: takes a published ONNX file's weights into a .safetensors file."""

from __future__ import annotations

import argparse
import hashlib
from pathlib import Path

from perception.errors import InputError


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> argparse.ArgumentParser:
    """Add the command and its options."""
    parser = subparsers.add_parser("weights", help="work with weights files", description=__doc__)
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    importing = actions.add_parser(
        "import",
        help="convert an ONNX file of DeepLabV3+ MobileNetV2 or YOLOX-Nano to .safetensors",
        description="Convert the weights of an ONNX file of DeepLabV3+ on MobileNetV2 or of YOLOX-Nano and check that "
        "the network with them gives the same outputs.",
    )
    importing.add_argument("source", type=Path, metavar="SOURCE.onnx", help="file to read")
    importing.add_argument("--output", type=Path, required=True, metavar="X.safetensors", help="file to write")
    importing.add_argument("--dtype", choices=("float16", "float32"), default="float16", help="default: %(default)s")
    return parser


def run(args: argparse.Namespace) -> int:
    """Convert, check, and print what came out; raises PerceptionError when something does not fit."""
    from perception.models.importer import import_network

    if args.output.suffix != ".safetensors":
        raise InputError(f"--output: expected a file ending in .safetensors, got {args.output}")
    report = import_network(args.source, args.output, args.dtype)
    data = args.output.read_bytes()
    print(f"{args.output}: {report.tensors} tensors, {report.parameters} parameters, {len(data)} bytes, {args.dtype}")
    print(f"sha256 {hashlib.sha256(data).hexdigest()}")
    print(
        f"{report.network}, {report.num_classes} classes; on random input the outputs differ by at most "
        f"{report.max_difference:.2g} before rounding to {args.dtype}, and {report.label_agreement:.3%} of the labels "
        "stay the same after it"
    )
    return 0
