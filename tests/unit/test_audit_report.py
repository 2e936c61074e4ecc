"""How an audit is shown to a person: causes by how often they came, the largest first, and what is cut off is the smallest."""

from __future__ import annotations

from collections import Counter

from obs.clock import MINUTE_NS
from obs.monitor.audit.counts import Totals
from obs.monitor.audit.findings import Findings
from obs.monitor.audit.report import ProviderLedger, Report


def test_causes_are_shown_the_largest_first() -> None:
    ignored = {"closed": 2, "duplicate": 1_000, "late": 30}
    ledger = ProviderLedger("kis", totals=Totals(ignored=ignored), gaps=Counter(mute=3, api_error=3, venue_count=41, refused=1))
    lines = Report(Findings(), [ledger], None).lines()
    assert "  gap rows: venue_count 41, api_error 3, mute 3, refused 1" in lines
    assert any(line.endswith("ignored 1,032 (duplicate 1,000, late 30, closed 2)") for line in lines)


def test_what_cannot_be_proven_is_shown_the_largest_first() -> None:
    """Of more kinds than are shown the smallest are left out."""
    findings = Findings()
    for minute in range(24):
        for number in range(5 if minute == 23 else 1):
            findings.cannot_prove("kis", "folded", "lies in a gap", minute_ns=minute * MINUTE_NS, symbol=f"S{number}")
    lines = [line for line in Report(findings, [], None).lines() if line.startswith("unproven  kis")]
    assert len(lines) == 20
    assert lines[0].endswith("00:23:00.000Z folded: lies in a gap (5 symbols)")
    assert "00:00:00.000Z" in lines[1]
