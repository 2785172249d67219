"""The task lock: one holder at a time, taken and freed by scripts, renewed while its body runs."""
