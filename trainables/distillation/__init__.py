"""Distillation: one file a method, pure losses on tensors and a small callable that holds their parameters."""
