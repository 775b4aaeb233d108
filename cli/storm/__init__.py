"""`imageinvoker storm`: thousands of made-up machines go through the portal, and are measured."""
