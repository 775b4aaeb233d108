"""The command `imageinvoker`."""
