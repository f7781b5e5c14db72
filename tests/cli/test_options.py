import json

import pytest

from conftest import environment, run_python
from vbpr.cli import app


def test_threads_are_set_before_the_libraries_are_imported(board_model):
    code = f"""
import atexit
from vbpr.cli import app
atexit.register(lambda: print(__import__("torch").get_num_threads()))
app(["evaluate", {str(board_model)!r}, "--threads", "1"])
"""
    env = {name: value for name, value in environment().items() if not name.endswith("NUM_THREADS")}
    done = run_python("-c", code, env=env)
    assert done.returncode == 0 and done.stdout.splitlines()[-1] == "1"


@pytest.mark.parametrize(
    "command", sorted(c.name or c.callback.__name__.replace("_", "-") for c in app.registered_commands)
)
def test_every_command_takes_threads_and_tells_its_options_by_a_letter(cli, command):
    code, out, _ = cli(command, "-h")
    assert code == 0 and "--threads" in out and "-h, --help" in out


def test_no_sentence_of_the_list_of_commands_is_cut(cli):
    _, out, _ = cli("--help")
    assert "..." not in out.split("Commands:")[1]


@pytest.mark.parametrize("which", ["features", "model"])
def test_info_as_json_is_what_it_prints(cli, board_features, board_model, tmp_path, which):
    file = board_features if which == "features" else board_model
    code, out, _ = cli("info", file, "--json", tmp_path / "i.json")
    told = json.loads((tmp_path / "i.json").read_text())
    assert code == 0 and told["kind"] == which
    if which == "features":
        assert f"{told['done']} done, {told['pending']} pending" in out and told["failed"] == {}
    else:
        assert told["interactions"]["test"] > 0 and told["about"]["model"] == "visual"
    assert json.loads(cli("info", file, "--json", "-")[1]) == told


def test_info_refuses_to_write_over_what_it_describes(refused, board_model):
    assert "--json" in refused("info", board_model, "--json", board_model)
