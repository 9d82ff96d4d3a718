"""What the READMEs of k8s/ show is what the app takes and what is built."""

import re
from pathlib import Path

import yaml

from app.catalog import load_catalog
from app.security.api_keys import KeyFile
from app.settings import Settings
from app.timeouts import ledger
from tests.support.manifests import KUBERNETES, Manifest, container, overlay, sluice_pod

CREDENTIALS = KUBERNETES / "components/credentials"


def row_of(setting: str) -> str:
    """Of the table of settings that the manifests follow."""
    lines = (KUBERNETES / "README.md").read_text().splitlines()
    (found,) = [line for line in lines if line.startswith(f"| `{setting}`")]
    return found


def both(resources: Manifest, name: str) -> str:
    """What is asked for and what is the limit."""
    assert resources["requests"][name] == resources["limits"][name]
    return str(resources["limits"][name])


def test_the_settings_that_manifests_follow_are_listed_with_the_manifests_numbers() -> None:
    pod = sluice_pod(overlay("production"))
    app = container(pod, "app")["resources"]
    (state,) = [volume["emptyDir"]["sizeLimit"] for volume in pod["volumes"] if volume["name"] == "state"]
    fields, waits = Settings.model_fields, ledger()
    expected = {
        "SLUICE_DRAIN_SECONDS": [
            f"above {waits['drain_seconds']:g} ",
            f"({pod['terminationGracePeriodSeconds']})",
            f" {waits['node_grace_seconds']:g} at most",
        ],
        "SLUICE_LOG_BYTES_MAX": [
            f"above {fields['log_bytes_max'].default // 1024**2} MiB",
            f"({state})",
            f"({both(app, 'ephemeral-storage')}, request and limit)",
        ],
        "WORKERS": [
            f"({both(app, 'memory')}, request and limit)",
            "`base/size.yaml`",
            "`components/autoscaling-*`",
        ],
        "SLUICE_STREAM_SECONDS_MAX": [
            f"above {waits['stream_seconds_max']:g} ",
            f"{waits['nginx_read_seconds']:g} s",
        ],
    }
    for setting, parts in expected.items():
        row = row_of(setting)
        assert [part for part in parts if part not in row] == [], row


def test_the_keys_file_that_is_shown_is_one_that_the_app_reads() -> None:
    text = (CREDENTIALS / "README.md").read_text()
    (shown,) = re.findall(r"^ {6}keys:\n(?: {8}.*\n)+", text, re.MULTILINE)
    (entry,) = KeyFile.model_validate(yaml.safe_load(shown)).keys
    assert (entry.principal, entry.tier) == ("acme", "pro")


def test_an_upstreams_key_is_where_the_secret_is_mounted_and_a_model_finds_it(
    tmp_path: Path,
) -> None:
    (mount,) = [
        one["mountPath"]
        for one in container(sluice_pod(overlay("production")), "app")["volumeMounts"]
        if one["name"] == "credentials"
    ]
    (volume,) = [one for one in sluice_pod(overlay("production"))["volumes"] if one["name"] == "credentials"]
    assert "items" not in volume["secret"], "every key of the Secret is a file"
    text = (CREDENTIALS / "README.md").read_text()
    (key_file,) = re.findall(r"`api_key_file: (\S+)`", text)
    assert key_file.startswith(f"{mount}/")
    assert f"`--from-file={Path(key_file).name}`" in text
    key = tmp_path / "openai.key"
    key.write_text("sk-upstream\n")
    models = tmp_path / "models.yaml"
    upstream = {"provider": "openai", "base_url": "http://127.0.0.1:1/v1", "api_key_file": str(key)}
    models.write_text(yaml.safe_dump({"models": {"chat": [upstream]}}))
    assert load_catalog(models).models


def test_whoever_stands_behind_a_proxy_is_told_to_name_it() -> None:
    for name in ("gateway-api", "ingress-legacy", "edge"):
        assert "`SLUICE_TRUSTED_PROXIES`" in (KUBERNETES / "components" / name / "README.md").read_text(), name
    assert "# SLUICE_TRUSTED_PROXIES=" in (KUBERNETES / "overlays/production/settings.env").read_text()
