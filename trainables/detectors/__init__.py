"""Detectors: functions that return mmdet model configs, their losses on chosen class channels, growing a classifier."""
