"""What a host asks for beyond whereabouts, validated: retention, limits, locks, keys, and whom to tell.

A field that is not given has no value here: the defaults are those of `opsproof.policies`.
"""

from __future__ import annotations

from typing import Literal

from opsproof.inventory.values import (
    Below,
    Bytes,
    Count,
    Days,
    Deletions,
    KeptReleases,
    KeyFile,
    Ours,
    PingUrl,
    Recipients,
    Seconds,
    ServerVersion,
    Share,
    Span,
    TablePatterns,
    Text,
    Texts,
    Web,
)


class RetentionVariables(Ours):
    """The mapping `retention:`, which backups and leftovers are kept, and how long."""

    within: Span | None = None
    last: Count | None = None
    daily: Count | None = None
    weekly: Count | None = None
    monthly: Count | None = None
    yearly: Count | None = None
    noncurrent: bool | None = None
    safety: Span | None = None
    parked: Span | None = None
    uploads: Span | None = None
    logs: Span | None = None


class ArtifactsVariables(Ours):
    """The mapping `artifacts:`, what migrations leave behind."""

    tables: TablePatterns | None = None
    rows: Deletions | None = None


class ObjectivesVariables(Ours):
    """The mapping `objectives:`."""

    rto: Span | None = None
    rpo: Span | None = None


class DrillVariables(Ours):
    """The mapping `drill:`, how the application is started on a drill's copy, and how far back gaps are looked for."""

    command: Text | None = None
    health_url: Web | None = None
    timeout: Span | None = None
    window: Span | None = None


class ObjectLockVariables(Ours):
    """The mapping `store.object_lock:`."""

    mode: Literal["GOVERNANCE", "COMPLIANCE"]
    days: Days


class ExpectVariables(Ours):
    """The mapping `store.expect:`, what the bucket's own settings have to be."""

    versioning: bool | None = None
    encryption: bool | None = None
    object_lock: bool | None = None
    lifecycle: bool | None = None
    public_access_blocked: bool | None = None


class EncryptionVariables(Ours):
    """The mapping `encryption:`, whom backups are encrypted to."""

    recipients: Recipients | None = None
    identity_file: KeyFile | None = None


class SigningVariables(Ours):
    """The mapping `signing:`."""

    key_file: KeyFile | None = None
    verify_key_file: KeyFile | None = None


class ThresholdsVariables(Ours):
    """The mapping `thresholds:`, what checks take for too much."""

    minimum_version: ServerVersion | None = None
    connections: Share | None = None
    long_transaction: Span | None = None
    wraparound: Share | None = None
    growth: Share | None = None
    slot_bytes: Bytes | None = None
    clock_skew: Span | None = None
    size_fall: Share | None = None
    unverified_for: Span | None = None


class PingVariables(Ours):
    """The mapping `ping:`, the address that is asked at an action's start and end."""

    backup: PingUrl | None = None
    restore: PingUrl | None = None
    rollback: PingUrl | None = None
    deploy: PingUrl | None = None
    drill: PingUrl | None = None
    cleanup: PingUrl | None = None
    recover: PingUrl | None = None
    checks: PingUrl | None = None


class DeployVariables(Ours):
    """The mapping `deploy:`, how releases are deployed."""

    keep_releases: KeptReleases = 5
    shared: Below = ()
    rehearse: bool = False
    database: Literal["odoo", "alembic", "none"] | None = None
    hook_timeout: Seconds = 600.0


class HooksVariables(Ours):
    """The mapping `hooks:`, what is run on the host in the course of a deploy: shell commands, or pytest files."""

    after_update_code: Texts = ()
    before_symlink: Texts = ()
    after_cleanup: Texts = ()
