"""What a record is: the fixed-size rows (schema), their JSONL lines and back (jsonl), events and gap lines (events).

Input: numpy rows of the dtypes in `schema`. Output: lines of JSON without newline, or rows again. Pure: no files, no clock.
Invariant: encode and decode are inverses; a decimal of up to 15 significant digits leaves with the value it came with.
May import: errors, clock.
"""

from __future__ import annotations

__all__: list[str] = []
