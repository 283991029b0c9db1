"""Tests. A package only so that `tests.dst` can be imported and run as a module."""
