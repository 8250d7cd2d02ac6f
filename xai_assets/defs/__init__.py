"""One folder per monitor; adding a monitor is adding a folder with a `defs.yaml`."""
