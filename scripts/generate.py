"""`make generate`: writes what is made from the code, in documents and as files; with `--check`, says what is old."""

import sys

from scripts import (
    alerts_reference,
    commands_reference,
    errors_reference,
    figures_reference,
    kubernetes,
    kubernetes_golden,
    logs_reference,
    metrics_reference,
    module_map,
    monitoring,
    objectives_reference,
    settings_reference,
    timeouts_reference,
    whole_files,
)
from scripts.regions import main

if __name__ == "__main__":
    modules = (
        alerts_reference,
        commands_reference,
        errors_reference,
        figures_reference,
        logs_reference,
        metrics_reference,
        module_map,
        objectives_reference,
        settings_reference,
    )
    # All of them, also behind one that is not up to date.
    done = [main(module.DOCUMENT, module.regions()) for module in modules]
    done += [timeouts_reference.run(), whole_files.main(kubernetes.files() | monitoring.files())]
    # Built from the others, so after them.
    sys.exit(max([*done, whole_files.main(kubernetes_golden.files())]))
