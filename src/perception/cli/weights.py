# SPDX-License-Identifier: Apache-2.0
"""``perception weights``: import a published ONNX file's weights, or blend two weights files."""

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
    blending = actions.add_parser(
        "blend",
        help="mix two weights files of the same network",
        description="Write (1 - share) of the first file and share of the second: between a network and its fine-tuned "
        "copy.",
    )
    blending.add_argument("first", type=Path, metavar="FIRST.safetensors")
    blending.add_argument("second", type=Path, metavar="SECOND.safetensors")
    blending.add_argument("--share", type=float, required=True, help="of the second, 0 to 1")
    blending.add_argument("--output", type=Path, required=True, metavar="X.safetensors", help="file to write")
    blending.add_argument("--dtype", choices=("float16", "float32"), default="float16", help="default: %(default)s")
    return parser


def run(args: argparse.Namespace) -> int:
    """Convert or blend, check, and print what came out; raises PerceptionError when something does not fit."""
    if args.output.suffix != ".safetensors":
        raise InputError(f"--output: expected a file ending in .safetensors, got {args.output}")
    return _blend(args) if args.action == "blend" else _import(args)


def _blend(args: argparse.Namespace) -> int:
    from perception.models.blending import blend_files

    parameters = blend_files(args.first, args.second, args.share, args.output, args.dtype)
    print(f"{args.output}: {args.share:g} of {args.second} and {1 - args.share:g} of {args.first}, {args.dtype}")
    data = args.output.read_bytes()
    print(f"{parameters} parameters, {len(data)} bytes, sha256 {hashlib.sha256(data).hexdigest()}")
    return 0


def _import(args: argparse.Namespace) -> int:
    from perception.models.importer import import_network

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
