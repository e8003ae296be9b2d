"""The run's header: environment, targets, stores, and where each setting came from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from opsproof.target import DirectoryStoreSettings, Environment, StoreSettings, Target


def lines(environment: Environment, versions: Mapping[str, str], *, dry_run: bool) -> Iterator[str]:
    """Yield the lines; never a secret.

    Args:
        environment: What is worked on.
        versions: For each target's name, the versions of its server and its client programs.
        dry_run: Whether nothing will change.
    """
    mode = ", dry run: nothing will change" if dry_run else ""
    yield f"opsproof: environment {environment.name} from {environment.origin}{mode}"
    for target in environment.targets:
        yield f"  target {target.name}"
        yield from (f"    {line}" for line in _target_lines(target, versions.get(target.name, "not known")))


def _target_lines(target: Target, versions: str) -> Iterator[str]:
    address = target.database
    yield f"database   {address.name} on {address.server}, role {address.user or 'of this account'}"
    yield f"server     {versions}"
    if target.filestore is None:
        yield "filestore  none"
    else:
        how = "content-addressed" if target.filestore.content_addressed else "copied"
        yield f"filestore  {target.filestore.path} ({how})"
    yield f"store      {show_store(target.store, target.customer)}"
    origins: dict[str, list[str]] = {}
    for setting, origin in target.sources.items():
        origins.setdefault(origin, []).append(setting)
    for origin, settings in sorted(origins.items()):
        yield f"from       {origin}: {', '.join(sorted(settings))}"


def show_store(settings: StoreSettings, customer: str) -> str:
    """Return where a store is, as one line."""
    if isinstance(settings, DirectoryStoreSettings):
        return f"folder {settings.path}" + (f", customer {customer}" if customer else "")
    endpoint = f" at {settings.endpoint_url}" if settings.endpoint_url else ""
    return f"s3://{settings.bucket}/{settings.prefix}{customer}/backups/, region {settings.region}{endpoint}"
