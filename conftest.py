"""Load opsproof's pytest side: options, fixtures, steps. A repository of your own needs no more than this."""

pytest_plugins = ["opsproof.plugin"]
