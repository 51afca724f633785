"""conf.example.toml as a newcomer takes it: two lines changed, and it runs a real nginx's certificate."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

from rotator import config
from tests.support.authority import CA, pem
from tests.support.calls import call
from tests.support.edge import Edge
from tests.support.nginx_server import NginxServer, ServerBlock, include_line

EXAMPLE = Path(__file__).parents[2] / "conf.example.toml"


def with_two_lines_changed(names: str, listener: str) -> str:
    """The example with the lines that it marks with (1) and (2) changed, and no other."""
    before = EXAMPLE.read_text()
    after = re.sub(r"^names = .*$", f'names = ["{names}"]', before, flags=re.MULTILINE)
    after = re.sub(r"^listeners = .*$", f'listeners = ["{listener}"]', after, flags=re.MULTILINE)
    pairs = zip(before.splitlines(), after.splitlines(), strict=True)
    assert len([1 for old, new in pairs if old != new]) == 2
    return after


def on(text: str, edge: Edge) -> str:
    """The example on this host : each path that it shows with its default is set, and nothing else."""
    command = ", ".join(f'"{word}"' for word in edge.nginx.command)
    here = {
        "state_dir": f'"{edge.state}"',
        "incoming": f'"{edge.incoming}"',
        "command": f"[{command}]",
        "include_dir": f'"{edge.include_dir}"',
        "apply": '"direct"',
        "pid_file": f'"{edge.nginx.pid_path}"',
        "error_log": f'"{edge.nginx.error_log_path}"',
        "roots": f'"{edge.roots}"',
    }
    for key, value in here.items():
        text, found = re.subn(rf"^#{key} = .*$", f"{key} = {value}", text, flags=re.MULTILINE)
        assert found == 1, key
    return text


def test_with_two_lines_changed_it_is_a_configuration_with_all_defaults(tmp_path: Path) -> None:
    path = tmp_path / "rotator.toml"
    path.write_text(with_two_lines_changed("www.example.org", "127.0.0.1:443"))
    least = 'name = "example.cn"\nnames = ["www.example.org"]\nlisteners = ["127.0.0.1:443"]\n'
    assert tomllib.loads(path.read_text())["site"] == tomllib.loads(f"[[site]]\n{least}")["site"]
    assert call("--config", path, "config", "check").status == 0
    found, mistakes = config.check(f"[[site]]\n{least}", path)
    assert mistakes == ()
    assert found is not None
    loaded = config.load(path)
    assert (loaded.state_dir, loaded.incoming, loaded.nginx) == (found.state_dir, found.incoming, found.nginx)
    assert loaded.sites[0].site == found.sites[0].site


def test_with_two_lines_changed_it_takes_over_a_real_nginx_and_rotates_it(
    nginx: NginxServer, tmp_path: Path, issuing_ca: CA, root_ca: CA
) -> None:
    edge = Edge(nginx, tmp_path / "edge", issuing_ca, root_ca, listeners=1)
    include = edge.include_dir / "example.cn.conf"
    nginx.blocks = [ServerBlock(edge.name("example"), edge.addresses, include_line(include))]
    edge.config_path.write_text(on(with_two_lines_changed(edge.name("example"), edge.addresses[0]), edge))
    checked = edge.cli("config", "check")
    assert (checked.returncode, ": valid: 1 site" in checked.stdout) == (0, True), checked.stderr

    first, renewal = edge.issue(), edge.issue()
    chain, key = edge.write_pair(first)
    taken = edge.cli("swap", "example.cn", "--first", "--cert", chain, "--key", key)
    assert (taken.returncode, f"include {include};" in taken.stdout) == (8, True), taken.stdout
    nginx.start()
    proved = edge.cli("swap", "example.cn", "--cert", chain, "--key", key)
    assert (proved.returncode, edge.shown()) == (0, {first.chain_der}), proved.stdout

    leaf = tmp_path / "leaf.crt"
    leaf.write_bytes(pem(renewal.leaf))
    bundle = tmp_path / "bundle.crt"
    bundle.write_bytes(pem(*renewal.intermediates))
    _, key = edge.write_pair(renewal, tmp_path / "renewal")
    rotated = edge.cli("swap", "example.cn", "--cert", leaf, "--cert", bundle, "--key", key)
    assert (rotated.returncode, edge.shown()) == (0, {renewal.chain_der}), rotated.stdout
    back = edge.cli("rollback", "example.cn")
    assert (back.returncode, edge.shown()) == (0, {first.chain_der}), back.stdout
