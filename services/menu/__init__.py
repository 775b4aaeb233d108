"""Builds menus from the job tree and keeps them ready."""
