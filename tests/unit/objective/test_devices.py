"""What is asked of a device elsewhere and what it answers: as JSON both ways, by version, and bad input in one line."""

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prunefleet.objective.devices import (
    MeasurementAnswer,
    MeasurementProtocol,
    MeasurementRequest,
    NetworkFile,
    device_names,
    device_of,
    queue,
    sweep_name,
)
from prunefleet.objective.errors import BadInput
from prunefleet.objective.profiles.profile import Curve, DeviceLatencies, Profile
from prunefleet.objective.profiles.space import GroupSpec
from prunefleet.objective.trial import Device, Latency

DEVICE = Device("board", "cpu", "h", "c", 2, 8.0, "linux", {"openvino": "1"}, channel_steps={"f32": 8})
LATENCY = Latency(DEVICE, "f32", 0.5, 0.4, 0.6, 1.0, 1.1, 1.2, 1.3, 2.0, 2.1, 900.0, 40)
NETWORK = NetworkFile("0" * 64, (1, 3, 8, 8), "f32")
REQUEST = MeasurementRequest("board", (NETWORK, NETWORK), MeasurementProtocol(seed=3))
networks = st.builds(
    NetworkFile,
    st.text("0123456789abcdef", min_size=64, max_size=64),
    st.lists(st.integers(1, 999), max_size=4).map(tuple),
    st.sampled_from(("f32", "bf16", "default")),
)
protocols = st.builds(
    MeasurementProtocol,
    st.sampled_from(("openvino_cpu", "command")),
    st.integers(1, 64),
    st.floats(0, 600),
    st.floats(0, 600),
    st.integers(1, 9),
    st.integers(0, 99),
)
requests = st.builds(
    MeasurementRequest,
    st.from_regex(r"[a-zA-Z0-9][a-zA-Z0-9_.-]{0,63}", fullmatch=True),
    st.one_of(st.just(()), st.lists(networks, min_size=2, max_size=4).map(tuple)),
    protocols,
    st.dictionaries(st.text(), st.text()),
)


@given(requests)
def test_a_request_arrives_as_it_was_sent(request: MeasurementRequest) -> None:
    """Through JSON and back it is equal, and has the same key."""
    arrived = MeasurementRequest.read(json.loads(json.dumps(request.to_json())))
    assert arrived == request and arrived.key == request.key


def test_the_key_tells_requests_apart() -> None:
    """Another network, device, protocol or software has another key; the order of expectations is none of it."""
    others = [
        replace(REQUEST, device="other"),
        replace(REQUEST, networks=(NETWORK, replace(NETWORK, sha256="1" * 64))),
        replace(REQUEST, protocol=MeasurementProtocol(seed=4)),
        replace(REQUEST, expects={"openvino": "2"}),
        replace(REQUEST, nonce="a"),
    ]
    assert len({REQUEST.key, *(each.key for each in others)}) == 6
    one, two = replace(REQUEST, expects={"a": "1", "b": "2"}), replace(REQUEST, expects={"b": "2", "a": "1"})
    assert one.key == two.key


def test_an_answer_arrives_as_it_was_given() -> None:
    """Device with its channel grid, sources of energy, and a latency for each network."""
    answer = MeasurementAnswer(DEVICE, ("rapl",), (LATENCY, LATENCY))
    assert MeasurementAnswer.read(json.loads(json.dumps(answer.to_json()))) == answer
    assert answer.expectations() == {"kind": "cpu", "cpu": "c", "accelerator": "None", "openvino": "1"}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"version": 2}, "request.version: got 2; bring both hosts to the same prunefleet: this one reads version 1"),
        ({"version": None}, "request.version: got None"),
        ({"device": "../x"}, "request.device: got '../x'; give a name of letters"),
        ({"networks": [NETWORK.to_json()]}, "request.networks: got 1; give the dense model and at least one"),
        ({"networks": [NETWORK.to_json() | {"sha256": "../../etc/passwd"}] * 2}, "network.sha256"),
        ({"networks": [NETWORK.to_json() | {"precision": "f8"}] * 2}, "network.precision: got 'f8'"),
        ({"protocol": {"runner": "torch_cpu"}}, "measure.runner: got 'torch_cpu'; choose one of openvino_cpu"),
        ({"protocol": {"time_limit_s": 1e9}}, "protocol.time_limit_s"),
        ({"protocol": {"command": "rm -rf /"}}, "MeasurementRequest.protocol.command"),
    ],
)
def test_a_wrong_request_is_one_line(change: dict[str, object], words: str) -> None:
    """The line names the field, the value got and what would be right; a version is looked at first."""
    with pytest.raises(BadInput) as told:
        MeasurementRequest.read(REQUEST.to_json() | change)
    assert words in str(told.value) and "\n" not in str(told.value)


@pytest.mark.parametrize("document", [None, "text", [1]])
def test_what_is_no_request_is_refused(document: object) -> None:
    """A run that somebody enqueued without a request is told so."""
    with pytest.raises(BadInput, match="request: got"):
        MeasurementRequest.read(document)


def test_other_hardware_is_refused() -> None:
    """A host whose processor is another than the one asked for does not answer for it; other software may."""
    replace(REQUEST, expects={"cpu": "c", "openvino": "0"}).refuse_other(DEVICE)
    with pytest.raises(BadInput, match=r"device\.cpu: got 'c'; board was d before: give other hardware a name"):
        replace(REQUEST, expects={"cpu": "d"}).refuse_other(DEVICE)


def test_a_devices_queue_is_a_sweep_by_its_name() -> None:
    """The name leads to the sweep and back; `local` and what cannot be part of an artifact's name are no devices."""
    assert queue("pi-5.kitchen")["name"] == sweep_name("pi-5.kitchen") == "device-pi-5.kitchen"
    assert device_of("device-pi-5.kitchen") == "pi-5.kitchen"
    assert device_of("fashion-mnist-demo") is device_of("device-") is None
    with pytest.raises(BadInput, match="NAME: got 'local'; name it otherwise"):
        queue("local")
    with pytest.raises(BadInput, match="NAME: got 'my board'"):
        queue("my board")


def test_a_profile_of_another_device_is_refused() -> None:
    """A plan measured on one device does not guide trials that measure on another, nor on other hardware."""
    curves = (Curve("a", (8, 16), (0.5, 0.9), (0.7, 1.0)),)
    made = Profile("t", "n", "b", "cpu (c)", "f32", (GroupSpec("a", 16, 8),), "top1", 0.9, curves, fingerprint=DEVICE)
    assert Profile.from_json(json.loads(json.dumps(made.to_json()))) == made
    made.refuse_other(replace(DEVICE, host="another", versions={}))
    for other, remedy in (
        (replace(DEVICE, name="local"), "prunefleet plan`"),
        (replace(DEVICE, name="pi"), "prunefleet plan --measure-on pi`"),
        (replace(DEVICE, cpu="d"), "prunefleet plan --measure-on board`"),
    ):
        with pytest.raises(BadInput, match=r"profile: got 'measured on board \(cpu, c\)'") as told:
            made.refuse_other(other)
        assert remedy in str(told.value)
    replace(made, fingerprint=None).refuse_other(DEVICE)
    replace(made, fingerprint=replace(DEVICE, name="local")).refuse_other(replace(DEVICE, name="local", cpu="d"))


def test_a_profile_of_several_devices_is_for_all_of_them_together() -> None:
    """In any order; for one of them alone, or for one more, it is refused with the line that makes the right one."""
    pi = replace(DEVICE, name="pi", cpu="p")
    both = tuple(DeviceLatencies(each, (({"a": 8}, 0.7),)) for each in (DEVICE, pi))
    curves = (Curve("a", (8, 16), (0.5, 0.9), (0.7, 1.0)),)
    made = Profile("t", "n", "b", "c", "f32", (GroupSpec("a", 16, 8),), "top1", 0.9, curves, devices=both)
    assert Profile.from_json(json.loads(json.dumps(made.to_json()))) == made
    made.refuse_other(pi, DEVICE)
    third = replace(DEVICE, name="third")
    for others, named in (((DEVICE,), "board"), ((DEVICE, pi, third), "board,pi,third"), ((pi, third), "pi,third")):
        with pytest.raises(BadInput, match=r"profile: got 'measured on board \(cpu, c\) and pi \(cpu, p\)'") as told:
            made.refuse_other(*others)
        assert f"prunefleet plan --measure-on {named}`" in str(told.value)
    with pytest.raises(BadInput, match=r"profile\.latencies: got -1"):
        replace(made, devices=(DeviceLatencies(DEVICE, (({"a": 8}, -1.0),)),))


def test_a_sweep_names_one_device_or_several() -> None:
    """A list names each once; none at all, or a word that is no name, is refused."""
    assert device_names("measure.device", "board") == ("board",)
    assert device_names("measure.device", ["board", "local"]) == ("board", "local")
    for wrong in ([], ["board", "board"], ["my board"], 3, None):
        with pytest.raises(BadInput, match=r"measure\.device: got"):
            device_names("measure.device", wrong)
