"""Prometheus metrics; names carry units."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram


class Metrics:
    """Every metric of the daemon, in a registry of its own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        r = self.registry
        self.frames = Counter("cryonaut_frames", "Frames acknowledged", ["level"], registry=r)
        self.frames_refused = Counter("cryonaut_frames_refused", "Frames refused for now", registry=r)
        self.messages_refused = Counter("cryonaut_messages_refused", "Messages refused for good", registry=r)
        self.commands = Counter("cryonaut_commands", "Commands sent", ["work"], registry=r)
        self.exposures = Gauge("cryonaut_exposures", "Holes exposed in this session", registry=r)
        self.suspended = Gauge("cryonaut_suspended", "1 while something holds the session", registry=r)
        self.degraded = Gauge("cryonaut_degraded", "1 while a fallback model is at work", registry=r)
        self.driver_up = Gauge("cryonaut_driver_up", "1 while a driver is connected", registry=r)
        self.phase = Gauge("cryonaut_phase", "1 for the phase the session is in", ["phase"], registry=r)
        self.pending = Gauge("cryonaut_frames_pending", "Frames whose analysis is due", registry=r)
        self.notices_dropped = Counter("cryonaut_previews_dropped", "Events watchers were too slow for", registry=r)
        self.notices = Counter("cryonaut_notices", "Notices sent, and attempts that failed", ["result"], registry=r)
        self.notices_failing = Gauge("cryonaut_notices_failing", "1 while notices cannot be sent", registry=r)
        self.good = Gauge("cryonaut_micrographs_good", "Good micrographs of this session", registry=r)
        self.disk_free = Gauge("cryonaut_disk_free_bytes", "Room left for frames, in bytes", registry=r)
        self.idle_seconds = Gauge("cryonaut_idle_seconds", "Time since something was last finished, in s", registry=r)
        self.pages_open = Gauge("cryonaut_pages_open", "Browsers that have the page open", registry=r)
        buckets = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30)
        self.ingest_seconds = Histogram(
            "cryonaut_ingest_seconds", "From a frame's turn to its acknowledgement", registry=r, buckets=buckets
        )
        self.inference_seconds = Histogram(
            "cryonaut_inference_seconds", "Time of a model on one frame", ["level"], registry=r, buckets=buckets
        )


METRICS = Metrics()
