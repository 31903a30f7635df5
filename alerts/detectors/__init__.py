"""One file a detector: ``DETECTOR = Detector(...)``, found by :func:`opsboard.core.registry.detectors`."""
