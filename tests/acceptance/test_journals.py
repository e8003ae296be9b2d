"""The journal of a run: its head is in the JUnit XML, and a copy beside the backups."""

from __future__ import annotations

import json
import re

from opsproof.chain import verify_chain
from tests.lab.finished_backup import FinishedBackup


def test_the_copy_beside_the_backups_is_whole_up_to_the_head_in_the_xml(finished_backup: FinishedBackup) -> None:
    (name, stored), *others = finished_backup.journals.items()
    assert others == []
    assert re.fullmatch(r"backup_prod_\d{4}-\d\d-\d\d_\d\d-\d\d-\d\d\.jsonl", name)
    assert stored == (finished_backup.project.logs / name).read_bytes()
    told = dict(re.findall(r'<property name="(opsproof_journal\w*)" value="([^"]*)"', finished_backup.run.xml))
    assert told["opsproof_journal"] == name
    found = verify_chain(stored, told["opsproof_journal_head"])
    assert found.faults == ()
    assert found.head == told["opsproof_journal_head"]
    last = json.loads(stored.splitlines()[-1])
    assert (last["event"], last["exit_status"]) == ("run ends", 0)


def test_nobody_can_make_a_failed_step_pass_in_it(finished_backup: FinishedBackup) -> None:
    (stored,) = finished_backup.journals.values()
    head = verify_chain(stored).head
    for line in stored.splitlines():
        if b'"outcome": "passed"' in line:
            changed = stored.replace(line, line.replace(b"passed", b"failed"))
            assert verify_chain(changed, head).faults != ()
