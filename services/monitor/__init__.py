"""The monitor: turns events into history, metrics, a live view and mail."""
