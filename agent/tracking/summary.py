"""The words of a run's summary, as docs/vocabulary.md has them."""

from collections.abc import Mapping, Sequence
from typing import Any

from prunefleet.objective.trial import Latency, Measurement, Score, worst

FAILURE_KEYS = ("failure_kind", "failure_stage", "failure_message")
SCORE_KEYS = ("score", "score_terms", "metric_drop")


def summary(measurement: Measurement, score: Score) -> dict[str, Any]:
    """A measurement and its score in the vocabulary of a run's summary."""
    accuracy = measurement.accuracy
    qualities = {
        f"val_{accuracy.metric}": accuracy.val,
        f"holdout_{accuracy.metric}": accuracy.holdout,
        f"test_{accuracy.metric}": accuracy.test,
        f"val_{accuracy.metric}_pruned": accuracy.pruned,
        f"val_{accuracy.metric}_recalibrated": accuracy.recalibrated,
        f"val_{accuracy.metric}_trained": accuracy.trained,
    }
    found = {
        "score": score.value,
        "score_terms": dict(score.terms),
        **qualities,
        "metric_drop": measurement.metric_drop,
        **latencies_words(measurement.latencies),
        "params": measurement.params,
        "macs": measurement.macs,
        "size_bytes": measurement.size_bytes,
    }
    return {key: value for key, value in found.items() if value is not None}


def latencies_words(latencies: Sequence[Latency]) -> dict[str, Any]:
    """The figures of the latency that counts; where there are several, of each device by its name as well."""
    each = {latency.device.name: latency_words(latency) for latency in latencies}
    return latency_words(worst(latencies)) | ({"devices": each} if len(each) > 1 else {})


def latency_words(latency: Latency) -> dict[str, Any]:
    """A latency's figures; those that are not known are left out."""
    energy = latency.energy
    found = {
        "latency_ratio": latency.ratio,
        "latency_ratio_lo": latency.ratio_lo,
        "latency_ratio_hi": latency.ratio_hi,
        "latency_p10_ms": latency.p10_ms,
        "latency_p50_ms": latency.p50_ms,
        "latency_p90_ms": latency.p90_ms,
        "latency_p99_ms": latency.p99_ms,
        "baseline_p50_ms": latency.baseline_p50_ms,
        "noisy": latency.noisy,
        "throughput_fps": latency.throughput_fps or None,
        "latency_ratio_f32": latency.ratio_f32,
        "energy_mj": energy and energy.mj,
        "baseline_energy_mj": energy and energy.baseline_mj,
        "energy_source": energy and energy.source,
    }
    return {key: value for key, value in found.items() if value is not None}


def stages(seconds: Mapping[str, float]) -> dict[str, float]:
    """The seconds of each stage in the vocabulary of a run's summary."""
    return {f"seconds_{stage}": round(value, 3) for stage, value in seconds.items()}
