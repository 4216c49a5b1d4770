# SPDX-License-Identifier: Apache-2.0
"""``perception evaluate``: run the pipeline over recordings and score it where the truth is known."""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path
from typing import Any

from perception.cli.arguments import add_config_arguments, add_labels_argument, add_source_arguments, source_options
from perception.cli.losses import loss_lines
from perception.config import load_config
from perception.errors import InputError, PerceptionError
from perception.evaluation.class_mapping import mapping_notes


def add_parser(subparsers: Any) -> argparse.ArgumentParser:
    """Declare the command."""
    parser = subparsers.add_parser(
        "evaluate",
        help="score the pipeline on recordings",
        description="Run the pipeline over bags or folders and score it where the truth is known: labels of images, of "
        "the fused map and of voxels, occupancy, held-out scans, the costmap, time and memory. Each recording gets a "
        "run folder (summary.json, frames.csv, map.ot, costmap, pictures of the worst frames). Works without truth "
        "too, and says what it could not score.",
    )
    parser.add_argument("source", nargs="+", type=Path, help="bags, folders of frames, or folders of such recordings")
    parser.add_argument("--output", required=True, type=Path, help="folder for the results")
    add_config_arguments(parser)
    parser.add_argument("--model", help="the network, short for --set segmentation.model=NAME")
    add_labels_argument(parser)
    parser.add_argument("--no-report", action="store_true", help="leave out report.html and the tables beside it")
    add_score_arguments(parser)
    add_source_arguments(parser)
    return parser


def add_score_arguments(parser: argparse.ArgumentParser) -> None:
    """Options that say what is scored."""
    group = parser.add_argument_group("scores")
    group.add_argument("--truth-voxels", type=Path, help="true voxels (.npz); default: beside the recording")
    group.add_argument("--class-map", type=Path, help="YAML file: which true class is which class of the map")
    group.add_argument(
        "--held-out", type=int, default=5, metavar="N", help="keep every n-th scan out and predict it; 0: none"
    )
    group.add_argument("--detector", metavar="NAME", help="score this detector, too (recordings with true objects)")
    group.add_argument(
        "--objects",
        type=Path,
        metavar="FILE|/TOPIC",
        help="true objects: COCO JSON for a folder (default: its *.instance.png), a topic of vision_msgs/"
        "Detection2DArray for a bag (default: …/ground_truth/detections)",
    )
    group.add_argument("--object-map", type=Path, help="YAML file: which true object is which class of the detector")
    group.add_argument("--worst", type=int, default=6, metavar="N", help="pictures of so many worst frames")


def evaluation_options(arguments: argparse.Namespace, tolerance_s: float) -> Any:
    """The EvaluationOptions that the arguments name."""
    from perception.evaluate import EvaluationOptions
    from perception.evaluation.detection_run import DetectionOptions
    from perception.evaluation.run_scores import ScoreOptions

    scores = ScoreOptions(arguments.class_map, arguments.held_out, arguments.worst)
    source = source_options(arguments, tolerance_s)
    if arguments.detector is None and (arguments.objects or arguments.object_map):
        raise InputError("--objects and --object-map: expected --detector, the network that is scored against them")
    objects = None
    if arguments.detector:
        objects = DetectionOptions(arguments.detector, arguments.objects, arguments.object_map)
    return EvaluationOptions(arguments.labels, arguments.truth_voxels, scores, source, objects)


def run(arguments: argparse.Namespace) -> int:
    """Evaluate every source; 1 when one of several failed."""
    chosen = [f"segmentation.model={arguments.model}"] if arguments.model else []
    config = load_config(arguments.config, [*chosen, *arguments.set])
    options = evaluation_options(arguments, config.cloud.sync_tolerance)
    from perception.evaluation.recordings import find_recordings

    described = arguments.source_config is not None
    sources = [path for source in arguments.source for path in find_recordings(source, described)]
    code = 0
    if len(sources) == 1:
        _evaluate(sources[0], arguments.output, config, options)
    else:
        code = _evaluate_all(sources, arguments.output, config, options)
    if not arguments.no_report:
        from perception.report.write import write_report

        print(f"report: {write_report([arguments.output], arguments.output / 'report.html')[0]}")
    return code


def _evaluate_all(sources: list[Path], output: Path, config: Any, options: Any) -> int:
    from perception.evaluation.run_folder import (
        EVALUATION,
        FORMAT,
        begin_evaluation,
        claim_folder,
        expect_outside,
        finish,
    )

    expect_outside(output, sources)
    claim_folder(output, EVALUATION)
    begin_evaluation(output)
    done, failed = {}, {}
    for number, source in enumerate(sources):
        name = f"{number:02d}_{re.sub(r'[^A-Za-z0-9._-]+', '_', source.resolve().stem)}"
        try:
            done[name] = _evaluate(source, output / name, config, options)
        except PerceptionError as error:
            # One bad recording of a thousand must not cost the others.
            why = " ".join(str(error).split())
            print(f"perception: {why if why.startswith(str(source)) else f'{source}: {why}'}", file=sys.stderr)
            failed[str(source)] = str(error)
    if not done:
        raise InputError(f"none of {len(sources)} recordings could be evaluated")
    means = mean_scalars(list(done.values()))
    finish(output, EVALUATION, {"format": FORMAT, "runs": list(done), "failed": failed, "means": means})
    print(f"{len(done)} of {len(sources)} recordings evaluated: {output}/")
    return 1 if failed else 0


def mean_scalars(summaries: list[dict[str, Any]]) -> dict[str, float]:
    """Mean of each headline number over the runs that have it."""
    values: dict[str, list[float]] = {}
    for summary in summaries:
        for name, scalar in summary["scalars"].items():
            values.setdefault(name, []).append(float(scalar["value"]))
    return {name: sum(found) / len(found) for name, found in values.items()}


def _evaluate(source: Path, output: Path, config: Any, options: Any) -> dict[str, Any]:
    from tqdm import tqdm

    from perception.evaluate import evaluate

    with tqdm(unit="frame", desc=source.name) as bar:
        summary = evaluate(source, output, config, options, bar.update)
    print_summary(summary)
    print(f"run folder: {output}/")
    return summary


def print_summary(summary: dict[str, Any]) -> None:
    """The headline numbers, and what could not be scored."""
    source = summary["source"]
    frames = f"{source['frames']} frame{'s' if source['frames'] != 1 else ''}"
    print(f"{summary['name']}: {frames}, {source['recording_seconds']:.1f} s recorded")
    # What broke off is told in the note.
    for line in loss_lines(source["dropped"], source["warnings"], source["details"], source["note"]):
        print(f"  {line}")
    if source["note"]:
        print(f"  {source['note']}")
    width = max((len(scalar["title"]) for scalar in summary["scalars"].values()), default=0)
    for scalar in summary["scalars"].values():
        value = scalar["value"]
        number = f"{value:,.0f}" if float(value).is_integer() and abs(value) >= 10 else f"{value:.4g}"
        print(f"  {scalar['title']:{width}}  {number} {scalar['unit']}")
    for line in mapping_notes(summary["truth"]):
        print(f"  {line}")
    for sentence in summary["not_scored"]:
        print(f"  not scored: {sentence}")
