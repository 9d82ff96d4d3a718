"""`make faults`: acts every fault with real processes, prints what came of it, and writes it to deploy/FAILOVER.md."""

import sys

from scripts.regions import HOME, filled, table
from tests.faults.cases import GROUPS
from tests.faults.run import Row, run
from tests.faults.special import SPECIALS, run_specials

DOCUMENT = HOME / "deploy" / "FAILOVER.md"
HEAD = [
    "what goes wrong",
    "client",
    "the client got",
    "text",
    "upstreams asked",
    "of these generated",
    "seconds",
    "outcome",
    "",
]


def cells(row: Row) -> list[str]:
    """One line of the table, all of it as seen from outside."""
    got, case = row.got, row.case
    end = f"{got.status} `{got.end}`" + (f", {got.resets} reset" if got.resets else "")
    text = "whole" if got.text == case.text and case.end == "done" else f"{len(got.text)} characters"
    second = case.second is not None
    return [
        case.name,
        case.client,
        end,
        text,
        f"{row.asked[0]} + {row.asked[1]}" if second else f"{row.asked[0]}",
        f"{row.generated[0]} + {row.generated[1]}" if second else f"{row.generated[0]}",
        f"{got.seconds:.1f}",
        row.outcome,
        "pass" if not row.wrong else "**fail**",
    ]


def main() -> int:
    """Run all, write, and say by the exit code whether all passed."""
    cases = [case for group in GROUPS.values() for case in group]
    rows = iter(run(cases))
    parts, failed = [], 0
    for title, group in GROUPS.items():
        found = [next(rows) for _ in group]
        failed += sum(bool(row.wrong) for row in found)
        parts.append(f"### {title}\n\n{table(HEAD, [cells(row) for row in found])}")
        for row in found:
            for reason in row.wrong:
                print(f"{row.case.name}: {reason}", file=sys.stderr)
    special = run_specials()
    failed += sum(bool(wrong) for _, _, wrong in special)
    lines = [[what, seen, "pass" if not wrong else "**fail**"] for what, seen, wrong in special]
    for what, seen, wrong in special:
        if wrong:
            print(f"{what}: {seen}", file=sys.stderr)
    parts.append("### Several requests at once\n\n" + table(["what happens", "seen", ""], lines))
    count = len(cases) + len(SPECIALS)
    parts.append(f"{count - failed} of {count} pass.")
    text = "\n\n".join(parts)
    print(text)
    DOCUMENT.write_text(filled(DOCUMENT.read_text(encoding="utf-8"), {"faults": text}), encoding="utf-8")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
