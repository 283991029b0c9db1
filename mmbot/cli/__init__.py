"""The `mmbot` command: what a person types and sees. Thin: the work is in `mmbot.ops`, the looks in `render` and `screen`."""
