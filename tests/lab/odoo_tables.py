"""The tables of an Odoo that reach the world outside, as version 14 makes them, with something in each that would."""

from __future__ import annotations

from tests.lab.postgres_server import Session

UUID = "7ca15316-e5ef-11f1-8900-f73b85ca2247"
SECRET = "222b9b30-cfc1-4b39-849e-674954ba1318"
PRODUCTION = "https://erp.example.com"

KERNEL = """
CREATE TABLE public.ir_module_module (id serial PRIMARY KEY, name text, state text, latest_version text);
CREATE TABLE public.ir_config_parameter (id serial PRIMARY KEY, key text NOT NULL UNIQUE, value text NOT NULL);
"""
IDENTITY = f"""
INSERT INTO public.ir_config_parameter (key, value) VALUES ('database.uuid', '{UUID}'),
    ('database.secret', '{SECRET}'), ('web.base.url', '{PRODUCTION}'), ('iap.endpoint', 'https://iap.example.com')
    ON CONFLICT (key) DO UPDATE SET value = EXCLUDED.value;
"""
OUTWARD = """
CREATE TABLE public.ir_cron (id serial PRIMARY KEY, cron_name text, active boolean);
INSERT INTO public.ir_cron (cron_name, active) VALUES ('mails', true), ('autovacuum', true), ('off', false);
CREATE TABLE public.ir_mail_server (id serial PRIMARY KEY, name text NOT NULL, smtp_host text NOT NULL,
    smtp_port int NOT NULL, smtp_user text, smtp_pass text, smtp_encryption text NOT NULL, sequence int,
    active boolean);
INSERT INTO public.ir_mail_server (name, smtp_host, smtp_port, smtp_encryption, active)
    VALUES ('out', 'smtp.example.com', 587, 'starttls', true);
CREATE TABLE public.fetchmail_server (id serial PRIMARY KEY, name text NOT NULL, active boolean, state text);
INSERT INTO public.fetchmail_server (name, active) VALUES ('in', true);
CREATE TABLE public.mail_mail (id serial PRIMARY KEY, state text);
INSERT INTO public.mail_mail (state) VALUES ('outgoing'), ('sent');
CREATE TABLE public.payment_acquirer (id serial PRIMARY KEY, name text NOT NULL, state text NOT NULL);
INSERT INTO public.payment_acquirer (name, state) VALUES ('card', 'enabled'), ('wire', 'disabled');
CREATE TABLE public.delivery_carrier (id serial PRIMARY KEY, prod_environment boolean);
INSERT INTO public.delivery_carrier (prod_environment) VALUES (true);
CREATE TABLE public.iap_account (id serial PRIMARY KEY, account_token text);
INSERT INTO public.iap_account (account_token) VALUES ('abc'), ('def+disabled'), (NULL);
CREATE TABLE public.res_users (id serial PRIMARY KEY, login text, google_calendar_rtoken text);
INSERT INTO public.res_users (login, google_calendar_rtoken) VALUES ('admin', 'rtoken'), ('demo', NULL);
CREATE TABLE public.queue_job (id serial PRIMARY KEY, state text);
INSERT INTO public.queue_job (state) VALUES ('pending'), ('done');
"""


def make_odoo(connection: Session, version: str = "14.0.1.3") -> None:
    """Make an Odoo database of what is in an empty one, as production has it."""
    connection.execute(KERNEL.encode())
    connection.execute(
        "INSERT INTO public.ir_module_module (name, state, latest_version) VALUES ('base', 'installed', %s)", (version,)
    )
    make_outward(connection)


def make_outward(connection: Session) -> None:
    """Add to an Odoo-shaped database what reaches the world outside."""
    connection.execute((IDENTITY + OUTWARD).encode())


def acting(connection: Session) -> list[str]:
    """Return what of it still would: the first word is the table's name."""
    queries = {
        "ir_cron": "SELECT cron_name FROM public.ir_cron WHERE active",
        "ir_mail_server": "SELECT smtp_host FROM public.ir_mail_server WHERE active",
        "fetchmail_server": "SELECT name FROM public.fetchmail_server WHERE active",
        "mail_mail": "SELECT state FROM public.mail_mail WHERE state = 'outgoing'",
        "payment_acquirer": "SELECT name FROM public.payment_acquirer WHERE state <> 'disabled'",
        "delivery_carrier": "SELECT 'production' FROM public.delivery_carrier WHERE prod_environment",
        "iap_account": "SELECT account_token FROM public.iap_account WHERE account_token NOT LIKE '%+disabled'",
        "res_users": "SELECT login FROM public.res_users WHERE google_calendar_rtoken IS NOT NULL",
        "queue_job": "SELECT state FROM public.queue_job WHERE state <> 'done' AND state <> 'failed'",
    }
    return [
        f"{table} {row[0]}" for table, query in queries.items() for row in connection.execute(query.encode()).fetchall()
    ]


def parameters(connection: Session) -> dict[str, str]:
    """Return Odoo's parameters."""
    return dict(connection.execute("SELECT key, value FROM public.ir_config_parameter").fetchall())
