"""What may vary in a sweep: one frozen dataclass a method, with type, default, range and source.

Optuna's distributions, the checks of a sweep file, MLflow's parameters and the README's table are read from here.
Standard library only; loads in milliseconds.
"""
