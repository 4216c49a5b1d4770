# SPDX-License-Identifier: Apache-2.0
"""Says what is wrong with a graph that was looked at, and what to do about it. Pure: no node, no topic."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING

from perception.errors import TransformError
from perception.image_codec import COLOR_ENCODINGS, DEPTH_ENCODINGS
from perception.ros.findings import Finding, error, ok, warning

if TYPE_CHECKING:
    from perception.ros.graph_view import GraphView, Stream

MIN_RATE = 5.0
MAX_AGE_S = 1.0
"""An image that is older when it comes is of another clock, or of an overloaded camera."""
OTHER_CLOCK_S = 10.0
FUTURE_S = 0.05
"""Further in the future a stamp cannot be by jitter alone."""
ERROR_LEVEL = 2


@dataclass(frozen=True)
class Expected:
    """What the nodes are set up for; the names of their parameters.

    Attributes:
        frame_id: fixed frame of the map.
        base_frame_id: frame of the robot.
        sync_tolerance_s: largest difference of stamps of image and depth.
        transform_timeout_s: how long a frame waits for its transform.
        depth_registered: depth has the pixels of image.
    """

    frame_id: str = "map"
    base_frame_id: str = "base_footprint"
    sync_tolerance_s: float = 0.02
    transform_timeout_s: float = 0.2
    depth_registered: bool = True


def judge(view: GraphView, expected: Expected) -> list[Finding]:
    """All findings about a graph, in the order in which data flows."""
    checks: list[Callable[[], Iterator[Finding]]] = [
        lambda: _nodes(view),
        lambda: _time(view),
        *(lambda role=role, stream=stream: _stream(role, stream, view) for role, stream in view.streams.items()),
        lambda: _agreement(view, expected),
        lambda: _mismatches(view),
        lambda: _transforms(view, expected),
        lambda: _statuses(view),
    ]
    return [finding for check in checks for finding in check()]


def _nodes(view: GraphView) -> Iterator[Finding]:
    if not view.states:
        advice = "ros2 launch perception bringup.launch.py, or give --namespace"
        yield warning("nodes", f"none of our nodes runs among {len(view.nodes)} nodes of the graph", advice)
    for name, state in sorted(view.states.items()):
        if state == "active":
            yield ok("nodes", f"{name} is active")
        elif state:
            advice = f"ros2 lifecycle set {name} {'activate' if state == 'inactive' else 'configure'}; its log says why"
            yield error("nodes", f"{name} is {state}, so it does nothing", advice)
        else:
            yield error("nodes", f"{name} does not answer", "look at its log, or start it again")
    for name, count in Counter(view.nodes).items():
        if count > 1:
            yield error("nodes", f"{count} nodes are called {name}", "end all but one, or give them namespaces")


def _time(view: GraphView) -> Iterator[Finding]:
    simulated = sorted(name for name, value in view.sim_time.items() if value)
    real = sorted(name for name, value in view.sim_time.items() if not value)
    if view.clocks > 1:
        yield error("time", f"{view.clocks} publishers of /clock", "end all but one: player or simulation")
    if simulated and not view.clocks:
        advice = "start the player or the simulation, or set use_sim_time to false"
        yield error("time", f"use_sim_time is true in {_some(simulated)}, but nobody publishes /clock", advice)
    ours_real = [name for name in real if name in view.states]
    if view.clocks and ours_real:
        advice = "start them with use_sim_time:=true"
        yield error("time", f"/clock is published, but {_some(ours_real)} takes the machine's time", advice)
    elif simulated and real and view.clocks:
        advice = "all nodes of a graph should take the same time"
        yield warning("time", f"use_sim_time is true in {_some(simulated)} and false in {_some(real)}", advice)
    elif view.clocks == 1:
        yield ok("time", "/clock has one publisher, and our nodes follow it")


def _stream(role: str, stream: Stream, view: GraphView) -> Iterator[Finding]:
    kind = "CameraInfo" if role.endswith("camera_info") else "Image"
    fitting = {f"sensor_msgs/msg/{kind}"} | ({"sensor_msgs/msg/CompressedImage"} if kind == "Image" else set())
    if not stream.publishers:
        similar = sorted(name for name, types in view.topics.items() if fitting & set(types) and name != stream.name)
        advice = f"remap it with {role}:=TOPIC; topics of that type: {', '.join(similar) or 'none'}"
        yield error(role, f"nobody publishes {stream.name}", advice)
        return
    if not fitting & set(stream.types):
        yield error(role, f"{stream.name} is {', '.join(stream.types)}, not {kind}", "remap it to another topic")
        return
    if stream.publishers > 1:
        yield warning(role, f"{stream.publishers} publishers of {stream.name}", "frames of several cameras get mixed")
    if stream.bad_stamp:
        yield error(role, f"{stream.name}: {stream.bad_stamp}", "have the driver set it: the nodes drop such messages")
    if stream.last is None and stream.bad_stamp:
        return
    if stream.last is None:
        advice = "is the driver working? ros2 topic hz says the same without us; look at discovery and the firewall"
        yield error(role, f"no message on {stream.name} in {view.seconds:.0f} s", advice)
        return
    rate = len(stream.stamps_ns) / view.seconds
    text = f"{stream.name}: {rate:.1f} per second, {_describe(stream)}, frame {stream.last.header.frame_id!r}"
    if rate < MIN_RATE and kind == "Image":
        yield warning(role, text, f"less than {MIN_RATE:.0f} per second: the robot sees obstacles late")
    else:
        yield ok(role, text)
    yield from _content(role, stream)
    yield from _stamps(role, stream, view)


def _describe(stream: Stream) -> str:
    last = stream.last
    if hasattr(last, "encoding"):
        return f"{last.width}×{last.height} {last.encoding}"
    return last.format if hasattr(last, "format") else f"{last.width}×{last.height}"


def _content(role: str, stream: Stream) -> Iterator[Finding]:
    last = stream.last
    if not last.header.frame_id:
        yield error(role, f"{stream.name} has no frame_id", "set the frame in the driver")
    encodings = DEPTH_ENCODINGS if role == "depth" else COLOR_ENCODINGS
    if hasattr(last, "encoding") and last.encoding not in encodings:
        advice = f"have the driver publish one of {', '.join(sorted(encodings))}"
        yield error(role, f"{stream.name} has encoding {last.encoding!r}, which is not {role}", advice)
    if stream.problem:
        yield error(role, f"{stream.name}: {stream.problem}", "calibrate the camera, or correct its calibration file")
    elif stream.camera is not None:
        camera = stream.camera
        if not (0 < camera.cx < camera.width and 0 < camera.cy < camera.height):
            text = f"{stream.name}: the principal point ({camera.cx:.0f}, {camera.cy:.0f}) is outside the image"
            yield error(role, text, "is the calibration of another resolution?")


def _stamps(role: str, stream: Stream, view: GraphView) -> Iterator[Finding]:
    age_s = median(stream.ages_s)
    if not any(stream.stamps_ns):
        yield error(role, f"{stream.name} has no stamps", "set header.stamp in the driver")
    elif abs(age_s) > OTHER_CLOCK_S:
        advice = "recordings need /clock and use_sim_time:=true" if not view.clocks else "is it not of this recording?"
        yield error(role, f"stamps of {stream.name} are {age_s:.0f} s behind the clock", advice)
    elif age_s < -FUTURE_S:
        advice = "synchronize the clocks of camera and computer (chrony)"
        yield error(role, f"stamps of {stream.name} are {-age_s:.2f} s in the future", advice)
    elif age_s > MAX_AGE_S:
        advice = "synchronize the clocks of camera and computer (chrony), or lower rate and resolution"
        yield warning(role, f"messages of {stream.name} come {age_s:.1f} s after their stamp", advice)
    if any(later < earlier for earlier, later in zip(stream.stamps_ns, stream.stamps_ns[1:], strict=False)):
        yield warning(role, f"stamps of {stream.name} jump back", "a recording that loops, or two publishers")


def _agreement(view: GraphView, expected: Expected) -> Iterator[Finding]:
    """Whether image, depth and calibration belong together."""
    image, depth, info = (view.streams.get(role) for role in ("image", "depth", "camera_info"))
    raw = [stream for stream in (image, depth) if stream is not None and hasattr(stream.last, "encoding")]
    if info is not None and info.last is not None:
        for stream in raw if expected.depth_registered else raw[:1]:
            sizes = [f"{last.width}×{last.height}" for last in (stream.last, info.last)]
            if sizes[0] != sizes[1]:
                advice = "depth must be aligned to color (align_depth.enable:=true), or depth_registered false"
                text = f"{stream.name} is {sizes[0]}, {info.name} {sizes[1]}"
                yield error("agreement", text, "take the camera_info of this image" if stream is image else advice)
    if image is None or depth is None or image.last is None or depth.last is None:
        return
    frames = [stream.last.header.frame_id for stream in (image, depth)]
    if expected.depth_registered and frames[0] != frames[1]:
        advice = "have the driver align depth to color, or set depth_registered to false"
        yield error("agreement", f"image has frame {frames[0]!r}, depth {frames[1]!r}", advice)
    apart_s = median(min(abs(a - b) for b in depth.stamps_ns) for a in image.stamps_ns) / 1e9
    if apart_s > expected.sync_tolerance_s:
        advice = "switch synchronization on in the driver (enable_sync:=true), or raise sync_tolerance"
        text = f"stamps of image and depth are {apart_s * 1e3:.0f} ms apart, sync_tolerance is "
        yield error("agreement", f"{text}{expected.sync_tolerance_s * 1e3:.0f} ms", advice)
    else:
        yield ok("agreement", f"stamps of image and depth are {apart_s * 1e3:.1f} ms apart")


def _mismatches(view: GraphView) -> Iterator[Finding]:
    for topic, publisher, subscriber, reason in view.mismatches:
        advice = f"set qos_overrides.{topic}.subscription.* (or .publisher.*) of one of them"
        yield error("QoS", f"{subscriber} cannot hear {publisher} on {topic}: {reason}", advice)
    if view.states and not view.mismatches:
        yield ok("QoS", "all publishers and subscribers of our nodes fit together")


def _transforms(view: GraphView, expected: Expected) -> Iterator[Finding]:
    lead = next((view.streams[role] for role in ("depth", "image") if _has_message(view, role)), None)
    if lead is None:
        return
    sensor, newest = lead.last.header.frame_id, max(lead.stamps_ns)
    frames = view.transforms.frames()
    if not frames:
        yield error("TF", "no transform came", "start localization and robot_state_publisher")
        return
    pairs = {(expected.frame_id, sensor), (expected.base_frame_id, sensor), (expected.frame_id, expected.base_frame_id)}
    for target, source in sorted(pairs):
        missing = sorted({target, source} - frames)
        if missing:
            advice = (
                f"frames there are: {', '.join(sorted(frames))}; set frame_id and base_frame_id, or start who sends it"
            )
            yield error("TF", f"no transform names {', '.join(map(repr, missing))}", advice)
            continue
        # The newest stamps may come before their transforms.
        problem = None
        for stamp_ns in sorted(lead.stamps_ns, reverse=True):
            try:
                view.transforms.lookup(target, source, stamp_ns)
            except TransformError as caught:
                problem = problem or caught
            else:
                late_s = (newest - stamp_ns) / 1e9
                yield _lateness(target, source, late_s, expected)
                break
        else:
            yield _no_transform(problem, view)


def _lateness(target: str, source: str, late_s: float, expected: Expected) -> Finding:
    text = f"{source} to {target} is known {late_s * 1e3:.0f} ms after a stamp" if late_s else f"{source} to {target}"
    if late_s > expected.transform_timeout_s:
        advice = f"raise transform_timeout (now {expected.transform_timeout_s} s), or publish transforms faster"
        return error("TF", text, advice)
    return ok("TF", text)


def _no_transform(problem: TransformError | None, view: GraphView) -> Finding:
    reason = problem.reason if problem is not None else ""
    advice = {
        "no_tf": "a link of the chain map → odom → base → camera is missing: start who publishes it",
        "extrapolation_future": "its transforms are older than the images: another clock, or the publisher has stopped",
        "extrapolation_past": "the images are older than all transforms: another clock, or the camera is far behind",
    }.get(reason, "")
    late = {child: age for child, age in view.transform_ages_s.items() if abs(age) > MAX_AGE_S}
    if late:
        advice += "; " + ", ".join(f"{child} comes {age:.1f} s after its stamp" for child, age in sorted(late.items()))
    return error("TF", str(problem), advice)


def _has_message(view: GraphView, role: str) -> bool:
    stream = view.streams.get(role)
    return stream is not None and stream.last is not None


def _statuses(view: GraphView) -> Iterator[Finding]:
    for name, (level, message) in sorted(view.statuses.items()):
        if level >= ERROR_LEVEL:
            yield error("diagnostics", f"{name}: {message}", "see /diagnostics for the numbers")
        elif level:
            yield warning("diagnostics", f"{name}: {message}", "see /diagnostics for the numbers")
        else:
            yield ok("diagnostics", f"{name}: {message}")


def _some(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
