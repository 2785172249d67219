"""Reruns: the same task again, with the arguments that it had."""
