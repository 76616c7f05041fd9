"""Many trials: from one YAML file to a searched, recorded and promoted configuration.

In: a sweep file. Out: an MLflow experiment (sweep > trial > step runs), a report and a registered champion.
May import `search_spaces` and `trainables`, Ray, Optuna and MLflow. Knows nothing of tensors.
"""
