"""Log records without secrets, whoever shows them: the log file, pytest's live log, a captured section.

botocore logs every header that it sends, a session token among them, as soon as somebody asks for DEBUG.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from opsproof.journal import Redactor


@contextmanager
def redacted_records(redactor: Redactor) -> Iterator[None]:
    """Clean every log record of this process as it is made, for as long as the block lasts."""
    make = logging.getLogRecordFactory()
    formatter = logging.Formatter()

    def make_clean(*arguments: Any, **named: Any) -> logging.LogRecord:
        record = make(*arguments, **named)
        try:
            message = record.getMessage()
        except (TypeError, ValueError, KeyError):
            return record  # arguments that do not fit the message: its handlers complain of that
        cleaned = redactor.clean(message)
        if cleaned != message:
            record.msg, record.args = cleaned, None
        if record.exc_info and record.exc_info[0] is not None:
            # Formatters take this text where it is set, and make none of their own.
            record.exc_text = redactor.clean(formatter.formatException(record.exc_info))
        return record

    logging.setLogRecordFactory(make_clean)
    try:
        yield
    finally:
        logging.setLogRecordFactory(make)
