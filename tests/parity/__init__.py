"""Whether this project computes what the original research code computed.

In: a folder of oracle files (.npz), each holding inputs and, as `exp_*`, what the original made of them.
Out: a line a file, from `uv run python -m tests.parity FOLDER`. A checker computes the same from a file's inputs and
collects the pairs in a `Comparison`; `CHECKERS` names the checker of each family. A family without one is not built
yet; an `exp_*` array that a checker does not look at is a failure.
"""
