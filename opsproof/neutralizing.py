"""What makes a copy of an Odoo database harmless: statements, each with the table and the columns that it needs.

Nothing of it may reach the world outside: no scheduled action runs, no mail goes out or comes in, no card is charged,
no carrier, authority or partner takes an order. From version 16 on Odoo has statements of its own, one file a module
(`data/neutralize.sql`), which `odoo neutralize --stdout` prints; `BUILT_IN` does their work where there are none.
`ALWAYS` comes after either: it is stricter than Odoo's own, which leaves one scheduled action on.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

FIRST_WITH_ITS_OWN = 16
"""The first major version of Odoo that has the command `neutralize`."""

SINK = "invalid"
"""The host of the mail server that takes the others' place: a name that never resolves (RFC 6761).

Without any active server Odoo would take the one of its command line or odoo.conf.
"""

IS_NEUTRALIZED = "database.is_neutralized"
UUID, SECRET = "database.uuid", "database.secret"
BASE_URL, FROZEN_URL = "web.base.url", "web.base.url.freeze"

_NOWHERE = "https://neutralized.invalid"
_VERSION = re.compile(r"(?:saas~)?(\d{1,4})(?:\.|$)", re.ASCII)
_SINK_COLUMNS: Mapping[str, object] = {
    "name": "neutralization - disable emails",
    "smtp_host": SINK,
    "smtp_port": 1025,
    "smtp_encryption": "none",
    "smtp_authentication": "login",
    "sequence": 0,
    "active": True,
}


@dataclass(frozen=True)
class Measure:
    """One statement.

    Attributes:
        what: The rows that it changes, as a summary counts them; empty where they are not counted.
        table: Of the schema public.
        columns: Without one of these there is nothing to do.
        sql: The statement.
    """

    what: str
    table: str
    columns: tuple[str, ...]
    sql: str


def _update(what: str, table: str, column: str, value: str, where: str = "", *needed: str) -> Measure:
    condition = where or f"{column} IS DISTINCT FROM {value}"
    statement = f"UPDATE public.{table} SET {column} = {value} WHERE {condition}"  # noqa: S608 - constants
    return Measure(what, table, (column, *needed), statement)


def _emptied(what: str, table: str, *columns: str) -> Iterator[Measure]:
    for column in columns:
        yield _update(what, table, column, "NULL")


def _endpoints(*keys: str) -> Iterator[Measure]:
    for key in keys:
        yield Measure(
            "",
            "ir_config_parameter",
            ("key", "value"),
            f"INSERT INTO public.ir_config_parameter (key, value) SELECT '{key}', ''"  # noqa: S608 - constants
            f" WHERE NOT EXISTS (SELECT FROM public.ir_config_parameter WHERE key = '{key}')",
        )
        yield _update("endpoints", "ir_config_parameter", "value", f"'{_NOWHERE}'", f"key = '{key}'", "key")


ALWAYS: tuple[Measure, ...] = (
    _update("scheduled actions", "ir_cron", "active", "false"),
    _update(
        "outgoing mail servers", "ir_mail_server", "active", "false",
        f"active IS NOT FALSE AND smtp_host IS DISTINCT FROM '{SINK}'", "smtp_host",
    ),
    _update("incoming mail servers", "fetchmail_server", "active", "false"),
    # What waits in a queue would go out with the first server or job runner that somebody turns on.
    _update("waiting mails", "mail_mail", "state", "'cancel'", "state = 'outgoing'"),
    _update("waiting text messages", "sms_sms", "state", "'canceled'", "state = 'outgoing'"),
    _update("waiting letters", "snailmail_letter", "state", "'canceled'", "state = 'pending'"),
    _update(
        "waiting jobs", "queue_job", "state", "'failed'",
        "state IN ('wait_dependencies', 'pending', 'enqueued', 'started')",
    ),
)  # fmt: skip
"""What is done after Odoo's own statements, too."""

BUILT_IN: tuple[Measure, ...] = (
    *_emptied("mail templates", "mail_template", "mail_server_id"),
    _update("payment providers", "payment_acquirer", "state", "'disabled'"),
    _update("payment providers", "payment_provider", "state", "'disabled'"),
    _update("payment providers", "payment_provider", "is_live", "false"),
    _update("delivery carriers", "delivery_carrier", "prod_environment", "false"),
    Measure(
        "accounts of in-app purchases", "iap_account", ("account_token",),
        "UPDATE public.iap_account SET account_token = regexp_replace(account_token, '(\\+.*)?$', '+disabled')"
        " WHERE account_token IS NOT NULL",
    ),
    *_endpoints("iap.endpoint", "iap.partner_autocomplete.endpoint", "iap_extract_endpoint", "sms.endpoint",
                "snailmail.endpoint", "reveal.endpoint", "enrich.endpoint"),
    _update("automated actions", "base_automation", "active", "false"),
    _update("webhooks", "ir_act_server", "webhook_url", "'neutralized'", "state = 'webhook'", "state"),
    *_emptied("tokens of calendars", "res_users", "google_calendar_token", "google_calendar_rtoken",
              "microsoft_calendar_token", "microsoft_calendar_rtoken"),
    *_emptied("tokens of calendars", "google_calendar_credentials", "calendar_token", "calendar_rtoken"),
    *_emptied("tokens of calendars", "res_users_settings", "google_calendar_token", "google_calendar_rtoken",
              "microsoft_calendar_token", "microsoft_calendar_rtoken"),
    *_emptied("tokens of mail servers", "ir_mail_server", "google_gmail_refresh_token",
              "microsoft_outlook_refresh_token"),
    *_emptied("tokens of mail servers", "fetchmail_server", "google_gmail_refresh_token",
              "microsoft_outlook_refresh_token"),
    *_emptied("tokens of social media", "social_account", "facebook_access_token", "instagram_access_token",
              "twitter_oauth_token", "twitter_oauth_token_secret", "linkedin_access_token", "youtube_access_token",
              "youtube_refresh_token"),
    _update("tokens of WhatsApp", "whatsapp_account", "token", "'neutralized'"),
    *_emptied("links to banks", "account_online_link", "access_token", "refresh_token"),
    Measure(
        "tokens of push messages", "ir_config_parameter", ("key",),
        "DELETE FROM public.ir_config_parameter"
        " WHERE key IN ('odoo_ocn.project_id', 'ocn.uuid', 'google_drive_refresh_token')",
    ),
    *_emptied("domains of websites", "website", "domain"),
    _update("networks of websites", "website", "cdn_activated", "false"),
    _update("pages for search engines", "website", "robots_txt", "E'User-agent: *\\nDisallow: /'"),
    _update("tax authorities", "res_company", "l10n_ar_afip_ws_environment", "'testing'",
            "l10n_ar_afip_ws_environment = 'production'"),
    _update("tax authorities", "res_company", "l10n_cl_dte_service_provider", "'SIITEST'",
            "l10n_cl_dte_service_provider = 'SII'"),
    _update("tax authorities", "res_company", "l10n_es_edi_test_env", "true"),
    _update("tax authorities", "res_company", "l10n_in_edi_production_env", "false"),
    _update("tax authorities", "res_company", "l10n_mx_edi_pac_test_env", "true"),
)  # fmt: skip
"""What is done where Odoo has no statements of its own."""


def sink(columns: Collection[str]) -> dict[str, object]:
    """Return the mail server that leads nowhere, as far as the table has these columns; empty where it is none."""
    if not {"name", "smtp_host", "smtp_port", "active"} <= set(columns):
        return {}
    return {name: value for name, value in _SINK_COLUMNS.items() if name in columns}


def major_of(version: str) -> int | None:
    """Return the major version of Odoo of its module base's version.

    >>> major_of("14.0.1.3"), major_of("saas~17.2.1.3"), major_of("")
    (14, 17, None)
    """
    match = _VERSION.match(version)
    return int(match[1]) if match else None


def own_statements(output: str) -> str:
    """Return the statements of `odoo neutralize --stdout`, without the transaction around them; empty if not whole."""
    lines = output.splitlines()
    if "BEGIN;" not in lines or "COMMIT;" not in lines:
        return ""
    last = len(lines) - 1 - lines[::-1].index("COMMIT;")
    return "\n".join(lines[lines.index("BEGIN;") + 1 : last]).strip()
